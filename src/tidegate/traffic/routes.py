"""Who gets new traffic of a Service, under Kubernetes' rules, each endpoint with its reason.

The rules are kube-proxy's CategorizeEndpoints (k8s:pkg/proxy/topology.go; KEP-1669, GA 1.28): ready endpoints; when
there is none, those that are serving although terminating; with a Local policy each node looks at its own only.
Topology hints are left out: they choose among these endpoints and never add one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice, SliceEndpoint
from tidegate.model.service import Service


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint of a Service: whether it gets new traffic, and why."""

    endpoint: Endpoint
    entry: SliceEndpoint
    is_routed: bool
    why: str

    def __str__(self) -> str:
        return f"{self.endpoint} {self.entry.pod or '-'}: {'routed' if self.is_routed else 'not routed'}, {self.why}"


@dataclass(frozen=True, slots=True)
class Routes:
    """The endpoints of one Service. ``reasons`` are what is true of the Service as a whole."""

    service: Service
    candidates: tuple[Candidate, ...]
    reasons: tuple[str, ...] = ()

    @property
    def routed(self) -> tuple[Candidate, ...]:
        return tuple(candidate for candidate in self.candidates if candidate.is_routed)


def slices_of(service: Service, slices: Iterable[EndpointSlice]) -> tuple[EndpointSlice, ...]:
    """The slices that belong to ``service``."""
    key = (service.namespace, service.name)
    return tuple(slice_ for slice_ in slices if (slice_.namespace, slice_.service) == key)


def routes(service: Service, slices: Iterable[EndpointSlice], node: str = "", external: bool = False) -> Routes:
    """Who gets new traffic of ``service``: as seen on ``node``, or (empty) on any node.

    ``external`` asks about NodePort and load-balancer traffic, whose policy is the externalTrafficPolicy.
    """
    if service.type == "ExternalName":
        return Routes(service, (), ("ExternalName: a name in DNS, no endpoints",))
    entries = _entries(slices_of(service, slices))
    is_local = service.is_local_externally if external else service.is_local_internally
    reasons = _reasons(service, is_local)
    if not is_local:
        return Routes(service, _categorize(entries, "the Service"), reasons)
    nodes = (node,) if node else tuple(sorted({entry.node for _, entry in entries}))
    candidates: list[Candidate] = []
    for name in nodes:
        candidates += _categorize([(at, entry) for at, entry in entries if entry.node == name], f"node {name}")
    return Routes(service, tuple(candidates), reasons)


def _entries(slices: Iterable[EndpointSlice]) -> list[tuple[Endpoint, SliceEndpoint]]:
    """Endpoints by address and port. Listed twice (an address used again): the one not terminating holds."""
    found: dict[Endpoint, SliceEndpoint] = {}
    for slice_ in slices:
        for entry in slice_.endpoints:
            for at in slice_.endpoints_of(entry):
                if at not in found or found[at].is_terminating:
                    found[at] = entry
    return sorted(found.items(), key=lambda item: item[0])


def _categorize(entries: list[tuple[Endpoint, SliceEndpoint]], scope: str) -> tuple[Candidate, ...]:
    any_ready = any(entry.is_ready for _, entry in entries)
    return tuple(Candidate(at, entry, *_why(entry, any_ready, scope)) for at, entry in entries)


def _why(entry: SliceEndpoint, any_ready: bool, scope: str) -> tuple[bool, str]:
    if entry.is_ready:
        return True, "ready although terminating" if entry.is_terminating else "ready"
    if not entry.is_terminating:
        return False, "not ready"
    if not entry.is_serving:
        return False, "terminating and no longer serving"
    if any_ready:
        return False, f"terminating, and {scope} has ready endpoints"
    return True, f"terminating but serving, and {scope} has no ready endpoint left"


def _reasons(service: Service, is_local: bool) -> tuple[str, ...]:
    reasons = []
    if service.is_headless:
        reasons.append("headless: clients dial what DNS tells them, no data plane chooses")
    elif not service.is_proxied:
        reasons.append("left to another proxy by service.kubernetes.io/service-proxy-name")
    if service.selector is None:
        reasons.append("no selector: its EndpointSlices are written by somebody else")
    if service.publish_not_ready_addresses:
        reasons.append("publishNotReadyAddresses: every pod counts as ready until it is gone, terminating or not")
    if is_local:
        reasons.append("traffic policy Local: each node uses its own endpoints only")
    return tuple(reasons)
