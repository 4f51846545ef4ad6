"""Modelled processes: a coroutine that owns what it opens and loses it when it ends, as a kernel would have it."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Callable
from typing import Any, Protocol

from tidegate.vtime.program import Entrypoint, Program
from tidegate.vtime.timers import TimerLoop

_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("tidegate_process", default=None)


def current() -> Process | None:
    """The modelled process whose context is running, if any."""
    return _current.get()


class Owned(Protocol):
    """Something that the kernel closes when its process ends."""

    def process_ended(self) -> None: ...


class Process:
    """One modelled process on a ``VirtualLoop``.

    Tasks, sockets and signal handlers made in its context belong to it. ``wait`` gives the exit code:
    what the entrypoint returned, 1 after an exception, 128 + signal when a signal ended it.
    """

    def __init__(self, entrypoint: Entrypoint, program: Program, name: str = "process") -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TimerLoop), "a modelled process needs a virtual loop"
        self.loop = loop
        self.name = name
        self.pid = self.loop.next_pid()
        self.alive = True
        self.error: BaseException | None = None
        self._program = program
        self._entrypoint = entrypoint
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._owned: dict[Owned, None] = {}
        self._handlers: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self._exit: asyncio.Future[int] = loop.create_future()
        self.context = contextvars.copy_context()
        self.context.run(_current.set, self)
        self.context.run(self._begin)

    def _begin(self) -> None:
        self.loop.create_task(self._run(), name=self.name)

    async def _run(self) -> None:
        try:
            code = await self._entrypoint(self._program)
        except asyncio.CancelledError:
            return
        except Exception as error:
            self.error = error
            self._program.log(f"{type(error).__name__}: {error}")
            code = 1
        self.end(code)

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        return await asyncio.shield(self._exit)

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs."""
        return self._exit.result() if self._exit.done() else None

    def signal(self, number: int) -> None:
        """Deliver a signal: its handler, or the default action. SIGKILL has no handler."""
        if not self.alive:
            return
        handler = self._handlers.get(number)
        if number == signal.SIGKILL or (handler is None and number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
            self.end(128 + number)
        elif handler is not None:
            callback, args = handler
            self.loop.call_soon(callback, *args, context=self.context)

    def end(self, code: int) -> None:
        """Exit now: sockets close as the kernel closes them, tasks stop where they stand."""
        if not self.alive:
            return
        self.alive = False
        for owned in list(self._owned):
            owned.process_ended()
        self._owned.clear()
        if not self._exit.done():
            self._exit.set_result(code)
        for task in list(self._tasks):
            task.cancel()

    def adopt_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(self._forget_task)
        if not self.alive:
            self.loop.call_soon(task.cancel)

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def own(self, thing: Owned) -> None:
        self._owned[thing] = None

    def disown(self, thing: Owned) -> None:
        self._owned.pop(thing, None)

    def owned(self) -> list[Owned]:
        return list(self._owned)

    def set_signal_handler(self, number: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._handlers[number] = (callback, args)

    def remove_signal_handler(self, number: int) -> bool:
        return self._handlers.pop(number, None) is not None
