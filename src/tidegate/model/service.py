"""A Service: whom it selects, under which addresses, with which policies."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.model.decode import WireMeta, decode_wire, describe
from tidegate.model.names import DRAINING_SERVICE, HELD, HELD_CUT
from tidegate.model.selector import Selector, of_labels

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
TOPOLOGY_ANNOTATION = "service.kubernetes.io/topology-mode"


class _Port(msgspec.Struct, rename="camel"):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int = 0


class _Spec(msgspec.Struct, rename="camel"):
    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    ports: list[_Port] | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    publish_not_ready_addresses: bool = False
    session_affinity: str = "None"
    health_check_node_port: int = 0
    traffic_distribution: str | None = None


class _Service(msgspec.Struct):
    metadata: WireMeta
    spec: _Spec = msgspec.field(default_factory=_Spec)


class ServicePort(msgspec.Struct, frozen=True):
    """One port of a Service. ``node_port`` is 0 without one."""

    name: str
    port: int
    protocol: str
    target_port: int | str
    node_port: int


class Service(msgspec.Struct, frozen=True):
    """A Service as the API has it. ``selector`` is None when it has none: its slices are somebody else's.

    ``keeps_to`` is what its traffic keeps to while there are endpoints: ``zone``, ``node``, or empty for neither.
    """

    name: str
    namespace: str
    uid: str
    resource_version: str
    labels: dict[str, str]
    annotations: dict[str, str]
    type: str
    selector: Selector | None
    cluster_ips: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    is_local_internally: bool
    is_local_externally: bool
    publish_not_ready_addresses: bool
    session_affinity: str
    health_check_node_port: int
    keeps_to: str = ""

    @property
    def is_headless(self) -> bool:
        return "None" in self.cluster_ips

    @property
    def is_proxied(self) -> bool:
        """Whether kube-proxy routes it (cmd/kube-proxy/app/server.go leaves headless and foreign-proxied ones out)."""
        return self.type != "ExternalName" and not self.is_headless and PROXY_NAME_LABEL not in self.labels

    @property
    def is_draining(self) -> bool:
        """Whether it is the one that keeps pods scrapeable that were cut, and so is no route: nothing proxies it, it
        has no port, and it selects what is out of traffic. Another of its name is a Service like any."""
        is_ours = self.name == DRAINING_SERVICE and self.selector == of_labels({HELD: HELD_CUT})
        return is_ours and self.type == "ClusterIP" and self.is_headless and not self.ports

    def selects(self, namespace: str, labels: dict[str, str]) -> bool:
        """Whether a pod with ``labels`` in ``namespace`` belongs to it."""
        return namespace == self.namespace and self.selector is not None and self.selector.matches(labels)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def decode(obj: Any) -> Service:
    """A Service from decoded JSON. Raises ``Malformed``, which names the JSON path."""
    wire = decode_wire(obj, _Service, describe("Service", obj))
    meta, spec = wire.metadata, wire.spec
    addresses = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    return Service(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        resource_version=meta.resource_version,
        labels=meta.labels or {},
        annotations=meta.annotations or {},
        type=spec.type,
        selector=of_labels(spec.selector) if spec.selector and spec.type != "ExternalName" else None,
        cluster_ips=tuple(addresses),
        ports=tuple(
            ServicePort(port.name, port.port, port.protocol, port.target_port or port.port, port.node_port)
            for port in spec.ports or ()
        ),
        is_local_internally=spec.internal_traffic_policy == "Local",
        is_local_externally=spec.external_traffic_policy == "Local",
        publish_not_ready_addresses=spec.publish_not_ready_addresses,
        session_affinity=spec.session_affinity,
        health_check_node_port=spec.health_check_node_port,
        keeps_to=_keeps_to(spec.traffic_distribution, meta.annotations or {}),
    )


def _keeps_to(distribution: str | None, annotations: dict[str, str]) -> str:
    """KEP-4444 and its forerunner (topology-mode): both end as hints in the slices."""
    if distribution == "PreferSameNode":
        return "node"
    if distribution in ("PreferClose", "PreferSameZone") or annotations.get(TOPOLOGY_ANNOTATION, "").lower() == "auto":
        return "zone"
    return ""
