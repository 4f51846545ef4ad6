"""Containers as modelled processes on a ``VirtualLoop``: the same entry points, no machine."""

from __future__ import annotations

import asyncio
import random
import signal
from datetime import datetime

from tidegate import vtime
from tidegate.lab.runtime.logs import ContainerLog, LogBook
from tidegate.lab.runtime.modelled import model
from tidegate.lab.runtime.spec import ContainerSpec, Streams

START_SECONDS_MIN = 0.004
START_SECONDS_MAX = 0.020
"""What a fork of the zygote takes on the real runtime (measured: p50 4 ms on 2 cores, more under load)."""


class VirtualProcess:
    """A container that runs as a modelled process."""

    def __init__(self, process: vtime.Process, log: ContainerLog) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid
        self.started_at: datetime = vtime.now()

    async def wait(self) -> int:
        code = await self._process.wait()
        self._log.close()
        return code

    def signal(self, number: int) -> None:
        self._process.signal(number)


class VirtualRuntime:
    """``Runtime`` on the running virtual loop. ``seed`` decides how long starting takes."""

    def __init__(self, seed: int = 0, book: LogBook | None = None) -> None:
        self.book = book or LogBook()
        self._rng = random.Random(f"{seed}/runtime")
        self._processes: dict[vtime.Process, None] = {}

    async def start(self, spec: ContainerSpec) -> VirtualProcess:
        await asyncio.sleep(self._rng.uniform(START_SECONDS_MIN, START_SECONDS_MAX))
        log = self.book.open(spec)
        main = vtime.entrypoint(spec.entrypoint) if spec.entrypoint else model(spec.argv)
        argv = spec.argv if spec.entrypoint else spec.argv[1:]
        program = vtime.Program(argv, dict(spec.env), lambda line: log.write("stdout", line.encode() + b"\n"))
        process = self._begin(main, program, f"{spec.pod}/{spec.container}")
        return VirtualProcess(process, log)

    async def run(
        self, spec: ContainerSpec, command: tuple[str, ...], timeout_seconds: float | None = None
    ) -> tuple[int, bytes]:
        lines: list[str] = []
        program = vtime.Program(command[1:], dict(spec.env), lines.append)
        process = self._begin(model(command), program, f"exec in {spec.pod}/{spec.container}")
        try:
            async with asyncio.timeout(timeout_seconds):
                code = await process.wait()
        finally:
            process.signal(signal.SIGKILL)
        return code, "".join(f"{line}\n" for line in lines).encode()

    async def converse(self, spec: ContainerSpec, command: tuple[str, ...], streams: Streams) -> int:
        """Modelled commands read nothing; what they say comes at their end."""
        code, output = await self.run(spec, command)
        await streams.write(output)
        return code

    def kill(self, container: str) -> bool:
        """SIGKILL a container named ``pod/container``, as a fault; whether one was alive."""
        alive = [process for process in self._processes if process.alive and process.name == container]
        for process in alive:
            process.signal(signal.SIGKILL)
        return bool(alive)

    def close(self) -> None:
        """Kill every container: the machine is gone."""
        for process in list(self._processes):
            process.signal(signal.SIGKILL)

    def _begin(self, main: vtime.Entrypoint, program: vtime.Program, name: str) -> vtime.Process:
        for process in [process for process in self._processes if not process.alive]:
            del self._processes[process]
        process = vtime.Process(main, program, name)
        self._processes[process] = None
        return process
