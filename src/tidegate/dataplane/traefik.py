"""Traefik's own account of what it routes to: ``GET /api/{http,tcp,udp}/services`` of one replica (seen: 3.7).

Traps this file knows of:

- A terminating endpoint stays listed with ``"fenced": true``: only requests that stick to it still go there. Where the
  service is sticky that is a route, where it is not, it is none.
- Each provider has watches of its own, so a fence among the services of one says nothing about those of another: the
  fence counts only where every provider that lists servers shows it.
- Servers given by host name (ExternalName) lead wherever DNS says: unreadable, unless told to ignore them.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.model.endpoint import Endpoint, canonical
from tidegate.model.epoch import Epoch
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name

PROTOCOLS = ("http", "tcp", "udp")
_COMPOSED = frozenset({"weighted", "mirroring", "failover", "highestrandomweight"})
"""Services that only point to other services, which are listed themselves."""
_UP = "UP"
"""``serverStatus`` of one that is sent to; a service that no router uses tells none."""
_PORTS = {"http": "80", "https": "443", "h2c": "80"}
_SERVER = re.compile(
    r"(?:(?P<scheme>[a-z0-9]+)://)?(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^/:@?#\[\]]+))"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/.*)?"
)
"""A server's URL, or its address: no more of the grammar of URLs than providers write."""


class _Server(msgspec.Struct):
    url: str = ""
    address: str = ""
    fenced: bool = False


class _Balancer(msgspec.Struct):
    servers: list[_Server] | None = None
    sticky: dict[str, Any] | None = None


class _Service(msgspec.Struct, rename="camel"):
    name: str
    provider: str
    type: str = ""
    load_balancer: _Balancer | None = None
    server_status: dict[str, str] | None = None


def parse(bodies: dict[str, str], install: str = "main", *, source: str = "", ignore_names: bool = False) -> Facts:
    """Facts of one replica from the answers about ``http``, ``tcp`` and ``udp``; each must be there."""
    found = _Found(install, ignore_names)
    for protocol in PROTOCOLS:
        found.add(protocol, bodies.get(protocol))
    return Facts(source, "traefik services", routes=tuple(found.routes), fence=found.fence(), unreadable=found.problems)


class _Found:
    """Collects what the three answers say."""

    def __init__(self, install: str, ignore_names: bool) -> None:
        self.routes: list[Route] = []
        self._install = install
        self._ignore_names = ignore_names
        self._problems: list[Unreadable] = []
        self._providers: dict[str, None] = {}
        self._epochs: dict[str, list[Epoch]] = {}
        prefix = f"{SYSTEM_NAMESPACE}-{fence_name(install)}"
        self._fence_names = frozenset({f"{prefix}-fence", f"{prefix}-1"})

    @property
    def problems(self) -> tuple[Unreadable, ...]:
        return tuple(self._problems)

    def fence(self) -> tuple[Epoch, ...]:
        """The epochs of every provider; none where one of them shows no fence."""
        if not all(provider in self._epochs for provider in self._providers):
            return ()
        return tuple(epoch for epochs in self._epochs.values() for epoch in epochs)

    def add(self, protocol: str, body: str | None) -> None:
        where = f"/api/{protocol}/services"
        if body is None:
            self._problems.append(Unreadable("it was not read", where))
            return
        try:
            services = msgspec.json.decode(body.encode(), type=list[_Service])
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            self._problems.append(Unreadable(f"not a list of services: {error}", where))
            return
        if protocol == "http" and not services:
            # api@internal is always there: without it there is no configuration yet.
            self._problems.append(Unreadable("not even Traefik's own services are listed", where))
        for service in services:
            self._add_service(protocol, service, f"{where} {service.name}")

    def _add_service(self, protocol: str, service: _Service, where: str) -> None:
        if service.provider == "internal":
            return
        if service.load_balancer is None:
            if service.type not in _COMPOSED:
                self._problems.append(Unreadable(f"a service of type {service.type or 'none'!r}", where))
            return
        self._providers.setdefault(service.provider)
        servers = service.load_balancer.servers or []
        if service.name.partition("@")[0] in self._fence_names:
            self._add_fence(service.provider, servers, where)
            return
        is_sticky = service.load_balancer.sticky is not None
        by_status: dict[str, list[Endpoint]] = {}
        for server in servers:
            if (is_sticky or not server.fenced) and (endpoint := self._endpoint(server, protocol, where)) is not None:
                told = (service.server_status or {}).get(server.url or server.address, _UP)
                withheld = "fenced" if server.fenced else "" if told == _UP else told
                by_status.setdefault(withheld, []).append(endpoint)
        transport = "UDP" if protocol == "udp" else "TCP"
        for withheld, to in by_status.items():
            self.routes.append(Route(f"traefik {service.name}", "", 0, transport, tuple(to), withheld=withheld))

    def _endpoint(self, server: _Server, protocol: str, where: str) -> Endpoint | None:
        text = server.url or server.address
        parts = _SERVER.fullmatch(text)
        port = int((parts["port"] or _PORTS.get(parts["scheme"] or "", "0")) if parts is not None else "0")
        if parts is None or not 0 < port < 65536:
            self._problems.append(Unreadable(f"server {text!r} is no address and port", where))
            return None
        host = parts["six"] or parts["host"]
        try:
            return Endpoint(canonical(host), port, "UDP" if protocol == "udp" else "TCP")
        except ValueError:
            if not self._ignore_names:
                self._problems.append(Unreadable(f"server {text!r} is given by name, not by address", where))
            return None

    def _add_fence(self, provider: str, servers: list[_Server], where: str) -> None:
        if not servers:
            return
        shown = self._epochs.setdefault(provider, [])
        for server in servers:
            endpoint = self._endpoint(server, "tcp", where)
            try:
                if endpoint is not None:
                    shown.append(Epoch.of_endpoint(self._install, endpoint))
            except ValueError as error:
                self._problems.append(Unreadable(str(error), where))
