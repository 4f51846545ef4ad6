"""Pods that a Service lists anew, and whether one observer sends to them already: the other half of letting go.

A node that shows an epoch has taken in every addition from before it. A load balancer may list a target and check its
health for a minute first, and one that was told late lists it late. So whoever lists endpoints is asked for them: is
each pod *listed*, and is nothing *withheld* from it?
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.dataplane.facts import Facts
from tidegate.model.endpoint import Endpoint

NAMES_TOLD = 3


@dataclass(frozen=True, slots=True)
class Joining:
    """One pod that its Service lists as ready: where, and in which zone, as the slices say."""

    pod: str
    endpoints: tuple[Endpoint, ...]
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Addition:
    """``pods`` are to be sent to by ``service`` (namespace/name). ``others``: where its other pods are, or were: who
    lists any of them routes by this Service."""

    service: str
    pods: tuple[Joining, ...]
    others: tuple[Endpoint, ...] = ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(dict.fromkeys(at for one in self.pods for at in one.endpoints))


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one dump says of an addition, in sentences. ``is_concerned``: it lists some pod of the Service."""

    missing: tuple[str, ...]
    withheld: tuple[str, ...]
    is_concerned: bool

    @property
    def lack(self) -> str:
        """Why it does not send to all of them; "" where it does, or lists no pod of the Service."""
        found = (*self.withheld, *self.missing)
        more = f" and {len(found) - NAMES_TOLD} more" if len(found) > NAMES_TOLD else ""
        return "; ".join(found[:NAMES_TOLD]) + more


def look(facts: Facts, addition: Addition, *, is_expected: bool = False) -> Sighting:
    """Whether ``facts`` have each pod of ``addition``, at the ports (and families) at which they have any pod of its
    Service: a target group has one port of several. ``is_expected``: all have to be there, whoever else is."""
    used = _used(facts, addition)
    missing, withheld = [], []
    for one in addition.pods:
        wanted = [at for at in one.endpoints if any(_is_like(at, like) for like in used)]
        if not wanted and (used or is_expected):
            missing.append(f"does not list {one.pod}")
        for at in wanted:
            routes = facts.routes_to(at)
            if not routes:
                missing.append(f"does not list {one.pod} at {at}")
            why = next((route.withheld for route in routes if route.withheld), "")
            if why:
                withheld.append(f"lists {one.pod} at {at}, {why}")
    return Sighting(tuple(missing), tuple(withheld), bool(used))


def _used(facts: Facts, addition: Addition) -> frozenset[Endpoint]:
    """The ports at which any pod of the Service is listed."""
    known: dict[str, list[Endpoint]] = {}
    for at in (*addition.endpoints, *addition.others):
        known.setdefault(at.address, []).append(at)
    listed = (to for route in facts.routes for to in route.endpoints)
    return frozenset(to for to in listed if any(at.covers(to) for at in known.get(to.address, ())))


def _is_like(at: Endpoint, like: Endpoint) -> bool:
    is_same_family = (":" in at.address) == (":" in like.address)
    return is_same_family and (not like.port or not at.port or (at.port, at.protocol) == (like.port, like.protocol))
