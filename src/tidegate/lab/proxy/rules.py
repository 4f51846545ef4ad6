"""(Services, EndpointSlices, node) -> the entries the node's kernel shall have. Pure.

After Kubernetes v1.36 ``pkg/proxy``: which Services count (util/utils.go ShouldSkipService), which slices and
ports (endpointslicecache.go), which endpoints (topology.go CategorizeEndpoints). A Service without a selector
whose slices somebody else writes (the fence) is proxied like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.lab.kernel.tables import UNSET, Routing, ServiceEntry, Unset
from tidegate.lab.proxy.health import Check

JsonObject = dict[str, Any]

SERVICE_NAME = "kubernetes.io/service-name"
WATCHED = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
"""Label selector of both informers: the rest is never delivered (cmd/kube-proxy/app/server.go)."""

ZONE = "topology.kubernetes.io/zone"

_AFFINITY_SECONDS = 10_800
"""Default of sessionAffinityConfig.clientIP.timeoutSeconds: 3 hours."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy stands: its node's name and, where known, zone."""

    node: str
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of one service port as a proxy knows it. Unset conditions read as the API says."""

    address: str
    is_ready: bool
    is_serving: bool
    is_terminating: bool
    is_local: bool
    node_hints: frozenset[str] = frozenset()
    zone_hints: frozenset[str] = frozenset()

    @property
    def is_lame_duck(self) -> bool:
        """Terminating and still serving: used only when nothing is ready."""
        return self.is_serving and self.is_terminating


@dataclass(frozen=True, slots=True)
class Categories:
    """Endpoints by traffic policy, as CategorizeEndpoints returns them."""

    cluster: tuple[str, ...] = ()
    local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The traffic policies of a service port."""

    is_internal_local: bool = False
    is_external_local: bool = False
    is_externally_accessible: bool = False

    @property
    def uses_cluster(self) -> bool:
        """Also when both are Local: clients on the node itself are sent past them."""
        return not self.is_internal_local or self.is_externally_accessible

    @property
    def uses_local(self) -> bool:
        return self.is_internal_local or (self.is_externally_accessible and self.is_external_local)


def entries(services: Iterable[JsonObject], slices: Iterable[JsonObject], place: Place) -> tuple[ServiceEntry, ...]:
    """Everything the node shall forward, in one fixed order. TCP: what a relay can carry."""
    found: list[ServiceEntry] = []
    for service, port, known in _service_ports(services, slices, place):
        if _protocol(port) == "TCP":
            found += _port_entries(service, port, known, place)
    return tuple(found)


def routed(services: Iterable[JsonObject], slices: Iterable[JsonObject], place: Place) -> tuple[ServiceEntry, ...]:
    """As ``entries``, for a real kernel: UDP too, one entry for each port of a Service, all with their ``routing``."""
    return tuple(
        _routed_entry(service, port, known, place)
        for service, port, known in _service_ports(services, slices, place)
        if _protocol(port) in ("TCP", "UDP")
    )


def _service_ports(
    services: Iterable[JsonObject], slices: Iterable[JsonObject], place: Place
) -> Iterator[tuple[JsonObject, JsonObject, tuple[Endpoint, ...]]]:
    """Every port of every proxied Service, and the endpoints known for it."""
    by_service = _by_service(slices)
    for service in sorted(services, key=_identity):
        if is_proxied(service) and cluster_ip(service):
            mine = sorted(by_service.get(_identity(service), ()), key=_identity)
            for port in service["spec"].get("ports") or ():
                yield service, port, endpoints(mine, port.get("name") or "", place, _protocol(port))


def _protocol(port: JsonObject) -> str:
    return port.get("protocol") or "TCP"


def health_checks(
    services: Iterable[JsonObject], slices: Iterable[JsonObject], place: Place
) -> dict[tuple[str, str], Check]:
    """What load balancers may ask this node's proxy: Services with a healthCheckNodePort, by (namespace, name)."""
    by_service = _by_service(slices)
    found: dict[tuple[str, str], Check] = {}
    for service in sorted(services, key=_identity):
        port = service["spec"].get("healthCheckNodePort")
        if port and is_proxied(service) and cluster_ip(service):
            ready = {
                raw["addresses"][0]
                for one in by_service.get(_identity(service), ())
                for raw in one.get("endpoints") or ()
                if raw.get("addresses") and _endpoint(raw, 1, place).is_local and _endpoint(raw, 1, place).is_ready
            }
            found[_identity(service)] = Check(int(port), len(ready))
    return found


