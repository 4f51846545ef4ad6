"""Netfilter rules in one shape, whichever tool printed them: what the tracer walks.

A rule is a row of steps, left to right as the kernel evaluates them. Three properties of a packet are followed
exactly (destination address, protocol, destination port) because a question about routes is about those. All else
(source, interface, mark, random numbers, ipsets) is a ``Maybe``: the packet may pass or not, so both are followed.
What was not understood is ``Opaque``: it stops nothing, it is reported when a packet can come by.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address, ip_network

DADDR, PROTO, DPORT = 0, 1, 2
"""The fields of a packet that are followed; a box has a region for each."""
Region = tuple[tuple[int, int], ...] | None
"""Sorted, disjoint, inclusive ranges; None is every value."""
Box = tuple[Region, Region, Region]
ANY: Box = (None, None, None)
NEVER: Region = ()
"""No value at all."""
TARGETS_MAX = 256
"""More addresses or ports than this in one translation are no endpoints of a Service: not understood."""

PROTOCOLS = {
    "tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58, "dccp": 33, "udplite": 136, "esp": 50,
    "ah": 51, "comp": 108, "gre": 47, "igmp": 2, "ipip": 4, "ipv6": 41,
}  # fmt: skip
SERVED = {6: "TCP", 17: "UDP", 132: "SCTP"}
"""The protocols a Service can have."""
_FOUR = re.compile(r"(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})", re.ASCII)
_LARGEST = {4: 2**32 - 1, 6: 2**128 - 1}


class NotUnderstood(ValueError):
    """An expression that no parser here knows."""


def largest(which: int, family: int) -> int:
    """The largest value of a field."""
    return _LARGEST[family] if which == DADDR else 255 if which == PROTO else 65535


def region_of(ranges: Iterable[tuple[int, int]]) -> Region:
    """Ranges, sorted and joined."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def point(value: int) -> Region:
    return ((value, value),)


def the_point(region: Region) -> int | None:
    """The one value of a region, None when it has another number of them."""
    return region[0][0] if region is not None and len(region) == 1 and region[0][0] == region[0][1] else None


def complement(region: Region, highest: int) -> Region:
    """All values up to ``highest`` that are not in ``region``."""
    if region is None:
        return ()
    gaps, start = [], 0
    for low, high in region:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= highest:
        gaps.append((start, highest))
    return tuple(gaps)


def intersect(one: Region, other: Region) -> Region:
    """The values in both; an empty tuple when there are none."""
    if one is None or other is None or one == other:
        return one if other is None else other
    value = the_point(one)
    if value is None and (value := the_point(other)) is not None:
        one, other = other, one
    if value is not None:
        at = bisect_right(other, (value, 1 << 129)) - 1
        return one if at >= 0 and other[at][0] <= value <= other[at][1] else ()
    return region_of(
        (max(low, start), min(high, end))
        for low, high in one
        for start, end in other
        if max(low, start) <= min(high, end)
    )


@lru_cache(maxsize=65_536)
def address_number(text: str, family: int) -> int:
    """An address as a number. Raises ``NotUnderstood`` for another family's, or for none."""
    if family == 4 and _FOUR.fullmatch(text):  # four times as fast as ip_address, which a large dump calls 60,000 times
        first, second, third, fourth = map(int, text.split("."))
        if max(first, second, third, fourth) < 256:
            return (first << 24) | (second << 16) | (third << 8) | fourth
    try:
        address = ip_address(text)
    except ValueError as error:
        raise NotUnderstood(str(error)) from None
    if address.version != family:
        raise NotUnderstood(f"{text} is no IPv{family} address")
    return int(address)


def network_range(text: str, family: int) -> tuple[int, int]:
    """``10.0.0.0/8``, or with a netmask, as a range of numbers. Raises ``NotUnderstood``."""
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise NotUnderstood(str(error)) from None
    if network.version != family:
        raise NotUnderstood(f"{text} is no IPv{family} network")
    return int(network.network_address), int(network.broadcast_address)


@lru_cache(maxsize=4096)
def address_text(number: int, family: int) -> str:
    if family == 4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ip_address(number.to_bytes(16, "big")))


@dataclass(frozen=True, slots=True)
class Test:
    """Passes when the packet's field lies in ``region``."""

    field: int
    region: Region


