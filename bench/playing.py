"""The demo's story in a lab of the benchmark's own, with something going on beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.ground import BenchLab, lab
from tidegate import vtime
from tidegate.rehearse.real import RealStage, open_stage
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.stage import Entry
from tidegate.rehearse.story import Phase, Progress, rehearse
from tidegate.rehearse.verdict import Rehearsal

POLL_SECONDS = 0.02


@dataclass(slots=True)
class Cue:
    """Where the story is, for whoever acts beside it."""

    stage: RealStage
    lab: BenchLab
    at: dict[str, Phase] = field(default_factory=dict)

    def take(self, step: Progress) -> None:
        self.at[step.row.name] = step.phase

    async def phase(self, row: Row, phase: Phase) -> None:
        """Until the row has come to a phase."""
        while self.at.get(row.name) != phase:
            await asyncio.sleep(POLL_SECONDS)

    async def event(self, wanted: Callable[[Entry], bool]) -> Entry:
        """The lab's first journal entry that answers the description."""
        looked = 0
        while True:
            entries = self.stage.journal()
            for entry in entries[looked:]:
                if wanted(entry):
                    return entry
            looked = len(entries)
            await asyncio.sleep(POLL_SECONDS)

    def births(self, namespace: str) -> dict[str, Entry]:
        """Where each pod of a namespace runs, by uid: the entry of its first process."""
        found: dict[str, Entry] = {}
        for entry in self.stage.journal():
            if entry["event"] == "process-started" and entry["namespace"] == namespace:
                found.setdefault(entry["uid"], entry)
        return found

    def newest(self, container: str, node: str) -> int:
        """The pid of the newest process of a container on a node. Raises ``LookupError``."""
        for entry in reversed(self.stage.journal()):
            if entry["event"] == "process-started" and (entry["container"], entry["node"]) == (container, node):
                return int(entry["pid"])
        raise LookupError(f"no {container} process runs on {node}")


Beside = Callable[[Cue], Awaitable[None]]


async def _nothing(cue: Cue) -> None:
    del cue


def play(name: str, settings: Settings, beside: Beside = _nothing) -> Rehearsal:
    """Boot a lab, play the rows, take it down. ``beside`` runs meanwhile; what it raises, this raises."""

    async def act(one: BenchLab) -> Rehearsal:
        async with open_stage(one.folder, one.record) as stage:
            cue = Cue(stage, one)
            acting = asyncio.ensure_future(beside(cue))
            try:
                rehearsal = await rehearse(stage, settings, cue.take)
                if acting.done():
                    acting.result()
                return rehearsal
            finally:
                acting.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await acting

    with lab(name, "--seed", str(settings.seed)) as one, asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
        return runner.run(act(one))