def _by_service(slices: Iterable[JsonObject]) -> dict[tuple[str, str], list[JsonObject]]:
    """The IPv4 slices of each Service: no other family has a data path in a lab."""
    found: dict[tuple[str, str], list[JsonObject]] = {}
    for one in slices:
        owner = service_of(one)
        if owner is not None and one.get("addressType", "IPv4") == "IPv4":
            found.setdefault(owner, []).append(one)
    return found


def is_proxied(service: JsonObject) -> bool:
    """Whether kube-proxy proxies a Service at all: not headless, not ExternalName, not another proxy's."""
    spec = service.get("spec") or {}
    labels = service["metadata"].get("labels") or {}
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") in (None, "", "None"):
        return False
    return not (labels.keys() & {"service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"})


def cluster_ip(service: JsonObject) -> str:
    """The Service's IPv4 address, "" without one: a lab has the IPv4 proxy of a dual-stack node alone."""
    spec = service["spec"]
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return next((str(address) for address in addresses if ":" not in address), "")


def service_of(endpoint_slice: JsonObject) -> tuple[str, str] | None:
    """(namespace, name) of the Service a slice belongs to; ``None`` when it is nobody's or not watched."""
    metadata = endpoint_slice["metadata"]
    labels = metadata.get("labels") or {}
    name = labels.get(SERVICE_NAME)
    if not name or labels.keys() & {"service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"}:
        return None
    return metadata.get("namespace", ""), name


def endpoints(
    slices: Iterable[JsonObject], port_name: str, place: Place, protocol: str = "TCP"
) -> tuple[Endpoint, ...]:
    """The endpoints of one port over a Service's slices, by address; one seen twice counts once, local first."""
    found: dict[str, Endpoint] = {}
    for one in slices:
        ports = [
            port["port"]
            for port in one.get("ports") or ()
            if (port.get("name") or "") == port_name and port.get("port") and _protocol(port) == protocol
        ]
        for port in ports:
            for raw in one.get("endpoints") or ():
                if not raw.get("addresses"):
                    continue
                endpoint = _endpoint(raw, port, place)
                if endpoint.address not in found or endpoint.is_local:
                    found[endpoint.address] = endpoint
    return tuple(found[address] for address in sorted(found))


def _endpoint(raw: JsonObject, port: int, place: Place) -> Endpoint:
    conditions = raw.get("conditions") or {}
    hints = raw.get("hints") or {}
    return Endpoint(
        address=f"{raw['addresses'][0]}:{port}",
        is_ready=conditions.get("ready") is not False,
        is_serving=conditions.get("serving") is not False,
        is_terminating=conditions.get("terminating") is True,
        is_local=raw.get("nodeName") == place.node,
        node_hints=frozenset(hint["name"] for hint in hints.get("forNodes") or ()),
        zone_hints=frozenset(hint["name"] for hint in hints.get("forZones") or ()),
    )


def categorize(known: tuple[Endpoint, ...], policy: Policy, place: Place) -> Categories:
    """Which endpoints each traffic policy may use (pkg/proxy/topology.go CategorizeEndpoints).

    Ready ones; when there are none (anywhere for Cluster, on this node for Local), serving and terminating ones.
    """
    cluster: tuple[str, ...] = ()
    if policy.uses_cluster:
        near = _near(known, place)
        cluster = tuple(one.address for one in near if one.is_ready)
        if not cluster:
            cluster = tuple(one.address for one in known if one.is_lame_duck)
    local: tuple[str, ...] = ()
    if policy.uses_local:
        here = tuple(one for one in known if one.is_local)
        local = tuple(one.address for one in here if one.is_ready)
        if not local:
            local = tuple(one.address for one in here if one.is_lame_duck)
    return Categories(cluster, local)


def _near(known: tuple[Endpoint, ...], place: Place) -> tuple[Endpoint, ...]:
    """Topology hints, heeded only if every ready endpoint has one and one of them is for this place."""
    ready = tuple(one for one in known if one.is_ready)
    for_node = tuple(one for one in ready if place.node in one.node_hints)
    if for_node and all(one.node_hints for one in ready):
        return for_node
    for_zone = tuple(one for one in ready if place.zone in one.zone_hints)
    if for_zone and all(one.zone_hints for one in ready):
        return for_zone
    return ready


