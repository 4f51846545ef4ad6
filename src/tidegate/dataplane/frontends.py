"""Paths through rules -> routes with names, and the fence read out of them. Shared by every parser of rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.dataplane.rules import DADDR, DPORT, PROTO, SERVED, Region, Table, Target, address_text, the_point
from tidegate.dataplane.tracer import Path, TooMuch, Trail, paths
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.model.names import SYSTEM_NAMESPACE, fence_install

PORTS_SHOWN_MAX = 64
UNREADABLE_MAX = 100
"""A thousand paths with one problem are one problem."""
_FENCES = {4: (0xC6120000, 0xC613FFFF), 6: (0x20010002 << 96, (0x20010002 << 96) + (1 << 80) - 1)}
"""198.18.0.0/15 and 2001:2::/48: see ``model.epoch``."""
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}

# pkg/proxy/nftables/proxier.go, servicePortChainNameBase: eight characters of a hash, namespace/name/protocol/port.
_NFT_CHAIN = re.compile(
    r"(?:service|external|local|endpoint|firewall)-[A-Z2-7]{8}-([^/]+)/([^/]+)/[a-z]+/([^/]*?)(?:__.*)?"
)
# pkg/proxy/iptables/proxier.go, the comments of its rules; none of them in large-cluster mode.
_COMMENT = re.compile(r"([a-z0-9.-]+/[a-z0-9.-]+(?::[a-z0-9-]+)?)(?: (?:cluster|loadbalancer|external) IP| -> .*)?")
_NODE_PORTS = ("service-nodeports", "KUBE-NODEPORTS")
_EXTERNAL = ("external-", "KUBE-EXT-", "KUBE-XLB-", "KUBE-FW-")
_CLUSTER = ("service-", "KUBE-SVC-", "KUBE-SVL-")


@dataclass(frozen=True, slots=True)
class Asking:
    """What is wanted from a dump, and what the asker knows that no dump tells.

    ``endpoints``: only routes leading to these, with these of their endpoints (and the fence); None: all routes.
    ``fences``: ClusterIP -> install id, for dumps that carry no Service names. ``node_addresses``: where a
    ``redirect`` leads. ``elsewhere``: what the asker reads from another dump: tables as ``ip nat`` (iptables-nft's,
    which nft prints without their targets), or ``legacy``. ``services``: the dump shows only the chains of these
    Services (``namespace/name``); the asker vouches that no other can hold ``endpoints``.
    """

    endpoints: tuple[Endpoint, ...] | None = None
    fences: Mapping[str, str] = field(default_factory=dict)
    node_addresses: tuple[str, ...] = ()
    elsewhere: frozenset[str] = frozenset()
    services: frozenset[str] | None = None


EVERYTHING = Asking()


def service_of(name: str) -> str:
    """``namespace/name:port`` in the name of one of kube-proxy's nftables chains, else ""."""
    found = _NFT_CHAIN.fullmatch(name)
    return f"{found[1]}/{found[2]}" + (f":{found[3]}" if found[3] else "") if found else ""


def facts_of(
    source: str, dump: str, tables: Iterable[Table], asking: Asking, known: tuple[Unreadable, ...] = ()
) -> Facts:
    """What packets into ``tables`` are routed to, with the fence; ``known`` is what was unreadable before the trace."""
    collected = _Collected(asking)
    for table in tables:
        collected.take(table)
    unreadable = (*known, *collected.problems)
    routes = collected.routes()
    fence, more = read_fence(routes, asking.fences)
    routes = narrowed(routes, asking)
    return Facts(source, dump, 0.0, routes, fence, (), (*unreadable, *more))


def read_fence(routes: Iterable[Route], fences: Mapping[str, str]) -> tuple[tuple[Epoch, ...], tuple[Unreadable, ...]]:
    """The epoch of each fence Service and family. A fence with two endpoints shows none: nobody can say which it is."""
    shown: dict[tuple[str, int], list[Endpoint]] = {}
    for route in routes:
        install = _install(route, fences)
        if install:
            for endpoint in route.endpoints:
                at = shown.setdefault((install, 6 if ":" in endpoint.address else 4), [])
                if endpoint not in at:
                    at.append(endpoint)
    epochs: list[Epoch] = []
    unreadable: list[Unreadable] = []
    for (install, _), endpoints in shown.items():
        try:
            if len(endpoints) > 1:
                raise ValueError(f"shows {', '.join(map(str, endpoints))}, it must have one endpoint")
            epochs.append(Epoch.of_endpoint(install, endpoints[0]))
        except ValueError as error:
            unreadable.append(Unreadable(str(error), f"the fence of {install}"))
    return tuple(epochs), tuple(unreadable)


def _install(route: Route, fences: Mapping[str, str]) -> str | None:
    namespace, _, name = route.service.partition("/")
    named = fence_install(name.partition(":")[0]) if namespace == SYSTEM_NAMESPACE else None
    return named or fences.get(route.address)


def narrowed(routes: Iterable[Route], asking: Asking) -> tuple[Route, ...]:
    """The routes to the endpoints asked about, with these endpoints only; the fence's as they are."""
    if asking.endpoints is None:
        return tuple(routes)
    found = []
    asked: dict[str, list[Endpoint]] = {}
    for one in asking.endpoints:
        asked.setdefault(one.address, []).append(one)
    for route in routes:
        if _install(route, asking.fences):
            found.append(route)
        elif to := tuple(end for end in route.endpoints if any(one.covers(end) for one in asked.get(end.address, ()))):
            found.append(replace(route, endpoints=to))
    return tuple(found)


