"""Facts: what one data plane was seen to do, in one shape for every kind of data plane.

A parser turns a raw dump into ``Facts`` and never raises: what it does not understand stands in ``unreadable``,
and an unreadable fact blocks every acknowledgement drawn from it. Garbage never reads as clean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that was not understood: why, and where in the dump."""

    reason: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason


@dataclass(frozen=True, slots=True)
class Route:
    """New connections to ``address:port`` go to one of ``endpoints``.

    ``via`` is ``cluster-ip``, ``external-ip``, ``node-port`` (address empty: any address of the node), ``redirect``,
    ``virtual-server`` (ipvs) or ``dnat`` (whose frontend is nobody's we know); ``service`` is ``namespace/name:port``
    where the dump tells, else empty. ``kept_seconds``: how long an answer that led there may still be used (a TTL).
    """

    via: str
    address: str
    port: int
    protocol: str
    endpoints: tuple[Endpoint, ...]
    service: str = ""
    kept_seconds: float = 0.0
    withheld: str = ""
    """Why nothing may be sent there yet although it is listed (``initial``, ``DOWN``): a route for whoever wants it
    gone, none for whoever wants it there. Empty where it is sent to."""

    def __str__(self) -> str:
        frontend = f"{self.via} {self.address or '*'}:{self.port}/{self.protocol}"
        return f"{self.service} ({frontend})" if self.service else frontend


@dataclass(frozen=True, slots=True)
class Tracked:
    """One connection tracked by the data plane. ``state`` is SYN_SENT, SYN_RECV, ESTABLISHED, CLOSING, (UDP) NONE, or
    CLOSE where one was reset and the next SYN from its client's port will go the same way."""

    protocol: str
    state: str
    source: Endpoint
    destination: Endpoint
    endpoint: Endpoint

    @property
    def is_opening(self) -> bool:
        """Bound to its endpoint, but not yet in the pod's socket table: routed although the route may be gone."""
        return self.protocol == "UDP" or self.state in ("SYN_SENT", "SYN_RECV", "CLOSE")

    def __str__(self) -> str:
        return f"{self.state} {self.source} -> {self.destination} -> {self.endpoint}"


@dataclass(frozen=True)
class Facts:
    """One dump of one data plane, understood. ``at`` is the dump's own instant, in seconds since 1970.

    ``fence`` has an epoch for each fence Service and address family seen; empty when none was. ``linger_seconds`` is
    how long what this data plane told others before the dump may still be used by them (TTLs, a slow fleet).
    """

    source: str
    dump: str
    at: float = 0.0
    routes: tuple[Route, ...] = ()
    fence: tuple[Epoch, ...] = ()
    tracked: tuple[Tracked, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    linger_seconds: float = 0.0

    def about(self, services: tuple[str, ...]) -> Facts:
        """Only the routes of ``services`` (namespace/name), and those that name no Service; all for none."""
        if not services:
            return self
        routes = tuple(one for one in self.routes if not one.service or one.service.partition(":")[0] in services)
        return replace(self, routes=routes)

    def within(self, service: str) -> Facts:
        """Without the ways into ``service`` (namespace/name) from outside of the cluster: NodePorts, load balancers."""
        kept = tuple(
            one
            for one in self.routes
            if one.via not in ("node-port", "external-ip") or one.service.partition(":")[0] != service
        )
        return replace(self, routes=kept)

    @cached_property
    def _by_address(self) -> dict[str, list[Route]]:
        """Routes by the address they lead to: one dump is asked about every pod that is leaving."""
        found: dict[str, list[Route]] = {}
        for route in self.routes:
            for address in dict.fromkeys(endpoint.address for endpoint in route.endpoints):
                found.setdefault(address, []).append(route)
        return found

    def routes_to(self, endpoint: Endpoint) -> tuple[Route, ...]:
        """The routes by which a new connection can reach ``endpoint``."""
        near = self._by_address.get(endpoint.address, ())
        return tuple(route for route in near if any(endpoint.covers(to) for to in route.endpoints))

    def opening_to(self, endpoint: Endpoint) -> tuple[Tracked, ...]:
        """Connections on their way to ``endpoint`` that no route shows any more."""
        return tuple(entry for entry in self.tracked if entry.is_opening and endpoint.covers(entry.endpoint))
