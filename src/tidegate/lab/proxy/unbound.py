"""Services that take no connection because a node's kernel cannot listen on their address: told once each.

A real node needs no listener, so no component of Kubernetes speaks of this; the Service is the object its user
looks at (`kubectl describe service`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tidegate.lab.events import Event, Recorder
from tidegate.lab.proxy.rules import cluster_ip

JsonObject = dict[str, Any]

_PRIVILEGED = (
    "; a lab that is not root's cannot use ports below net.ipv4.ip_unprivileged_port_start (1024): "
    "give the Service a higher port"
)


class Unbound:
    """What every proxy of a lab tells when a commit left addresses without a listener."""

    def __init__(self, recorder: Recorder, log: Callable[[str], None]) -> None:
        self._recorder = recorder
        self._log = log
        self._told: dict[tuple[str, str], None] = {}

    def tell(self, services: Iterable[JsonObject], problems: Iterable[str]) -> None:
        """``problems`` are the kernel's ("ip:port: why"); a Warning Event and a line of the lab's log for each."""
        by_address = _by_address(services)
        for problem in problems:
            address, _, why = problem.partition(": ")
            owner = by_address.get(address) or by_address.get(f":{address.rpartition(':')[2]}")
            if owner is not None:
                self._once(owner, f"no connection is taken on {address}: {why}")

    def _once(self, service: JsonObject, message: str) -> None:
        metadata = service["metadata"]
        if _is_never_dialled(service):
            return
        key = (str(metadata.get("uid")), message)
        if key in self._told:
            return
        self._told[key] = None
        if message.endswith("permission denied"):
            message += _PRIVILEGED
        self._say(service, "CannotListen", message)

    def no_healthcheck(self, service: JsonObject, message: str) -> None:
        """A healthCheckNodePort that is somebody else's on one node (service_health.go)."""
        self._say(service, "FailedToStartServiceHealthcheck", message)

    def _say(self, service: JsonObject, reason: str, message: str) -> None:
        metadata = service["metadata"]
        about = {"apiVersion": "v1", "kind": "Service", **service}
        self._recorder.event(about, Event("Warning", reason, message))
        self._log(f"Service {metadata['namespace']}/{metadata['name']}: {message}")


def _is_never_dialled(service: JsonObject) -> bool:
    """default/kubernetes (443), and one without pods on port 1, which is there to be seen and not to be asked."""
    metadata, spec = service["metadata"], service["spec"]
    if spec.get("selector"):
        return False
    is_kubernetes = (metadata.get("namespace"), metadata["name"]) == ("default", "kubernetes")
    return is_kubernetes or all(port["port"] == 1 for port in spec.get("ports") or [])


def _by_address(services: Iterable[JsonObject]) -> dict[str, JsonObject]:
    """Which Service is meant by ``ip:port`` (its ClusterIP) or ``:port`` (its NodePort, on any node)."""
    found: dict[str, JsonObject] = {}
    for service in services:
        spec = service["spec"]
        for port in spec.get("ports") or []:
            found[f"{cluster_ip(service)}:{port['port']}"] = service
            if port.get("nodePort"):
                found[f":{port['nodePort']}"] = service
    return found
