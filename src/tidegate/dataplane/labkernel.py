"""The lab kernel's dump (``tidegate-lab/1``) -> ``Facts``.

Read as strictly as a foreign kernel's: an unknown field, version, protocol or connection state is unreadable.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.dataplane.facts import Facts, Route, Tracked, Unreadable
from tidegate.model.endpoint import Endpoint, canonical
from tidegate.model.epoch import Epoch
from tidegate.model.names import SYSTEM_NAMESPACE, fence_install

FORMAT = "tidegate-lab/1"
STATES = frozenset({"SYN_SENT", "ESTABLISHED", "CLOSING"})


class _Service(msgspec.Struct, forbid_unknown_fields=True):
    namespace: str
    name: str
    port_name: str
    protocol: str
    cluster_ip: str
    port: int
    endpoints: list[str]
    node_port: int | None = 0
    affinity_seconds: float = 0
    is_external_local: bool = False
    """A NodePort whose node's own clients go by the ClusterIP's entry, which is a route of its own here."""


class _Redirect(msgspec.Struct, forbid_unknown_fields=True):
    port: int
    target: str


class _Connection(msgspec.Struct, forbid_unknown_fields=True):
    protocol: str
    state: str
    source: str
    destination: str
    endpoint: str


class _Dump(msgspec.Struct, forbid_unknown_fields=True):
    kernel: str
    node: str
    generation: int
    at: float
    services: list[_Service]
    redirects: list[_Redirect]
    conntrack: list[_Connection]


def parse(dump: Any, source: str) -> Facts:
    """Facts from a dump (decoded JSON, or its text) read from ``source``, a node's name. Never raises."""
    try:
        raw = msgspec.json.decode(dump, type=_Dump) if isinstance(dump, str | bytes) else msgspec.convert(dump, _Dump)
        return _understand(raw, source)
    except (msgspec.DecodeError, ValueError) as error:
        return Facts(source, FORMAT, unreadable=(Unreadable(str(error), f"dump of {source}"),))


def _understand(raw: _Dump, source: str) -> Facts:
    if raw.kernel != FORMAT:
        raise ValueError(f"format {raw.kernel!r}, only {FORMAT!r} is understood")
    if raw.node != source:
        raise ValueError(f"this is the dump of {raw.node!r}")
    routes: list[Route] = []
    fence: list[Epoch] = []
    for service in raw.services:
        found = _routes(service)
        routes += found
        install = fence_install(service.name) if service.namespace == SYSTEM_NAMESPACE else None
        if install is not None:
            fence += _epoch(install, found[0])
    for redirect in raw.redirects:
        target = Endpoint.parse(redirect.target)
        routes.append(Route("redirect", "", redirect.port, "TCP", (target,)))
    tracked = tuple(_tracked(entry) for entry in raw.conntrack)
    return Facts(source, f"{FORMAT} generation {raw.generation}", raw.at, tuple(routes), tuple(fence), tracked)


def _routes(service: _Service) -> list[Route]:
    name = f"{service.namespace}/{service.name}" + (f":{service.port_name}" if service.port_name else "")
    if service.protocol != "TCP":
        raise ValueError(f"{name} has protocol {service.protocol!r}")
    endpoints = tuple(Endpoint.parse(text, service.protocol) for text in service.endpoints)
    routes: list[Route] = []
    if service.cluster_ip or not service.node_port:  # externalTrafficPolicy Local: the NodePort is an entry of its own
        address = canonical(service.cluster_ip)
        routes.append(Route("cluster-ip", address, service.port, service.protocol, endpoints, name))
    if service.node_port:
        routes.append(Route("node-port", "", service.node_port, service.protocol, endpoints, name))
    return routes


def _epoch(install: str, route: Route) -> list[Epoch]:
    """The epoch a fence's route shows. No endpoint yet: no epoch. More than one: nobody can say which it is."""
    if len(route.endpoints) > 1:
        raise ValueError(f"the fence {route.service} has {len(route.endpoints)} endpoints, it must have one")
    return [Epoch.of_endpoint(install, endpoint) for endpoint in route.endpoints]


def _tracked(entry: _Connection) -> Tracked:
    if entry.state not in STATES or entry.protocol != "tcp":
        raise ValueError(f"conntrack entry in state {entry.state!r} of protocol {entry.protocol!r}")
    ends = (Endpoint.parse(text) for text in (entry.source, entry.destination, entry.endpoint))
    return Tracked("TCP", entry.state, *ends)
