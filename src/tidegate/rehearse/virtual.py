"""The story's stage in virtual time: a whole lab, its load and its clock on one loop, replayed by a seed."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import msgspec

from tidegate import vtime
from tidegate.kube.api import Api
from tidegate.lab.config import Addon, LabConfig
from tidegate.lab.faults import Fault
from tidegate.lab.virtual import VirtualLab
from tidegate.rehearse import load
from tidegate.rehearse.loadspec import LoadSpec, Source, encode_spec
from tidegate.rehearse.settings import Settings
from tidegate.rehearse.stage import Entry, LoadProcess, RunningLoad, Tail
from tidegate.rehearse.story import rehearse
from tidegate.rehearse.verdict import Rehearsal

_decode_entry = msgspec.json.Decoder(dict).decode


class VirtualStage:
    """A ``Stage`` over a virtual lab that is up."""

    def __init__(self, lab: VirtualLab) -> None:
        self._lab = lab
        self._journal: Tail[Entry] = Tail(str(lab.journal_file), _decode_entry)

    @property
    def api(self) -> Api:
        return self._lab.api

    @property
    def sources(self) -> tuple[Source, ...]:
        config = self._lab.config
        names = enumerate(config.node_names, start=1)
        return tuple(Source(name, config.addressing.node(index)) for index, name in names)

    @property
    def scratch(self) -> str:
        return str(self._lab.scratch)

    def journal(self) -> Sequence[Entry]:
        return self._journal.read()

    async def start_load(self, spec: LoadSpec) -> RunningLoad:
        process = vtime.Process(load.main, vtime.Program(argv=("load", encode_spec(spec))), name="load")
        return LoadProcess(spec.output, lambda: process.signal(signal.SIGTERM), process.wait)

    async def fault(self, fault: Fault) -> None:
        self._lab.lab.faults.apply(fault)


def rehearse_virtually(settings: Settings, nodes: int = 3, addons: tuple[Addon, ...] = ()) -> Rehearsal:
    """Play the whole story in virtual time; the same settings (seed included) give the same ``digest``."""

    async def play() -> Rehearsal:
        async with VirtualLab(LabConfig(nodes=nodes, seed=settings.seed, addons=addons)) as lab:
            return await rehearse(VirtualStage(lab), settings)

    return vtime.run(play(), seed=settings.seed)
