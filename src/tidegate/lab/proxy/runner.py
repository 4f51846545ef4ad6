"""When a proxy syncs: kube-proxy's BoundedFrequencyRunner (pkg/proxy/runner, v1.34 and later).

A request runs at once if the last run completed at least ``min_seconds`` ago, else exactly then; requests in
between are one. So a cut on a quiet node starts a sync at once, and a fence written 10-30 ms later misses it and
waits the full period (measured: cut + fence 1.0-1.1 s).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Periods:
    """The three intervals, in seconds. Defaults are kube-proxy's.

    ``retry``: a failed run is repeated after syncPeriod - 30 s! - unless something else asks earlier.
    ``full``: a run without any request (FullSyncPeriod).
    """

    min: float = 1.0
    retry: float = 30.0
    full: float = 3_600.0


class BoundedFrequencyRunner:
    """Runs ``fn`` on request, never more often than the periods allow. ``fn`` answers whether it succeeded."""

    def __init__(self, fn: Callable[[], Awaitable[bool]], periods: Periods) -> None:
        self._fn = fn
        self._periods = periods
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Ask for a run as soon as possible. Cheap; repeated requests are one."""
        self._requested.set()

    async def run(self) -> None:
        """Serve requests for ever."""
        wait_seconds = self._periods.full
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._requested.wait()
            self._requested.clear()
            succeeded = await self._fn()
            wait_seconds = self._periods.full if succeeded else self._periods.retry
            await asyncio.sleep(self._periods.min)
            wait_seconds = max(0.0, wait_seconds - self._periods.min)