@dataclass(frozen=True, slots=True)
class Maybe:
    """Depends on something that is not followed: may pass or not."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """Not understood: why. It may be a test, a verdict or a translation."""

    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """``accept`` and ``drop`` end the walk, ``return``, ``jump`` and ``goto`` are what they are called."""

    kind: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a translation sends a packet: addresses ``low`` to ``high`` (None: the packet's own) and a port.

    Port None keeps the packet's own; 0 stands for one of several. ``is_here``: an address of this node.
    """

    low: int | None
    high: int | None
    port: int | None
    is_here: bool = False


@dataclass(frozen=True, slots=True)
class Dnat:
    """Ends the walk: the connection goes to one of ``targets``."""

    targets: tuple[Target, ...]


Row = tuple[tuple[Region, ...], "tuple[Step, ...]"]


@dataclass(frozen=True, eq=False, slots=True)
class Lookup:
    """A map or a set of several fields: the first row that the packet is in says what comes next.

    ``fields`` tells which field each column is about, None where it is not followed. ``exact`` holds the rows whose
    columns are single values, by these; ``ranged`` the others. ``is_certain``: some row always fits (a random number
    below N with a row for each).
    """

    name: str
    fields: tuple[int | None, ...]
    exact: dict[tuple[int, ...], tuple[Step, ...]]
    ranged: tuple[Row, ...] = ()
    is_certain: bool = False


Step = Test | Maybe | Opaque | Verdict | Dnat | Lookup


def all_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    """``steps``, and in the place of a lookup what its rows lead to."""
    for step in steps:
        if isinstance(step, Lookup):
            for outcome in step.exact.values():
                yield from outcome
            for _, outcome in step.ranged:
                yield from outcome
        else:
            yield step


@dataclass(frozen=True, eq=False, slots=True)
class Rule:
    """``where`` names it for people: its table, chain and handle or line. ``note`` is its comment."""

    where: str
    steps: tuple[Step, ...]
    note: str = ""

    @property
    def is_inert(self) -> bool:
        """Whether whatever packet comes by goes on as if the rule were not there."""
        return not any(isinstance(step, Verdict | Dnat | Opaque | Lookup) for step in self.steps)


INDEXED_MIN = 16
"""Chains with fewer rules are walked as they are."""


@dataclass(eq=False, slots=True)
class Chain:
    """The rules of a chain that do something, in order. ``hook`` is set for a base chain that translates."""

    name: str
    rules: list[Rule] = field(default_factory=list)
    hook: str = ""
    _by_value: tuple[dict[int, list[int]], ...] = ()
    _unindexed: list[int] = field(default_factory=list)

    def near(self, box: Box, matters: Container[str] | None = None) -> Iterable[Rule]:
        """The rules a packet of ``box`` can match, in order, and perhaps some more. With ``matters`` those may be left
        out that only jump to another chain than these."""
        del matters
        address, port = the_point(box[DADDR]), the_point(box[DPORT])
        if len(self.rules) < INDEXED_MIN or address is None or port is None:
            return self.rules
        if not self._by_value:
            self._index()
        found = self._by_value[0].get(address, []) + self._by_value[1].get(port, []) + self._unindexed
        return [self.rules[at] for at in sorted(found)]

    def _index(self) -> None:
        by_address: dict[int, list[int]] = {}
        by_port: dict[int, list[int]] = {}
        for at, rule in enumerate(self.rules):
            address, port = only_value(rule.steps, DADDR), only_value(rule.steps, DPORT)
            if address is not None:
                by_address.setdefault(address, []).append(at)
            elif port is not None:
                by_port.setdefault(port, []).append(at)
            else:
                self._unindexed.append(at)
        self._by_value = (by_address, by_port)


def only_value(steps: Sequence[Step], which: int) -> int | None:
    """The one value of a field with which the tests that open a rule can pass."""
    for step in steps:
        if isinstance(step, Test):
            if step.field == which and (value := the_point(step.region)) is not None:
                return value
        elif not isinstance(step, Maybe):
            break
    return None


@dataclass(eq=False, slots=True)
class Table:
    """One table as one address family (4 or 6) sees it. ``where`` names it: ``ip kube-proxy``.

    A chain that rules lead to and that ``chains`` does not have is a problem of every path that leads there. Where
    ``is_indexed``, somebody has found out already which chains lead to what is asked about: ``leading``, None for any.
    """

    where: str
    family: int
    chains: dict[str, Chain] = field(default_factory=dict)
    is_indexed: bool = False
    leading: Container[str] | None = None
