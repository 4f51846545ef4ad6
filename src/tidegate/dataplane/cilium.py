"""Cilium's own account of its services: ``cilium-dbg service list -o json``, a list of ``models.Service``.

Shapes and states from its source (cilium/cilium api/v1/models/service_spec.go, backend_address.go;
pkg/loadbalancer/frontend.go ``ToModel``; bpf_reconciler.go for who is selected):

- ``active`` is selected. ``terminating`` is selected where its frontend has no active backend. ``quarantined`` is not,
  until a health check brings it back: a route. ``maintenance`` was set by somebody: none.
- Since 1.18 it tells what the agent wants (its table of frontends), a moment before the BPF maps have it, and frontend
  after frontend: an epoch in one says nothing about another. So no fence is read here: weak evidence always.
- A service of type LocalRedirect sends to other pods than its own: its backends are the ones it lists.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical

COMMAND = ("cilium-dbg", "service", "list", "-o", "json")
_ACTIVE, _TERMINATING, _QUARANTINED, _MAINTENANCE = "active", "terminating", "quarantined", "maintenance"
_STATES = frozenset({"", _ACTIVE, _TERMINATING, _QUARANTINED, _MAINTENANCE})
_TRANSPORTS = {"tcp": ("TCP",), "udp": ("UDP",), "sctp": ("SCTP",), "any": ("TCP", "UDP"), "": ("TCP", "UDP")}


class _Address(msgspec.Struct):
    ip: str = ""
    port: int = 0
    protocol: str = ""
    state: str = ""


class _Flags(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    type: str = ""


class _Spec(msgspec.Struct, rename="kebab"):
    frontend_address: _Address
    backend_addresses: list[_Address] | None = None
    flags: _Flags | None = None


class _Status(msgspec.Struct):
    realized: _Spec | None = None


class _Service(msgspec.Struct):
    spec: _Spec
    status: _Status | None = None


def parse(dump: str, *, source: str = "") -> Facts:
    """Facts of one node's agent. A service whose realized state it does not tell is unreadable."""
    routes: list[Route] = []
    problems: list[Unreadable] = []
    where = " ".join(COMMAND)
    try:
        services = msgspec.json.decode(dump.encode(), type=list[_Service])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        return Facts(source, where, unreadable=(Unreadable(f"not a list of services: {error}", where),))
    if not services:
        problems.append(Unreadable("not even the API server's Service is listed", where))
    for service in services:
        try:
            routes += _routes(service)
        except ValueError as error:
            at = service.spec.frontend_address
            problems.append(Unreadable(str(error), f"{where} {at.ip}:{at.port}"))
    return Facts(source, where, routes=tuple(routes), unreadable=tuple(problems))


def _routes(service: _Service) -> Iterable[Route]:
    """Raises ``ValueError``."""
    realized = service.status.realized if service.status is not None else None
    if realized is None:
        raise ValueError("its realized state is not told")
    front, backends, flags = realized.frontend_address, realized.backend_addresses or [], realized.flags or _Flags()
    if unknown := [one.state for one in backends if one.state not in _STATES]:
        raise ValueError(f"a backend in state {unknown[0]!r}")
    is_last = not any(one.state in ("", _ACTIVE) for one in backends)
    selected = {"", _ACTIVE, _QUARANTINED} | ({_TERMINATING} if is_last else set())
    for transport in _transports(front):
        name = f"{flags.namespace}/{flags.name}" if flags.name else ""
        for withheld in ("", _TERMINATING, _QUARANTINED):
            states = {withheld} if withheld else {"", _ACTIVE}
            to = tuple(_endpoint(one, transport) for one in backends if one.state in selected & states)
            at = canonical(front.ip), front.port, transport
            if to:
                yield Route(f"cilium {flags.type or 'service'}", *at, to, name, withheld=withheld)


def _transports(front: _Address) -> tuple[str, ...]:
    found = _TRANSPORTS.get(front.protocol.lower())
    if found is None:
        raise ValueError(f"protocol {front.protocol!r}")
    return found


def _endpoint(backend: _Address, transport: str) -> Endpoint:
    """``ip`` may end in ``@`` and the number of another cluster."""
    if not 0 < backend.port < 65536:
        raise ValueError(f"backend {backend.ip!r} with port {backend.port}")
    return Endpoint(canonical(backend.ip.partition("@")[0]), backend.port, transport)
