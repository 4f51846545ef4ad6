"""The story's stage in a real lab: OS processes, real sockets, the wall clock."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import msgspec

from tidegate.kube import wire
from tidegate.kube.api import Api
from tidegate.lab.boot import RunningLab
from tidegate.lab.config import Addressing
from tidegate.lab.control import FAULTS_PATH
from tidegate.lab.faults import Fault
from tidegate.lab.folder import LabError
from tidegate.lab.runtime.processes import MARK
from tidegate.rehearse.loadspec import LoadSpec, Source, encode_spec
from tidegate.rehearse.stage import Entry, LoadProcess, RunningLoad, Tail

_decode_entry = msgspec.json.Decoder(dict).decode


class RealStage:
    """A ``Stage`` over a lab that this process has started. ``close`` ends the loads it started."""

    def __init__(self, lab: RunningLab, api: Api) -> None:
        record = lab.record
        self._api = api
        self._folder = lab.folder
        self._addressing = Addressing(record.block, int(record.server.rpartition(":")[2]))
        self._nodes = record.nodes
        self._journal: Tail[Entry] = Tail(str(lab.folder.journal), _decode_entry)
        self._loads: list[asyncio.subprocess.Process] = []

    @property
    def api(self) -> Api:
        return self._api

    @property
    def sources(self) -> tuple[Source, ...]:
        indices = range(1, self._nodes + 1)
        return tuple(Source(f"node-{index}", self._addressing.node(index)) for index in indices)

    @property
    def scratch(self) -> str:
        return str(self._folder.path)

    def journal(self) -> Sequence[Entry]:
        return self._journal.read()

    async def start_load(self, spec: LoadSpec) -> RunningLoad:
        """The load is a process of its own: a busy judge must not make it late."""
        environment = {**os.environ, MARK: self._folder.name}
        command = (sys.executable, "-m", "tidegate.rehearse.load", encode_spec(spec))
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=asyncio.subprocess.DEVNULL)
        self._loads.append(process)

        def terminate() -> None:
            if process.returncode is None:
                process.terminate()

        return LoadProcess(spec.output, terminate, process.wait)

    async def fault(self, fault: Fault) -> None:
        """Ask the lab for a fault. Raises ``LabError``."""
        body = msgspec.json.encode({"kind": fault.kind, "node": fault.node, "seconds": fault.seconds})
        host, port = self._addressing.api_host, self._addressing.api_port
        status, _, answer = await wire.fetch("POST", host, port, FAULTS_PATH, body=body, timeout=5.0)
        if status != 200:
            raise LabError(f"the lab refused {fault.kind} on {fault.node}: {answer.decode(errors='replace')}")

    async def close(self) -> None:
        """Kill every load that still runs."""
        for process in self._loads:
            if process.returncode is None:
                process.kill()
                await process.wait()
