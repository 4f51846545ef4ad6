"""One subscription to a collection: a queue that the store fills and one reader empties."""

from __future__ import annotations

import asyncio
from collections import deque

from tidegate.lab.apiserver.selectors import FieldPath, Filter, field_text
from tidegate.lab.apiserver.versions import Event, Version

QUEUE_LENGTH_MAX = 10_000
"""A reader this far behind is ended and must list again, as the real cacher ends slow watchers."""

Seen = tuple[str, Version, Event]


class Watcher:
    """Events through one filter. ``is_overrun`` says the reader was too slow and events were lost."""

    __slots__ = ("_filter", "_queue", "_waiter", "is_overrun", "trigger")

    def __init__(self, chosen: Filter) -> None:
        self._filter = chosen
        self.trigger = chosen.trigger
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

    def end(self) -> None:
        """Let the reader have what is queued, and no more."""
        self.is_overrun = True
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


class Audience:
    """All watchers of one collection. Those that follow one value of a field are asked only about that value:

    fifty kubelets that each watch ``spec.nodeName=...`` cost a pod's change two look-ups, not fifty comparisons (the
    real cacher's trigger, cacher.go indexedWatchers).
    """

    def __init__(self) -> None:
        self._everyone: dict[Watcher, None] = {}
        self._followers: dict[FieldPath, dict[str, dict[Watcher, None]]] = {}

    def __len__(self) -> int:
        followed = (len(watchers) for values in self._followers.values() for watchers in values.values())
        return len(self._everyone) + sum(followed)

    def add(self, watcher: Watcher) -> None:
        if watcher.trigger is None:
            self._everyone[watcher] = None
            return
        path, value = watcher.trigger
        self._followers.setdefault(path, {}).setdefault(value, {})[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        if watcher.trigger is None:
            self._everyone.pop(watcher, None)
            return
        path, value = watcher.trigger
        watchers = self._followers.get(path, {}).get(value, {})
        watchers.pop(watcher, None)
        if not watchers:
            self._followers.get(path, {}).pop(value, None)

    def end(self) -> None:
        """End every watcher: the collection is no more."""
        for watcher in list(self._everyone):
            watcher.end()
        for values in self._followers.values():
            for watchers in values.values():
                for watcher in list(watchers):
                    watcher.end()

    def tell(self, event: Event) -> None:
        """Offer a change to whom it may concern."""
        for watcher in self._everyone:
            watcher.offer(event)
        for path, values in self._followers.items():
            after = field_text(event.new.object, path) if event.new is not None else None
            before = field_text(event.old.object, path) if event.old is not None else None
            for value in (after, before) if before != after else (after,):
                if value is not None:
                    for watcher in values.get(value, ()):
                        watcher.offer(event)
