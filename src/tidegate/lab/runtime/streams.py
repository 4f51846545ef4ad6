"""Live streams of a command: pipes or a terminal on this side, ``Streams`` on the other, pumps between."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tidegate.lab.runtime.spec import Streams

_CHUNK_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Ends:
    """Descriptors: what the command gets as (stdin, stdout, stderr), and our ends. ``error`` -1 = none (a terminal)."""

    theirs: tuple[int, ...]
    input: int
    output: int
    error: int = -1

    @property
    def ours(self) -> tuple[int, ...]:
        return tuple(number for number in (self.input, self.output, self.error) if number >= 0)


def pipe_ends() -> Ends:
    """Three pipes."""
    (stdin, feed), (output, stdout), (error, stderr) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    return Ends((stdin, stdout, stderr), feed, output, error)


def terminal_ends() -> Ends:
    """A pseudo-terminal: one device for all three, what it echoes comes back as output."""
    ours, theirs = os.openpty()
    return Ends((theirs, os.dup(theirs), os.dup(theirs)), os.dup(ours), ours)


@contextlib.asynccontextmanager
async def pumping(ends: Ends, streams: Streams) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Pump in both directions while in the block; gives the tasks that end when the output does."""
    loop = asyncio.get_running_loop()
    outputs = [(ends.output, streams.write)] + ([(ends.error, streams.write_error)] if ends.error >= 0 else [])
    drained = [loop.create_task(_pump_out(number, write)) for number, write in outputs]
    feeding = loop.create_task(_pump_in(ends.input, streams))
    try:
        yield drained
    finally:
        for task in (*drained, feeding):
            task.cancel()
        await asyncio.gather(*drained, feeding, return_exceptions=True)


class PipeReader:
    """Hands over what comes out of a pipe, until its writers are gone (``ended``) or it is closed, descriptor and all.

    By hand, not with ``connect_read_pipe``: uvloop 0.23 closes the descriptor twice (``_close`` in handles/handle.pyx),
    and the second time it may be what another thread has just opened.
    """

    def __init__(self, descriptor: int, take: Callable[[bytes], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._take = take
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.ended.done():
            self.ended.set_result(None)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if data:
            self._take(data)
        else:
            self.close()


async def _ready(descriptor: int, watch: Callable[..., object], forget: Callable[[int], object]) -> None:
    """Until the loop says that ``descriptor`` can go on."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    watch(descriptor, wake)
    try:
        await woken
    finally:
        forget(descriptor)


async def _pump_out(descriptor: int, write: Callable[[bytes], Awaitable[None]]) -> None:
    """By hand, not with ``connect_read_pipe``: uvloop 0.23 reads nothing from a terminal opened as a pipe."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    try:
        while True:
            try:
                data = os.read(descriptor, _CHUNK_BYTES)
            except BlockingIOError:
                await _ready(descriptor, loop.add_reader, loop.remove_reader)
                continue
            if not data:
                return
            await write(data)
    except OSError:
        return  # a terminal whose last user is gone answers EIO, not end of file
    finally:
        os.close(descriptor)


async def _pump_in(descriptor: int, streams: Streams) -> None:
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    try:
        while data := await streams.read():
            while data:
                try:
                    data = data[os.write(descriptor, data) :]
                except BlockingIOError:
                    await _ready(descriptor, loop.add_writer, loop.remove_writer)
        if streams.is_tty:
            await loop.create_future()  # closing our side would hang up on the command
    except OSError:
        return  # the command reads no more
    finally:
        os.close(descriptor)
