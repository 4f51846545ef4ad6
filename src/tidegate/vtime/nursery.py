"""A task group with an order.

``asyncio.TaskGroup`` keeps its tasks in a set and cancels them in address order (measured: two different orders
in three runs of one program), which no seed can fix. This one starts, cancels and reports in start order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class Nursery:
    """``async with Nursery() as n: n.start(coro)``: leaves when all are done; the first error cancels the rest."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._error: BaseException | None = None
        self._parent: asyncio.Task[Any] | None = None
        self._in_body = False
        self._interrupted_body = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        self._parent = asyncio.current_task()
        self._in_body = True
        return self

    def start(self, coro: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Run ``coro`` beside the others."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks[task] = None
        self._empty.clear()
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        """Cancel every task, oldest first. The nursery then leaves without an error."""
        for task in list(self._tasks):
            task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if not self._tasks:
            self._empty.set()
        if task.cancelled():
            return
        error = task.exception()
        if error is None or self._error is not None:
            return
        self._error = error
        self.cancel()
        if self._in_body and self._parent is not None and not self._parent.done():
            self._interrupted_body = True
            self._parent.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_body = False
        if error is not None:
            self.cancel()
        while self._tasks:
            try:
                await self._empty.wait()
            except asyncio.CancelledError:
                self.cancel()
                await self._settle()
                if self._error is None:
                    raise
        if self._interrupted_body and isinstance(error, asyncio.CancelledError) and self._parent is not None:
            self._parent.uncancel()
        if self._error is not None and (error is None or isinstance(error, asyncio.CancelledError)):
            raise self._error

    async def _settle(self) -> None:
        """Wait for cancelled tasks; a second cancellation does not abandon them."""
        while self._tasks:
            try:
                await self._empty.wait()
            except asyncio.CancelledError:
                continue
