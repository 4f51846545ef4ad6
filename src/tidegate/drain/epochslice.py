"""The EndpointSlice that shows an epoch: one shape for the fence and its twins, whoever reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.model.names import FENCE_INSTALL, LATEST_EPOCH, SYSTEM_NAMESPACE


@dataclass(frozen=True, slots=True)
class Place:
    """Where an epoch is shown: the slice ``name`` of ``service``, at its port ``port_name``. ``labels``: what else the
    slice has."""

    service: str
    name: str
    family: str
    port_name: str
    labels: dict[str, str] = field(default_factory=dict)


def epoch_slice(epoch: Epoch, place: Place, endpoint: Endpoint, resource_version: str = "") -> dict[str, Any]:
    """Manifest of the slice that leads to ``endpoint``.

    ``resource_version`` of the slice it replaces makes the write lose, not overwrite, when another writer was first.
    """
    metadata: dict[str, Any] = {
        "name": place.name,
        "namespace": SYSTEM_NAMESPACE,
        "labels": {
            "kubernetes.io/service-name": place.service,
            "endpointslice.kubernetes.io/managed-by": "tidegate.dev",
            **place.labels,
            FENCE_INSTALL: epoch.install,
        },
        "annotations": {LATEST_EPOCH: str(epoch)},
    }
    if resource_version:
        metadata["resourceVersion"] = resource_version
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": place.family,
        "endpoints": [{"addresses": [endpoint.address], "conditions": {"ready": True}}],
        "ports": [{"name": place.port_name, "port": endpoint.port, "protocol": "TCP"}],
    }
