"""``kubectl exec`` on a real lab: a command beside a container, its streams piped, or on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.terminals import NotRunnable, Terminal
from tidegate.lab.runtime.real import RealRuntime
from tidegate.lab.runtime.spec import ContainerSpec, StartError

_READ_BYTES = 65_536
_OUTPUT_GRACE_SECONDS = 0.5
"""How long output may trail the exit of the command that wrote it."""

Write = Callable[[bytes], Awaitable[None]]


class Commands:
    """An ``Execute`` over the runtime that started the containers."""

    def __init__(self, runtime: RealRuntime) -> None:
        self._runtime = runtime

    async def __call__(self, pod: JsonObject, container: str, terminal: Terminal) -> int:
        """Run ``terminal.command`` to its end; it is killed when the client leaves first."""
        metadata = pod["metadata"]
        spec = self._runtime.book.spec(metadata["namespace"], metadata["name"], container)
        if spec is None:
            raise NotRunnable(f'container not found ("{container}")')
        if terminal.is_tty:
            return await self._on_terminal(spec, terminal)
        return await self._on_pipes(spec, terminal)

    async def _on_pipes(self, spec: ContainerSpec, terminal: Terminal) -> int:
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = (
            os.pipe2(os.O_CLOEXEC) for _ in range(3)
        )
        outputs = [(ours_out, terminal.write), (ours_err, terminal.write_error)]
        return await self._run(spec, terminal, (theirs_in, theirs_out, theirs_err), (ours_in, outputs))

    async def _on_terminal(self, spec: ContainerSpec, terminal: Terminal) -> int:
        ours, theirs = os.openpty()
        streams = (theirs, os.dup(theirs), os.dup(theirs))
        return await self._run(spec, terminal, streams, (os.dup(ours), [(ours, terminal.write)]))

    async def _run(
        self,
        spec: ContainerSpec,
        terminal: Terminal,
        theirs: tuple[int, int, int],
        ours: tuple[int, list[tuple[int, Write]]],
    ) -> int:
        """``ours``: where input goes, and whence output comes with where to put it. All descriptors are closed."""
        entry, outputs = ours
        try:
            process = await self._runtime.beside(spec, terminal.command, theirs)
        except StartError as error:
            _close([entry, *(descriptor for descriptor, _ in outputs)])
            raise NotRunnable(str(error)) from error
        finally:
            _close(theirs)
        pumps = [asyncio.ensure_future(_pump(descriptor, write)) for descriptor, write in outputs]
        feeding = asyncio.ensure_future(_feed(entry, terminal))
        try:
            code = await process.wait()
            await asyncio.wait(pumps, timeout=_OUTPUT_GRACE_SECONDS)
            return code
        finally:
            process.signal(signal.SIGKILL)
            for task in (*pumps, feeding):
                task.cancel()
            await asyncio.gather(*pumps, feeding, return_exceptions=True)


async def _pump(descriptor: int, write: Write) -> None:
    """Output to the client, in order; a terminal whose last process ended reads as EIO, which is an end too."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    file = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_READ_BYTES):
                await write(chunk)
    finally:
        transport.close()


async def _feed(descriptor: int, terminal: Terminal) -> None:
    """What the client types, until it closes its stdin."""
    loop = asyncio.get_running_loop()
    transport: Any
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(descriptor, "wb"))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        with contextlib.suppress(OSError):
            while data := await terminal.read():
                writer.write(data)
                await writer.drain()
    finally:
        transport.close()


def _close(descriptors: tuple[int, ...] | list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
