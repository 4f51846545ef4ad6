"""The fence's headless twin: the same epochs, in records instead of rules.

A Service with a ClusterIP has one address in DNS, which tells nothing of its endpoints. So the epoch stands once more
as the only endpoint of a headless Service, one slice for each address family. SRV records tell address and port, and
an epoch needs both.
"""

from __future__ import annotations

from typing import Any

from tidegate.drain.epochslice import Place, epoch_slice
from tidegate.model.dns import DNS_FENCE_PORT, dns_fence_name
from tidegate.model.epoch import Epoch
from tidegate.model.names import FENCE_PORT, SYSTEM_NAMESPACE


def headless_service(install: str) -> dict[str, Any]:
    """Manifest of the headless Service; no selector, so nobody but us writes its slices."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": dns_fence_name(install), "namespace": SYSTEM_NAMESPACE},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"name": DNS_FENCE_PORT, "port": FENCE_PORT, "protocol": "TCP"}],
        },
    }


def headless_slice_name(install: str, family: str) -> str:
    """Name of the slice that shows the epoch in ``family``."""
    return f"{dns_fence_name(install)}-{family.lower()}"


def headless_slice(epoch: Epoch, family: str, resource_version: str = "") -> dict[str, Any]:
    """Manifest of the slice showing ``epoch``; a ``resource_version`` makes a later writer lose, not overwrite.

    Labelled as the slices of headless Services are: kube-proxy asks for none of them, so it costs nodes nothing.
    """
    place = Place(
        service=dns_fence_name(epoch.install),
        name=headless_slice_name(epoch.install, family),
        family=family,
        port_name=DNS_FENCE_PORT,
        labels={"service.kubernetes.io/headless": ""},
    )
    endpoint = epoch.endpoint4() if family == "IPv4" else epoch.endpoint6()
    return epoch_slice(epoch, place, endpoint, resource_version)
