"""One subscription to a collection: a queue that the store fills and one reader empties."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from tidegate.lab.apiserver.selectors import Filter

if TYPE_CHECKING:
    from tidegate.lab.apiserver.store import Event, Version

QUEUE_LENGTH_MAX = 10_000
"""A reader this far behind is ended and must list again, as the real cacher ends slow watchers."""

Seen = tuple[str, "Version", "Event"]


class Watcher:
    """Events through one filter. ``is_overrun`` says the reader was too slow and events were lost."""

    __slots__ = ("_filter", "_queue", "_waiter", "is_overrun")

    def __init__(self, chosen: Filter) -> None:
        self._filter = chosen
        self._queue: deque[Seen] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.is_overrun = False

    def offer(self, event: Event) -> None:
        """Queue an event if the filter shows it; never blocks the writer."""
        seen = event.seen_through(self._filter)
        if seen is None or self.is_overrun:
            return
        if len(self._queue) >= QUEUE_LENGTH_MAX:
            self.is_overrun = True
            self._queue.clear()
        else:
            self._queue.append((*seen, event))
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> list[Seen]:
        """Everything queued, without waiting."""
        taken = list(self._queue)
        self._queue.clear()
        return taken

    async def wait(self, until: float | None = None) -> None:
        """Until something is queued, ``wake`` is called or the loop's time reaches ``until`` (seconds)."""
        if self._queue or self.is_overrun:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        alarm = loop.call_at(until, self.wake) if until is not None else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if alarm is not None:
                alarm.cancel()
