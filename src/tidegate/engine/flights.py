"""The drains in flight, as the coordinator knows them: who was listed clean when, and which epoch covers whom.

Nothing here survives the process, on purpose: a coordinator that starts anew lists anew and writes a new epoch,
so that no claim of an earlier one has to be believed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tidegate.drain.fence import FenceWrite
from tidegate.drain.source import LastOfNode
from tidegate.drain.state import Mode
from tidegate.model.endpoint import Endpoint
from tidegate.model.pod import Pod
from tidegate.model.workload import Workload
from tidegate.observers.addition import Addition
from tidegate.observers.coordinator import Ask, addition_of, endpoints_of

POD_IS_GONE = "the pod is gone"
FORGET_SECONDS = 60.0
"""A keeper asks every few seconds; one that has been silent this long is dead or done."""
FLIGHTS_MAX = 10_000


Key = tuple[str, str, str]


def key_of(ask: Ask) -> Key:
    """Which flight a question is about: its pod, its mode, and the keeper (a round's first part)."""
    return (ask.uid, ask.mode, ask.round.partition("/")[0])


class TooMany(Exception):
    """No room for another drain: the keeper asks again later."""


@dataclass(slots=True)
class Flight:
    """One drain. ``clean_at`` is when its clean LIST had finished, ``write`` the fence sent after that.

    ``pod``, ``labels_before``, ``workload``: as last read. ``seen``: Services in whose slices it was ever seen;
    ``serving``: the addresses they gave it; ``services``: which it is asked about, empty for all; ``addition``: pods
    that are to be sent to as well; ``exception``: why its gate should be answered at once; ``lasts``: where the pod is
    the last of its node (``source.LastOfNode``).
    """

    uid: str
    namespace: str
    name: str
    endpoints: tuple[Endpoint, ...]
    mode: Mode
    round: str
    touched_at: float
    began_at: float
    pod: Pod | None = None
    labels_before: dict[str, str] | None = None
    workload: Workload | None = None
    workload_read_at: float = -math.inf
    seen: tuple[str, ...] = ()
    serving: tuple[Endpoint, ...] = ()
    suspected: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    addition: Addition | None = None
    exception: str = ""
    lasts: tuple[LastOfNode, ...] = ()
    is_read: bool = False
    spell: int = 0
    clean_at: float | None = None
    reasons: tuple[str, ...] = ("the EndpointSlices have not been read yet",)
    write: FenceWrite | None = None
    waiting: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Replaced and set whenever something about this drain changed."""

    def tell(self) -> None:
        """Wake who waits for this drain."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    @property
    def key(self) -> Key:
        return (self.uid, self.mode.value, self.round.partition("/")[0])

    def found_clean(self, at: float) -> None:
        """A LIST that finished at ``at`` is clean; an earlier one, and its fence, keep counting."""
        if self.clean_at is None:
            self.clean_at = at
            self.spell += 1
        self.reasons = ()
        self.exception = ""

    def found_dirty(self, reasons: tuple[str, ...]) -> None:
        """Back to the start: no list, no epoch from before may count."""
        self.clean_at = None
        self.write = None
        self.reasons = reasons

    @property
    def wants_epoch(self) -> bool:
        return self.clean_at is not None and self.write is None


@dataclass(slots=True)
class Flights:
    """All of them, by uid, mode and keeper: two keepers of one pod must not start each other over.

    ``changed`` is replaced and set on every change: wait on the one you saw.
    ``news`` is set when there is a reason to look at the source: a drain began, a slice changed.
    """

    by_key: dict[Key, Flight] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self.by_key.values()))

    def __len__(self) -> int:
        return len(self.by_key)

    def touch(self, ask: Ask, now: float) -> Flight:
        """The flight a keeper asks about, registered where it is new. Raises ``TooMany``, ``ValueError``."""
        flight = self.by_key.get(key_of(ask))
        endpoints, addition = endpoints_of(ask), addition_of(ask)
        mode = Mode(ask.mode)
        if flight is None:
            if len(self.by_key) >= FLIGHTS_MAX:
                raise TooMany(f"{FLIGHTS_MAX} drains are in flight")
            flight = Flight(
                ask.uid, ask.namespace, ask.name, endpoints, mode, ask.round, now, now,
                seen=ask.seen, services=ask.services, addition=addition,
            )  # fmt: skip
            self.by_key[flight.key] = flight
            self.news.set()
            self.tell()
        elif (flight.endpoints, flight.round, flight.services, flight.addition) != (
            endpoints, ask.round, ask.services, addition,
        ):  # fmt: skip
            flight.endpoints, flight.round, flight.services = endpoints, ask.round, ask.services
            flight.addition = addition
            flight.seen = tuple(sorted({*flight.seen, *ask.seen}))
            flight.pod, flight.is_read = None, False
            self.news.set()
            flight.found_dirty(("asked to start over",))
            self.tell()
        flight.touched_at = now
        return flight

    def forget(self, key: Key) -> None:
        """The drain is over."""
        if self.by_key.pop(key, None) is not None:
            self.tell()

    def forget_silent(self, now: float) -> None:
        """Drop the drains that nobody has asked about for ``FORGET_SECONDS``."""
        for flight in self:
            if not flight.waiting and now - flight.touched_at > FORGET_SECONDS:
                self.forget(flight.key)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Of all drains, sorted."""
        return tuple(sorted({endpoint for flight in self for endpoint in flight.endpoints}))

    def added(self) -> tuple[Endpoint, ...]:
        """Where pods were added that anybody asks about, sorted."""
        return tuple(sorted({at for flight in self if flight.addition is not None for at in flight.addition.endpoints}))

    def covered_by(self, write: FenceWrite) -> Iterable[Flight]:
        """Give ``write`` to every flight it counts for, and say which."""
        covered = [flight for flight in self if flight.wants_epoch and write.counts_for(flight.clean_at)]
        for flight in covered:
            flight.write = write
        if covered:
            self.tell()
        return covered

    def tell(self) -> None:
        """Wake everybody."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        for flight in self:
            flight.tell()
