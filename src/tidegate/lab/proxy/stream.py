"""A proxy's event stream: what the API server sent, delivered in order, later when the node lags or is frozen."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from tidegate.lab.faults import Faults
from tidegate.lab.proxy.shapes import Shape

_PAUSES_AFTER, _PAUSE_SECONDS = 0.3, 0.001
"""Handlers run one after another while syncs go on: after so many of its events a busy proxy's handler is interrupted,
at most so long, where a queue by object can be overtaken."""

Deliver = Callable[[], None]
Runs = Callable[[], Coroutine[Any, Any, None]]


class DelayedStream:
    """Calls ``deliver`` for each item pushed, in order: after the node's lag, never while it is frozen."""

    def __init__(self, node: str, faults: Faults) -> None:
        self._node = node
        self._faults = faults
        self._waiting: deque[tuple[float, Hashable, Deliver]] = deque()
        self._pushed = asyncio.Event()

    def push(self, deliver: Deliver, about: Hashable = None) -> None:
        """An event has arrived from the API server. ``about``: the object it is of; None for the end of a list."""
        self._waiting.append((asyncio.get_running_loop().time(), about, deliver))
        self._pushed.set()

    async def run(self) -> None:
        """Deliver for ever."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._pushed.clear()
                await self._pushed.wait()
            await self._may_run()
            arrived, about, deliver = self._waiting[0]
            due = arrived + self._faults.of(self._node).lag_seconds
            if due > loop.time():
                await self._faults.changed(self._node, due)
                continue
            self._waiting.popleft()
            self._arrived(about, deliver)

    async def _may_run(self) -> None:
        await self._faults.thawed(self._node)

    def _arrived(self, about: Hashable, deliver: Deliver) -> None:
        del about
        deliver()


class StreamByObject(DelayedStream):
    """A queue by object, as DeltaFIFO is (client-go before 1.33): what arrives while an event of the same object is
    still waiting is handled together with it, before what came between."""

    def __init__(self, node: str, faults: Faults, rng: random.Random) -> None:
        super().__init__(node, faults)
        self._rng = rng
        self._queue: dict[Hashable, list[Deliver]] = {}
        self._queued = asyncio.Event()
        self._ends = 0

    def _arrived(self, about: Hashable, deliver: Deliver) -> None:
        if about is None:  # the end of a list is told once all of it was handled: it overtakes nothing
            self._ends += 1
            about = ("end of a list", self._ends)
        self._queue.setdefault(about, []).append(deliver)
        self._queued.set()

    async def handle(self) -> None:
        """Hand over for ever, beside ``run``."""
        while True:
            while not self._queue:
                self._queued.clear()
                await self._queued.wait()
            about = next(iter(self._queue))
            for deliver in self._queue.pop(about):
                await self._faults.thawed(self._node)
                deliver()
                if self._rng.random() < _PAUSES_AFTER:
                    await asyncio.sleep(self._rng.uniform(0.0, _PAUSE_SECONDS))


class StreamListingAnew(StreamByObject):
    """In order; but whoever stood still finds its watch too old and lists anew. Then its handlers are told the last
    state of each object, one after another in the order of a list, and a sync may begin in between (client-go 1.36
    controller.go ``processReplacedAllInfo``)."""

    def __init__(self, node: str, faults: Faults, rng: random.Random) -> None:
        super().__init__(node, faults, rng)
        self._count = 0

    async def _may_run(self) -> None:
        was_frozen = self._faults.of(self._node).is_frozen(asyncio.get_running_loop().time())
        await super()._may_run()
        if was_frozen:
            last = {about: one for one in self._waiting if isinstance(about := one[1], tuple)}
            listed = sorted(last.items(), key=lambda one: (one[0][0], str(one[0][1])))
            others = [one for one in self._waiting if not isinstance(one[1], tuple)]
            self._waiting = deque([*(one for _, one in listed), *others])

    def _arrived(self, about: Hashable, deliver: Deliver) -> None:
        self._count += 1
        super()._arrived(None if about is None else (about, self._count), deliver)


def stream(node: str, faults: Faults, shape: Shape, rng: random.Random) -> tuple[DelayedStream, tuple[Runs, ...]]:
    """The stream of a proxy of ``shape``, and what must run for it."""
    if not (shape.queues_by_object or shape.lists_anew):
        ordered = DelayedStream(node, faults)
        return ordered, (ordered.run,)
    queued = (StreamListingAnew if shape.lists_anew else StreamByObject)(node, faults, rng)
    return queued, (queued.run, queued.handle)
