"""Manifests of the live fence (``model.livefence``): one Service, one slice."""

from __future__ import annotations

from typing import Any

from tidegate.model.epoch import Epoch
from tidegate.model.livefence import LIVE_PORT, live_name, port_of, slot_of
from tidegate.model.names import FENCE_INSTALL, LATEST_EPOCH, SYSTEM_NAMESPACE

PORT_NAME = "fence"


def live_service(install: str) -> dict[str, Any]:
    """No selector, so nobody but us writes its slices; no affinity, or an old answer would be kept for hours."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": live_name(install), "namespace": SYSTEM_NAMESPACE},
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "ports": [{"name": PORT_NAME, "port": LIVE_PORT, "protocol": "TCP"}],
        },
    }


def live_slice(epoch: Epoch, address: str, resource_version: str = "") -> dict[str, Any]:
    """The slice that leads to ``address`` (the responder's) at the port of ``epoch``. A ``resource_version`` makes a
    later writer lose, not overwrite."""
    metadata: dict[str, Any] = {
        "name": live_name(epoch.install),
        "namespace": SYSTEM_NAMESPACE,
        "labels": {
            "kubernetes.io/service-name": live_name(epoch.install),
            "endpointslice.kubernetes.io/managed-by": "tidegate.dev",
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
        "addressType": "IPv6" if ":" in address else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": PORT_NAME, "port": port_of(slot_of(epoch)), "protocol": "TCP"}],
    }
