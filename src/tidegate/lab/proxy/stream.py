"""A proxy's event stream: what the API server sent, delivered in order, later when the node lags or is frozen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tidegate.lab.faults import Faults


class DelayedStream:
    """Calls ``deliver`` for each item pushed, in order: after the node's lag, never while it is frozen."""

    def __init__(self, node: str, faults: Faults) -> None:
        self._node = node
        self._faults = faults
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._pushed = asyncio.Event()

    def push(self, deliver: Callable[[], None]) -> None:
        """An event has arrived from the API server."""
        self._waiting.append((asyncio.get_running_loop().time(), deliver))
        self._pushed.set()

    async def run(self) -> None:
        """Deliver for ever."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._pushed.clear()
                await self._pushed.wait()
            await self._faults.thawed(self._node)
            arrived, deliver = self._waiting[0]
            due = arrived + self._faults.of(self._node).lag_seconds
            if due > loop.time():
                await self._faults.changed(self._node, due)
                continue
            self._waiting.popleft()
            deliver()
