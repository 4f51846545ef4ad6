"""The coordinator's part in moving UDP flows off cut pods: since when they hold a drain up, whom to ask, what came.

kube-proxy is given ``AFTER_SECONDS`` to do it itself. What was moved stands in the node's acknowledgement, and so in
the drain's evidence and its line of the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from tidegate.agent.canvass import Reading
from tidegate.drain.stranded import AFTER_SECONDS, AGAIN_SECONDS, stranded
from tidegate.engine.flights import Flight, Key
from tidegate.kube.errors import NoCertificate, Unreachable
from tidegate.observers.coordinator import NodeView
from tidegate.observers.moving import Cut, Moved

LOOK_SECONDS = 1.0
Ask = Callable[[str, tuple[Cut, ...]], Awaitable[Moved]]
"""Asks a node's agent. Raises ``Unreachable``, ``NoCertificate``."""
_Held = tuple[Key, str, str]
"""Drain, epoch, node."""


@dataclass(slots=True)
class Stranded:
    """Of all drains in flight, by drain, epoch and node."""

    ask: Ask
    log: Callable[[str], None]
    _since: dict[_Held, float] = field(default_factory=dict)
    _asked_at: dict[str, float] = field(default_factory=dict)
    _told: dict[_Held, str] = field(default_factory=dict)
    _moved: dict[_Held, int] = field(default_factory=dict)

    async def look(self, flights: Iterable[Flight], readings: Mapping[str, Reading]) -> None:
        """Once: ask the agents of all nodes where flows have been stranded for too long."""
        now = asyncio.get_running_loop().time()
        held: dict[_Held, float] = {}
        due: dict[str, list[Flight]] = {}
        for flight in flights:
            for node, reading in sorted(readings.items()):
                if not _strands(flight, reading):
                    continue
                key = _key(flight, node)
                held[key] = self._since.get(key, now)
                is_due = now - held[key] >= AFTER_SECONDS
                if is_due and now - self._asked_at.get(node, -AGAIN_SECONDS) >= AGAIN_SECONDS:
                    due.setdefault(node, []).append(flight)
        self._since = held
        for node in due:
            self._asked_at[node] = now
        await asyncio.gather(*(self._move(node, some) for node, some in due.items()))

    def keep(self, keys: Iterable[Key]) -> None:
        """The drains in flight; what is known of others is forgotten."""
        wanted = set(keys)
        self._told = {held: said for held, said in self._told.items() if held[0] in wanted}
        self._moved = {held: count for held, count in self._moved.items() if held[0] in wanted}

    def apply(self, flight: Flight, views: tuple[NodeView, ...]) -> tuple[NodeView, ...]:
        """``views`` with what was done, or could not be."""
        if not self._told or flight.write is None:
            return views
        said = [self._told.get(_key(flight, view.node), "") for view in views]
        return tuple(
            msgspec.structs.replace(view, detail=f"{view.detail}; {words}") if words else view
            for view, words in zip(views, said, strict=True)
        )

    async def _move(self, node: str, flights: list[Flight]) -> None:
        cuts = tuple(Cut.of(one.write.epoch, one.endpoints) for one in flights if one.write is not None)
        keys = [_key(one, node) for one in flights]
        try:
            moved = await self.ask(node, cuts)
        except (Unreachable, NoCertificate) as error:
            moved = Moved(node, (0,) * len(cuts), str(error))
        for flight, key, count in zip(flights, keys, moved.counts, strict=False):
            self._moved[key] = self._moved.get(key, 0) + count
            if total := self._moved[key]:
                said = f"{total} UDP {'flow' if total == 1 else 'flows'} moved after {AFTER_SECONDS:g} s"
            elif moved.why:
                said = f"its UDP flows are not moved: {moved.why}"
            else:
                continue
            if self._told.get(key) != said:
                self._told[key] = said
                self.log(f"{flight.name}: {node}: {said}")
                flight.tell()


def _key(flight: Flight, node: str) -> _Held:
    return (flight.key, "" if flight.write is None else str(flight.write.epoch), node)


def _strands(flight: Flight, reading: Reading) -> bool:
    if flight.write is None or reading.facts is None or not reading.endpoints.issuperset(flight.endpoints):
        return False
    return bool(stranded(reading.facts, flight.endpoints, flight.write.epoch))
