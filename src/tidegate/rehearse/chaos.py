"""Rolling updates while everything around them breaks: proxies freeze, lag and die, agents, holders and the
coordinator are killed, somebody deletes the youngest pod. Seeded, in virtual time.

What is judged is honesty, not luck: a pod whose drain is ``verified`` has lost no request, whatever broke, and by the
kernels' own journal nothing was sent to it, or left open, when it was told to stop (``contradiction.py``). A killed
holder lets the kubelet go on at once (it is fail-open); such a pod is ``bypassed`` and may lose what it loses.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace

from tidegate import vtime
from tidegate.kube.api import PODS, Selection
from tidegate.lab.config import LabConfig
from tidegate.lab.faults import Fault, FaultKind
from tidegate.lab.virtual import VirtualLab
from tidegate.model.names import NO_RECORD, Ending
from tidegate.rehearse.addons import TIDEGATE
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.spectator import is_ready
from tidegate.rehearse.story import rehearse
from tidegate.rehearse.verdict import Run, digest
from tidegate.rehearse.virtual import VirtualStage

PAUSE_SECONDS = (0.1, 2.0)
"""Between two faults."""
FAULT_SECONDS = (0.5, 1.0, 3.0, 6.0)
PROXY_FAULTS: tuple[FaultKind, ...] = ("proxy-freeze", "proxy-lag", "proxy-kill", "proxy-restart", "clear")
ROW = Row("chaos", "gate")
LAB = LabConfig(addons=(TIDEGATE,))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed's rolling update."""

    seed: int
    run: Run
    digest: str
    faults: int

    @property
    def results(self) -> dict[str, int]:
        """How many drains ended how: of every pod that was told to stop, the young ones too."""
        counted: dict[str, int] = {}
        for track in self.run.timeline.tracks:
            if track.sigterm_at is not None:
                result = (track.seen.result or NO_RECORD).result.value
                counted[result] = counted.get(result, 0) + 1
        return counted

    @property
    def lost(self) -> int:
        return self.run.tally.dropped

    @property
    def false_verified(self) -> tuple[str, ...]:
        """Pods that are recorded as verified and lost a request: there must be none."""
        tracks = [track.seen for track in self.run.timeline.tracks if track.lost]
        return tuple(seen.name for seen in tracks if seen.result is not None and seen.result.result is Ending.VERIFIED)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """What the kernels' journal says against verified drains: there must be none."""
        return self.run.contradictions

    @property
    def unexplained(self) -> int:
        """Lost requests although every drain was verified: whoever they were meant for, there must be none."""
        return self.lost if set(self.results) == {Ending.VERIFIED.value} else 0


def play(seed: int, rate: float = 80.0, *, shuffle: bool = False, row: Row = ROW, lab: LabConfig = LAB) -> Outcome:
    """One rolling update under faults drawn from ``seed``; ``shuffle`` perturbs the schedule as well.

    ``lab`` is what is judged: a test hands in add-ons that are broken, and the judge must see it.
    """
    settings = replace(
        Settings(rows=(row,), seed=seed, requests_min=0, row_seconds_max=120.0),
        new_per_second=rate / 2,
        pool_per_second=rate / 2,
    )

    async def story() -> Outcome:
        rng = random.Random(f"{seed}/chaos")
        async with VirtualLab(replace(lab, seed=seed)) as virtual:
            breaking = _Breaking(virtual, rng)
            task = asyncio.get_running_loop().create_task(breaking.run())
            try:
                rehearsal = await rehearse(VirtualStage(virtual), settings)
            finally:
                task.cancel()
            return Outcome(seed, rehearsal.runs[0], digest(rehearsal), breaking.count)

    return vtime.run(story(), seed=seed, shuffle=shuffle)


class _Breaking:
    """Breaks something now and then."""

    def __init__(self, lab: VirtualLab, rng: random.Random) -> None:
        self._lab = lab
        self._rng = rng
        self.count = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(*PAUSE_SECONDS))
            node = self._rng.choice(self._lab.config.node_names)
            chance = self._rng.random()
            if chance < 0.25:
                self._kill(node)
            elif chance < 0.4:
                await self._delete_youngest()
            else:
                self._break_proxy(node)
            self.count += 1

    def _kill(self, node: str) -> None:
        agent = f"tidegate-agent-{node}"
        self._lab.kill(self._rng.choice((f"{agent}/agent", f"{agent}/holder", "tidegate-coordinator/coordinator")))

    async def _delete_youngest(self) -> None:
        """The trap of rule absence: a node that lags shows no route to it, because the addition is still on its way."""
        pods = (await self._lab.api.list(PODS, Selection(ROW.namespace))).items
        ready = [pod["metadata"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
        if len(ready) > 1:
            name = max(ready, key=lambda one: (one["creationTimestamp"], one["name"]))["name"]
            await self._lab.api.delete(PODS, name, ROW.namespace)

    def _break_proxy(self, node: str) -> None:
        kind = self._rng.choice(PROXY_FAULTS)
        self._lab.lab.faults.apply(Fault(kind, node, self._rng.choice(FAULT_SECONDS)))
