"""Containers as OS processes of this machine, each in a session of its own, forked by a preloaded zygote."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import datetime
from functools import partial

from tidegate import vtime
from tidegate.lab.runtime import processes
from tidegate.lab.runtime.logs import ContainerLog, LogBook
from tidegate.lab.runtime.spawner import Birth, Child, Spawner
from tidegate.lab.runtime.spec import ContainerSpec, Streams
from tidegate.lab.runtime.streams import PipeReader, pipe_ends, pumping, terminal_ends
from tidegate.lab.runtime.zygote import CONTAINER_MARK

_OUTPUT_GRACE_SECONDS = 0.5
"""How long the output of an ended container may trail its exit: pipes are read by the same loop, later."""

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", processes.STATE_MARK)


class RealProcess:
    """A container that runs as an OS process."""

    def __init__(self, spawner: Spawner, child: Child, started_at: datetime) -> None:
        self._spawner = spawner
        self._child = child
        self.pid = child.pid
        self.started_at = started_at

    async def wait(self) -> int:
        """The exit code; known before the last output has been read."""
        return await asyncio.shield(self._child.exit)

    def signal(self, number: int) -> None:
        """To the first process only; what it leaves behind is killed when it ends."""
        self._spawner.signal(self._child, number)


class RealRuntime:
    """``Runtime`` over a zygote. ``modules`` are loaded before the first fork."""

    def __init__(self, lab: str, modules: tuple[str, ...] = (), book: LogBook | None = None) -> None:
        self.book = book or LogBook()
        self._spawner = Spawner(lab, modules)
        self._lab = lab
        self._tasks: dict[asyncio.Task[None], None] = {}

    @property
    def zygote_pid(self) -> int:
        """0 when none runs."""
        return self._spawner.pid

    def open(self) -> None:
        """Start the zygote now, so that the first container does not wait for it."""
        self._spawner.launch()

    async def close(self) -> None:
        """End every container."""
        await self._spawner.close()
        for task in list(self._tasks):
            task.cancel()

    def _environment(self, spec: ContainerSpec, beside: str = "") -> dict[str, str]:
        machine = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        marks = {processes.MARK: self._lab, CONTAINER_MARK: spec.identity + beside}
        return {**machine, **spec.env, **marks}

    def _beside(self, spec: ContainerSpec, command: tuple[str, ...]) -> Birth:
        environment = self._environment(spec, "/exec")
        return Birth(command, environment, "exec", cwd=spec.working_directory, network=spec.network)

    async def start(self, spec: ContainerSpec) -> RealProcess:
        """Raises ``StartError``; then nothing was started and no log exists."""
        readers, writers = zip(*(os.pipe2(os.O_CLOEXEC) for _ in range(2)), strict=True)
        birth = Birth(
            spec.argv, self._environment(spec), spec.container, spec.entrypoint, spec.working_directory, spec.network
        )
        try:
            child = await self._spawner.start(birth, list(writers))
        except BaseException:
            _close(readers)
            raise
        finally:
            _close(writers)
        started_at = vtime.now()
        log = self.book.open(spec)
        pipes = [
            PipeReader(reader, partial(log.write, stream))
            for stream, reader in zip(("stdout", "stderr"), readers, strict=True)
        ]
        task = asyncio.get_running_loop().create_task(_close_log(child, pipes, log))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return RealProcess(self._spawner, child, started_at)

    async def run(
        self, spec: ContainerSpec, command: tuple[str, ...], timeout_seconds: float | None = None
    ) -> tuple[int, bytes]:
        """Run a command to its end; it is killed when the time is up or the caller is cancelled."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        birth = self._beside(spec, command)
        try:
            child = await self._spawner.start(birth, [writer, writer])
        except BaseException:
            _close((reader,))
            raise
        finally:
            _close((writer,))
        chunks: list[bytes] = []
        output = PipeReader(reader, chunks.append)
        try:
            async with asyncio.timeout(timeout_seconds):
                code = await asyncio.shield(child.exit)
                await _settled([output.ended])
                return code, b"".join(chunks)
        finally:
            self._spawner.signal(child, signal.SIGKILL)
            output.close()

    async def converse(self, spec: ContainerSpec, command: tuple[str, ...], streams: Streams) -> int:
        """Run a command with live streams, on a terminal of its own if asked."""
        ends = terminal_ends() if streams.is_tty else pipe_ends()
        birth = self._beside(spec, command)
        try:
            child = await self._spawner.start(birth, list(ends.theirs))
        except BaseException:
            _close(ends.ours)
            raise
        finally:
            _close(ends.theirs)
        try:
            async with pumping(ends, streams) as drained:
                code = await asyncio.shield(child.exit)
                await asyncio.wait(drained, timeout=_OUTPUT_GRACE_SECONDS)
                return code
        finally:
            self._spawner.signal(child, signal.SIGKILL)


async def _settled(futures: list[asyncio.Future[None]]) -> None:
    await asyncio.wait(futures, timeout=_OUTPUT_GRACE_SECONDS)


async def _close_log(child: Child, pipes: list[PipeReader], log: ContainerLog) -> None:
    await asyncio.shield(child.exit)
    await _settled([pipe.ended for pipe in pipes])
    log.close()


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
