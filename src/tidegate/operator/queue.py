"""The work queue: what has to be looked at, each key once, by a bounded number of workers, later after each failure.

As client-go's (util/workqueue): a key that is added while it is worked on is worked on once more afterwards, by nobody
else meanwhile. So one Release has one actor, whatever the number of workers.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.2, 60.0
JITTER = 0.25
"""Of each delay, so that what failed together does not come back together."""


class WorkQueue(Generic[K]):
    """``rng`` draws the jitter: the same seed, the same delays."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ready: deque[K] = deque()
        self._waiting: dict[K, None] = {}
        """Keys in ``_ready``, and keys that are worked on and have to be looked at again."""
        self._working: dict[K, None] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """How many wait for a worker now."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        return len(self._timers)

    @property
    def is_idle(self) -> bool:
        """Nothing waits for a worker, and none is at work."""
        return not self._ready and not self._working

    def add(self, key: K) -> None:
        """Look at ``key`` as soon as a worker is free."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._waiting:
            return
        self._waiting[key] = None
        if key not in self._working:
            self._ready.append(key)
            self._filled.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Look at ``key`` in so many seconds, or earlier where that is asked for already."""
        if seconds <= 0:
            self.add(key)
            return
        if key in self._waiting:
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self.add, key)

    def add_failed(self, key: K) -> float:
        """Look at ``key`` again, later with each failure; how much later, in seconds."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = self.jittered(min(BACKOFF_SECONDS_MIN * 2.0 ** min(count - 1, 16), BACKOFF_SECONDS_MAX))
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: K) -> None:
        """It went well: the next failure is its first."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """Nobody is to look at it any more."""
        self.forget(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def jittered(self, seconds: float) -> float:
        return seconds * (1 + JITTER * (2 * self._rng.random() - 1))

    async def get(self) -> K:
        """The next key; ``done`` it afterwards, however it went."""
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        key = self._ready.popleft()
        del self._waiting[key]
        self._working[key] = None
        return key

    def done(self, key: K) -> None:
        del self._working[key]
        if key in self._waiting:
            self._ready.append(key)
            self._filled.set()

    def clear(self) -> None:
        """Forget everything that is not being worked on: this process is not the leader any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._failures.clear()
        self._ready.clear()
        self._waiting.clear()
