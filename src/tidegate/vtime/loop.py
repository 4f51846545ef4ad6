"""A seeded virtual event loop: integer nanoseconds, a sequence number, no I/O, deadlock detection.

Measured against the alternatives (docs/decisions): about 40,000 events/s, ten times looptime. Floats are used
only at asyncio's border: 1e-12 tie-breakers are lost in float64 after about 1e4 s of virtual time.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tidegate.vtime import process as processes
from tidegate.vtime.network import Network

T = TypeVar("T")
_NS = 1_000_000_000


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: what is being awaited can never happen."""


class OutOfTime(RuntimeError):
    """The virtual clock passed the limit the caller set."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose clock jumps to the next timer. ``seed`` decides latencies and tie-breaks.

    ``shuffle`` also perturbs the order of callbacks that are ready at one instant (schedule exploration): off by
    default, because plain asyncio promises first in, first out.
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
        self.network = Network(self, random.Random(f"{seed}/network"))
        self.hosted: dict[str, Any] = {}
        """HTTP servers of this world by URL: how ``kube.connect`` finds an API server without a socket."""
        self.set_task_factory(_adopting_task)

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    # --- time ---

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

    # --- sockets and signals ---

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self.network.connect(protocol_factory, (str(host), int(port)), options.get("local_addr"))

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        del options
        return self.network.listen(protocol_factory, (str(host or "0.0.0.0"), int(port or 0)))

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **options: Any) -> Any:
        del options
        return await self.network.connect(protocol_factory, str(path), None)

    async def create_unix_server(self, protocol_factory: Any, path: Any = None, **options: Any) -> Any:
        del options
        return self.network.listen(protocol_factory, str(path))

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        process = processes.current()
        if process is not None:
            process.set_signal_handler(int(sig), callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        process = processes.current()
        return process.remove_signal_handler(int(sig)) if process is not None else False


def _adopting_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    process = processes.current()
    if process is not None:
        process.adopt_task(task)
    return task


def run(coro: Coroutine[Any, Any, T], seed: int = 0, *, shuffle: bool = False, limit_seconds: float | None = None) -> T:
    """Run ``coro`` to its end on a fresh ``VirtualLoop``. Raises ``Deadlock`` when it can never end."""
    loop = VirtualLoop(seed, shuffle=shuffle, limit_seconds=limit_seconds)
    before = events._get_running_loop()
    try:
        events._set_running_loop(None)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(coro)
    finally:
        events._set_running_loop(before)
