"""Virtual time itself: an event loop that jumps from timer to timer, in integer nanoseconds, and sees a deadlock.

Measured against the alternatives (docs/decisions): about 40,000 events/s, ten times looptime. Floats are used
only at asyncio's border: 1e-12 tie-breakers are lost in float64 after about 1e4 s of virtual time.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable
from typing import Any

_NS = 1_000_000_000


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: what is being awaited can never happen."""


class OutOfTime(RuntimeError):
    """The virtual clock passed the limit the caller set."""


class TimerLoop(asyncio.BaseEventLoop):
    """An event loop whose clock jumps to the next timer, and that counts its modelled processes.

    ``shuffle`` also perturbs the order of callbacks that are ready at one instant (schedule exploration): off by
    default, because plain asyncio promises first in, first out. ``limit_seconds``: ``OutOfTime`` beyond it.
    """

    def __init__(self, seed: int = 0, *, shuffle: bool = False, limit_seconds: float | None = None) -> None:
        super().__init__()
        self.seed = seed
        self.now_ns = 0
        self._limit_ns = None if limit_seconds is None else round(limit_seconds * _NS)
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._sequence = 0
        self._pids = 1
        self._shuffler = random.Random(f"{seed}/schedule") if shuffle else None

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def time(self) -> float:
        return self.now_ns / _NS

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        when_ns = round(when * _NS)
        if when_ns / _NS < when:
            when_ns += 1  # never a hair early: a caller that compares ``time()`` with ``when`` would spin for ever
        return self.call_at_ns(when_ns, callback, *args, context=context)

    def call_at_ns(
        self,
        when_ns: int,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """``call_at`` in integer nanoseconds: exact, and first set first run at equal instants."""
        when_ns = max(when_ns, self.now_ns)
        handle = asyncio.TimerHandle(when_ns / _NS, callback, args, self, context)
        self._sequence += 1
        heapq.heappush(self._timers, (when_ns, self._sequence, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when they come up."""

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        timers = self._timers
        while timers and (timers[0][2].cancelled() or not ready or timers[0][0] <= self.now_ns):
            when_ns, _, handle = heapq.heappop(timers)
            if handle.cancelled():
                continue
            if self._limit_ns is not None and when_ns > self._limit_ns:
                raise OutOfTime(f"virtual time passed {self._limit_ns / _NS:.0f} s")
            self.now_ns = max(self.now_ns, when_ns)
            ready.append(handle)
        if not ready:
            raise Deadlock(f"nothing can run any more at {self.time():.3f} s")
        batch = [ready.popleft() for _ in range(len(ready))]
        if self._shuffler is not None:
            self._shuffler.shuffle(batch)
        for handle in batch:
            if not handle.cancelled():
                handle._run()

    # --- what BaseEventLoop wants of a subclass ---

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As usual, but a stream task that died with its process is no news (asyncio/streams.py logs it)."""
        if not isinstance(context.get("exception"), asyncio.CancelledError):
            super().call_exception_handler(context)

    def _write_to_self(self) -> None:
        """No selector to wake."""

    def _process_events(self, event_list: object) -> None:
        del event_list
