"""A work queue of keys: each key at most once in it, never with two workers, and slower after each failure.

The semantics are client-go's util/workqueue: a key added while it is being worked on is worked on again
afterwards; ``retry`` waits 5 ms * 2^failures up to 1000 s; ``forget`` makes the next failure the first.
"""

from __future__ import annotations

import asyncio
from collections import deque

from tidegate.kube.reflector import Key

BACKOFF_SECONDS = (0.005, 1000.0)
"""The first and the longest wait of ``retry``."""


class WorkQueue:
    """Keys to work on, in order of arrival."""

    def __init__(self, backoff_seconds: tuple[float, float] = BACKOFF_SECONDS) -> None:
        self._backoff_seconds = backoff_seconds
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._working: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._alarms: dict[Key, asyncio.TimerHandle] = {}
        self._getters: deque[asyncio.Future[None]] = deque()

    def add(self, key: Key) -> None:
        """Have ``key`` worked on, once, however often it is added before that."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._push(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """``add`` after ``seconds``; of several alarms for one key the earliest is kept."""
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, seconds)
        alarm = self._alarms.get(key)
        if alarm is not None:
            if alarm.when() <= at:
                return
            alarm.cancel()
        self._alarms[key] = loop.call_at(at, self._ring, key)

    def retry(self, key: Key) -> None:
        """``add_after`` with the key's own back-off."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        first, longest = self._backoff_seconds
        self.add_after(key, min(first * 2.0 ** min(failures, 40), longest))

    def forget(self, key: Key) -> None:
        """The key was worked on without an error."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """The next key; give it back with ``done``."""
        while not self._ready:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter in self._getters:
                    self._getters.remove(getter)
                else:
                    self._wake()
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The worker has finished with ``key``."""
        self._working.discard(key)
        if key in self._dirty:
            self._push(key)

    def close(self) -> None:
        """Cancel pending alarms."""
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()

    def _ring(self, key: Key) -> None:
        del self._alarms[key]
        self.add(key)

    def _push(self, key: Key) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
