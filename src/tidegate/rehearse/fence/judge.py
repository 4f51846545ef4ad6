"""The judge of the fence: what every table of every node held, against what was cut and what was written. Pure.

It shares nothing with what it judges: a table is a set of addresses and the address that the fence's Service had.

A *word* is given for a cut at the first table that shows the epoch and no route. It is a lie when a later table, while
the cut stands, has a route: that is what would have ended a pod too early. A table that shows the epoch *and* a route
breaks the invariant, but deceives nobody who looks at both.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address

_FIRST = {4: int(ip_address("198.18.0.0")), 6: int(ip_address("2001:2::"))}
_PORTS = 65535


@dataclass(frozen=True, slots=True)
class Sight:
    """One node's table, in force from ``at`` on. ``fence`` has the numbers of all fences seen (one for each family);
    ``routed`` every endpoint that some Service led to ("ip:port"). A sample of a kernel that is not ours began at
    ``at`` and had ``ended`` by then; it says nothing of what was before."""

    at: float
    fence: tuple[int, ...]
    routed: frozenset[str]
    ended: float = 0.0


@dataclass(slots=True)
class Cut:
    """One cut of ``endpoint``. It stood from ``at`` (the API server had taken it) until ``until`` (before the next
    addition was sent). ``before`` is the last epoch written before it, ``first`` the one written after it, ``second``
    the one written after every node had shown ``first``; None where it never came to that."""

    endpoint: str
    at: float
    before: int
    first: int | None = None
    second: int | None = None
    until: float = 0.0


@dataclass(slots=True)
class Signs:
    """In how many cuts of one node each sign was wrong. ``shown_*``: tables with that epoch and a route;
    the others: a word, and a route after it."""

    cuts: int = 0
    tables: int = 0
    shown_first: int = 0
    shown_second: int = 0
    first: int = 0
    second: int = 0
    before: int = 0
    absence: int = 0
    synced: int = 0
    synced_and_absent: int = 0
    unproven: int = 0
    """Cuts whose epoch a node never showed while they stood: nothing was claimed of these."""

    def __iadd__(self, other: Signs) -> Signs:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        return self


@dataclass(slots=True)
class Node:
    """What was seen of one node: its tables, and the ends of its proxy's syncs, both in order of time."""

    sights: list[Sight] = field(default_factory=list)
    synced: list[float] = field(default_factory=list)


def number_of(endpoint: str) -> int:
    """What an endpoint of the fence's Service spells. Raises ``ValueError``."""
    host, _, port = endpoint.rpartition(":")
    address = ip_address(host.strip("[]"))
    offset = int(address) - _FIRST[address.version]
    return offset if address.version == 6 else offset * _PORTS + int(port) - 1


def judge(cuts: Iterable[Cut], nodes: Sequence[Node], *, early: int = 0) -> Signs:
    """All cuts on all nodes. ``early`` breaks the fence on purpose: epochs count that many numbers too soon."""
    total = Signs()
    for node in nodes:
        instants = [sight.at for sight in node.sights]
        for cut in cuts:
            begin = bisect_right(instants, cut.at)
            if begin and not node.sights[begin - 1].ended:
                begin -= 1  # the table that stood at the cut
            seen = [one for one in node.sights[begin : bisect_left(instants, cut.until)] if one.ended < cut.until]
            if seen:
                total += _judge(cut, seen, node.synced, early)
    return total


def _judge(cut: Cut, seen: Sequence[Sight], synced: Sequence[float], early: int) -> Signs:
    routed = [cut.endpoint in sight.routed for sight in seen]

    def shows(number: int | None) -> Callable[[int], bool]:
        return lambda index: number is not None and _shows(seen[index], number - early)

    def absent(index: int) -> bool:
        return not routed[index]

    def lies(*signs: Callable[[int], bool]) -> int:
        """1 when all of these held at one table and a route stood at it or after it."""
        said = next((index for index in range(len(seen)) if all(sign(index) for sign in signs)), None)
        return int(said is not None and any(routed[said:]))

    after = bisect_right(synced, cut.at)
    sync_at = synced[after] if after < len(synced) else None

    def was_synced(index: int) -> bool:
        """At the end of this table's time a sync had ended after the cut."""
        ends = seen[index + 1].at if index + 1 < len(seen) else cut.until
        return sync_at is not None and sync_at < ends

    first, second = shows(cut.first), shows(cut.second)
    return Signs(
        cuts=1,
        tables=len(seen),
        shown_first=lies_at(first, routed),
        shown_second=lies_at(second, routed),
        first=lies(first, absent),
        second=lies(second, absent),
        before=lies(shows(cut.before), absent),
        absence=lies(absent),
        synced=lies(was_synced),
        synced_and_absent=lies(was_synced, absent),
        unproven=int(not any(map(first, range(len(seen))))),
    )


def lies_at(shown: Callable[[int], bool], routed: Sequence[bool]) -> int:
    """1 when any one table shows the epoch and the route."""
    return int(any(is_routed and shown(index) for index, is_routed in enumerate(routed)))


def _shows(sight: Sight, number: int) -> bool:
    return bool(sight.fence) and min(sight.fence) >= number
