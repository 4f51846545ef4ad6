"""Manifests of the live fence (``model.livefence``): one Service, one slice."""

from __future__ import annotations

from typing import Any

from tidegate.drain.epochslice import Place, epoch_slice
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.model.livefence import LIVE_PORT, live_name, port_of, slot_of
from tidegate.model.names import SYSTEM_NAMESPACE

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
    name = live_name(epoch.install)
    place = Place(service=name, name=name, family="IPv6" if ":" in address else "IPv4", port_name=PORT_NAME)
    return epoch_slice(epoch, place, Endpoint(address, port_of(slot_of(epoch))), resource_version)
