"""A whole lab on a virtual loop: the same parts, modelled processes, virtual time.

async def story():
    async with VirtualLab(LabConfig(seed=7)) as lab:
        await lab.api.create(...)

vtime.run(story(), seed=7)
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.api import Api
from tidegate.kube.exchange import Exchange
from tidegate.lab.assembly import Ground, Lab
from tidegate.lab.config import LabConfig
from tidegate.lab.journal import Journal, read
from tidegate.lab.kernel.process import main as kernel_main
from tidegate.lab.runtime.logs import LogBook
from tidegate.lab.runtime.virtual import VirtualRuntime


class VirtualLab:
    """``async with`` it on a ``VirtualLoop``. Ends everything on leaving."""

    def __init__(self, config: LabConfig) -> None:
        self.config = config
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-virtual-"))
        self.log_lines: list[str] = []
        """The lab's own log."""
        self.lab: Lab
        self._runtime: VirtualRuntime
        self.kernel: vtime.Process
        self.control_plane: vtime.Process

    @property
    def api(self) -> Api:
        return self.lab.api

    @property
    def journal_file(self) -> Path:
        return self._folder / "journal.jsonl"

    @property
    def scratch(self) -> Path:
        """A real folder for what processes of this lab write."""
        return self._folder

    def register_token(self, name: str, rules: Sequence[str], namespace: str = "") -> str:
        """A token for who may do what ``rules`` say and nothing else (``Lab.register_token``)."""
        return self.lab.register_token(name, rules, namespace)

    def exchange_as(self, token: str) -> Exchange:
        """The API as the holder of ``token`` has it."""
        return self.lab.exchange_as(token)

    def kill(self, container: str) -> bool:
        """SIGKILL a container named ``pod/container``; whether one was alive."""
        return self._runtime.kill(container)

    def journal(self) -> list[dict[str, object]]:
        """Everything journaled so far, the kernel's entries included, in the order it happened."""
        return read(self.journal_file)

    async def __aenter__(self) -> Self:
        env = {
            "TIDEGATE_KERNEL_DIR": str(self._folder),
            "TIDEGATE_KERNEL_JOURNAL": str(self.journal_file),
            "TIDEGATE_SEED": str(self.config.seed),
        }
        self.kernel = vtime.Process(kernel_main, vtime.Program(env=env), "kernel")
        up = asyncio.Event()
        self.control_plane = vtime.Process(lambda program: self._run(program, up), vtime.Program(), "lab")
        while not up.is_set() and self.control_plane.alive:
            await asyncio.sleep(0.001)
        if self.control_plane.error is not None:
            raise self.control_plane.error
        return self

    async def _run(self, program: vtime.Program, up: asyncio.Event) -> int:
        del program
        with contextlib.closing(Journal(self.journal_file)) as journal:
            await self._run_with(journal, up)
        return 0

    async def _run_with(self, journal: Journal, up: asyncio.Event) -> None:
        book = LogBook()
        process = self.control_plane
        self._runtime = VirtualRuntime(self.config.seed, book)
        log = self.log_lines.append
        ground = Ground(self._runtime, book, journal, self._folder, self._folder, process.pid, log=log)
        self.lab = Lab(self.config, ground)
        await self.lab.network.ready()
        addressing = self.config.addressing
        vtime.hosted()[addressing.server] = self.lab.exchange
        await wire.serve(self.lab.exchange, addressing.api_host, addressing.api_port)
        async with vtime.Nursery() as nursery:
            running = nursery.start(self.lab.run(), name="lab")
            await self.lab.ready.wait()
            up.set()
            await running

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control_plane.end(0)
        self.kernel.end(0)
        vtime.hosted().pop(self.config.addressing.server, None)
        shutil.rmtree(self._folder, ignore_errors=True)
        failure = self.control_plane.error
        if failure is not None and error is None:
            raise failure