_Key = tuple[str, str, int, str, str]


class _Collected:
    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self._routes: dict[_Key, dict[Endpoint, None]] = {}
        self._problems: dict[Unreadable, None] = {}

    @property
    def problems(self) -> tuple[Unreadable, ...]:
        return tuple(self._problems)[:UNREADABLE_MAX]

    def take(self, table: Table) -> None:
        """The paths of ``table``: routes, and what could not be understood on them."""
        is_wanted = None if self.asking.endpoints is None else _Wanted(self.asking.endpoints, table.family)
        try:
            for path in paths(table, is_wanted):
                if path.problem:
                    self._problems[Unreadable(path.problem, path.where)] = None
                else:
                    self._take(path, table)
        except TooMuch as error:
            self._problems[Unreadable(str(error), f"table {table.where}")] = None

    def _take(self, path: Path, table: Table) -> None:
        via, service = _named(path.trail, is_redirect=all(target.is_here for target in path.targets))
        address = _address(path.box[DADDR], table.family)
        for number, protocol in SERVED.items():
            if path.box[PROTO] is not None and not _has(path.box[PROTO], number):
                continue
            for port in _ports(path.box[DPORT]):
                at = self._routes.setdefault((via, address, port, protocol, service), {})
                for target in path.targets:
                    try:
                        at.update(dict.fromkeys(self._endpoints(target, address, port, protocol, table.family)))
                    except ValueError as error:
                        self._problems[Unreadable(str(error), f"table {table.where}, chain {path.trail[-1]}")] = None

    def _endpoints(self, target: Target, address: str, port: int, protocol: str, family: int) -> list[Endpoint]:
        to_port = port if target.port is None else target.port
        if target.is_here:
            here = [text for text in self.asking.node_addresses if (":" in text) == (family == 6)]
            return [Endpoint(text, to_port, protocol) for text in [_LOOPBACK[family], *here]]
        if target.low is None or target.high is None:
            if not address or "/" in address:
                raise ValueError("translates the port of packets to any address")
            return [Endpoint(address, to_port, protocol)]
        return [
            Endpoint(address_text(number, family), to_port, protocol) for number in range(target.low, target.high + 1)
        ]

    def routes(self) -> tuple[Route, ...]:
        """The routes, in the order met; a range's is left out where the same stands for any address."""
        wide = {key for key in self._routes if not key[1]}
        found = []
        for key, endpoints in self._routes.items():
            via, address, port, protocol, service = key
            whole = (via, "", port, protocol, service)
            if "/" not in address or whole not in wide or self._routes[whole].keys() != endpoints.keys():
                found.append(Route(via, address, port, protocol, tuple(endpoints), service))
        return tuple(found)


def is_fence(target: Target, family: int) -> bool:
    """Whether a target may be a fence's."""
    if target.low is None or target.high is None:
        return True
    return target.low <= _FENCES[family][1] and _FENCES[family][0] <= target.high


class _Wanted:
    """Whether a target is one asked about, or may be a fence's."""

    def __init__(self, endpoints: tuple[Endpoint, ...], family: int) -> None:
        self._numbers = {_number(one.address) for one in endpoints if (":" in one.address) == (family == 6)}
        self._family = family

    def __call__(self, target: Target) -> bool:
        low, high = target.low, target.high
        if low is None or high is None:
            return True
        if is_fence(target, self._family):
            return True
        return low in self._numbers if low == high else any(low <= number <= high for number in self._numbers)


def _number(address: str) -> int:
    return int(IPv6Address(address)) if ":" in address else int(IPv4Address(address))


def _has(region: Region, value: int) -> bool:
    return region is None or any(low <= value <= high for low, high in region)


def _ports(region: Region) -> list[int]:
    """Each port of a few, or 0 for any or many."""
    if region is None or sum(high - low + 1 for low, high in region) > PORTS_SHOWN_MAX:
        return [0]
    return [port for low, high in region for port in range(low, high + 1)]


def _address(region: Region, family: int) -> str:
    """One address, a network, or "" for any or many."""
    value = the_point(region)
    if value is not None:
        return address_text(value, family)
    if region is None or len(region) != 1:
        return ""
    kind = IPv4Address if family == 4 else IPv6Address
    networks = list(summarize_address_range(kind(region[0][0]), kind(region[0][1])))
    return str(networks[0]) if len(networks) == 1 else ""


@lru_cache(maxsize=4096)
def _named(trail: Trail, is_redirect: bool) -> tuple[str, str]:
    """What kind of frontend a path begins at, and whose Service it is, by the names met on it."""
    via = "dnat"
    if is_redirect:
        via = "redirect"
    elif any(name in _NODE_PORTS for name in trail):
        via = "node-port"
    elif any(name.startswith(_EXTERNAL) for name in trail):
        via = "external-ip"
    elif any(name.startswith(_CLUSTER) for name in trail):
        via = "cluster-ip"
    for name in trail:
        service = service_of(name)
        if not service and (comment := _COMMENT.fullmatch(name)):
            service = comment[1]
        if service:
            return via, service
    return via, ""
