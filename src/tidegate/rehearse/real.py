"""The story's stage in real time: a lab that runs beside us, a load process, the wall clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tidegate import vtime
from tidegate.kube.api import Api
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.lab.control import apply_fault, status_of
from tidegate.lab.faults import Fault
from tidegate.lab.folder import LabFolder, LabRecord
from tidegate.lab.runtime import processes
from tidegate.rehearse.loadspec import LoadSpec, Source, encode_spec
from tidegate.rehearse.stage import Entry, LoadProcess, RunningLoad, Tail

_decode_entry = msgspec.json.Decoder(dict).decode


class RealStage:
    """A ``Stage`` over a lab that is up."""

    def __init__(self, folder: LabFolder, nodes: Sequence[Mapping[str, str]], client: KubeClient) -> None:
        self._folder = folder
        self._nodes = nodes
        self._client = client
        self._journal: Tail[Entry] = Tail(str(folder.journal), _decode_entry)

    @property
    def api(self) -> Api:
        return self._client

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(Source(one["name"], one["address"], one["namespace"]) for one in self._nodes)

    @property
    def scratch(self) -> str:
        folder = Path(self._folder.path) / "rehearsal"
        folder.mkdir(exist_ok=True)
        return str(folder)

    def journal(self) -> Sequence[Entry]:
        return self._journal.read()

    async def start_load(self, spec: LoadSpec) -> RunningLoad:
        """The load in a process of its own: its clock must not wait for our table."""
        command = (sys.executable, "-m", "tidegate.rehearse.real", encode_spec(spec))
        environment = {**os.environ, **self._folder.marks}
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is ours to handle; it ends with us
        )
        return LoadProcess(spec.output, lambda: _terminate(process), process.wait)

    async def fault(self, fault: Fault) -> None:
        await apply_fault(self._client, fault)


@contextlib.asynccontextmanager
async def open_stage(folder: LabFolder, record: LabRecord) -> AsyncIterator[RealStage]:
    """The stage of a running lab."""
    async with open_api(record.server) as client:
        yield RealStage(folder, (await status_of(client))["nodes"], client)


def _terminate(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


def main() -> None:
    """The load process."""
    from tidegate.rehearse import load

    processes.die_with_parent(os.getppid())
    processes.raise_file_limit()

    program = vtime.Program(("load", *sys.argv[1:]))
    with asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
        sys.exit(runner.run(load.main(program)))


if __name__ == "__main__":
    main()