def _port_entries(
    service: JsonObject, port: JsonObject, known: tuple[Endpoint, ...], place: Place
) -> list[ServiceEntry]:
    """One entry, or two where NodePort and ClusterIP lead to different endpoints."""
    spec = service["spec"]
    node_port = int(port.get("nodePort") or 0)
    policy = Policy(
        is_internal_local=spec.get("internalTrafficPolicy") == "Local",
        is_external_local=spec.get("externalTrafficPolicy") == "Local",
        is_externally_accessible=bool(node_port),
    )
    categories = categorize(known, policy, place)
    internal = categories.local if policy.is_internal_local else categories.cluster
    external = categories.local if policy.is_external_local else categories.cluster
    is_one = not node_port or internal == external

    def entry(address: str, outer_port: int, targets: tuple[str, ...], is_local: bool | Unset = UNSET) -> ServiceEntry:
        namespace, name = _identity(service)
        return ServiceEntry(
            namespace=namespace,
            name=name,
            port_name=port.get("name") or "",
            protocol="TCP",
            cluster_ip=address,
            port=int(port["port"]),
            node_port=outer_port,
            endpoints=targets,
            affinity_seconds=_affinity_seconds(spec),
            is_external_local=is_local,
        )

    if is_one:
        return [entry(cluster_ip(service), node_port, internal)]
    is_local = True if policy.is_external_local else UNSET
    return [entry(cluster_ip(service), 0, internal), entry("", node_port, external, is_local)]


def _routed_entry(service: JsonObject, port: JsonObject, known: tuple[Endpoint, ...], place: Place) -> ServiceEntry:
    """After pkg/proxy/serviceport.go newBaseServiceInfo and topology.go CategorizeEndpoints."""
    spec = service["spec"]
    node_port = int(port.get("nodePort") or 0)
    outside = _four(spec.get("externalIPs"))
    balanced = _load_balancer_ips(service)
    policy = Policy(
        is_internal_local=spec.get("internalTrafficPolicy") == "Local",
        is_external_local=spec.get("externalTrafficPolicy") == "Local",
        is_externally_accessible=bool(node_port or outside or balanced),
    )
    usable = categorize(known, policy, place)
    namespace, name = _identity(service)
    return ServiceEntry(
        namespace=namespace,
        name=name,
        port_name=port.get("name") or "",
        protocol=_protocol(port),
        cluster_ip=cluster_ip(service),
        port=int(port["port"]),
        node_port=node_port,
        endpoints=usable.local if policy.is_internal_local else usable.cluster,
        affinity_seconds=_affinity_seconds(spec),
        routing=Routing(
            cluster=usable.cluster,
            local=usable.local,
            here=tuple(one.address for one in known if one.is_local and one.address in usable.cluster + usable.local),
            serving=tuple(one.address for one in known if one.is_serving),
            is_reachable=bool(usable.cluster) or any(one.is_ready or one.is_lame_duck for one in known),
            is_internal_local=policy.is_internal_local,
            is_external_local=policy.is_external_local and policy.is_externally_accessible,
            external_ips=outside,
            load_balancer_ips=balanced,
            source_ranges=_source_ranges(spec),
            health_check_port=int(spec.get("healthCheckNodePort") or 0),
        ),
    )


def _load_balancer_ips(service: JsonObject) -> tuple[str, ...]:
    """Those that packets keep on their way to the node (KEP-1860: ``ipMode`` Proxy does not)."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return _four(one.get("ip") or ":" for one in ingress if one.get("ipMode", "VIP") == "VIP")


def _source_ranges(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """One that lets everybody in is as none at all."""
    ranges = _four(str(one).strip() for one in spec.get("loadBalancerSourceRanges") or ())
    return () if any(one.endswith("/0") for one in ranges) else ranges


def _four(addresses: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(address for address in addresses or () if ":" not in address)


def _affinity_seconds(spec: Mapping[str, Any]) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(config.get("timeoutSeconds") or _AFFINITY_SECONDS)


def _identity(obj: JsonObject) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def proxied_part(obj: JsonObject | None) -> object:
    """What of a Service or EndpointSlice a sync depends on; a change of anything else makes no sync.

    endpointslicecache.go and servicechangetracker.go compare the same way: an annotation alone, such as
    last-change-trigger-time, or a status starts nothing; but a load balancer's address is a destination.
    """
    if obj is None:
        return None
    if "spec" in obj:
        return obj["spec"], is_proxied(obj), _load_balancer_ips(obj)
    return obj.get("addressType"), obj.get("endpoints"), obj.get("ports"), service_of(obj)
