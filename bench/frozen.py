"""A frozen proxy: the drain waits for the node, names it, and never calls unproven proven.

The demo's story with one node's proxy frozen for 20 s from just before the update. With a grace period of 60 s every
drain waits the 20 s out and is verified; with 30 s (18 s for the gate: 10 s are the app's, 2 s the kubelet's) it ends
``timed-out``. What an exit at the deadline loses is counted, not judged: the frozen kernel still routes to the pod.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Figure, at_least, at_most, counted, holds
from bench.ground import RESULTS, tidegate
from bench.playing import Cue, play
from tidegate.model.names import Ending
from tidegate.rehearse.manifests import NAME
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.timeline import PodTrack
from tidegate.rehearse.verdict import Run

FREEZE_SECONDS = 20.0
LOOK_AFTER_SECONDS = 8.0
FROZEN_NODE = "node-3"
"""The story puts its faults on the last node."""
PATIENT = Row("frozen-60", "gate", freeze_seconds=FREEZE_SECONDS, grace_seconds=60)
HURRIED = Row("frozen-30", "gate", freeze_seconds=FREEZE_SECONDS, grace_seconds=30)


@dataclass(slots=True)
class Looked:
    """What ``tidegate status`` said while a drain waited."""

    text: str = ""
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def stragglers(self) -> set[str]:
        """The nodes that any drain was waiting for."""
        return {one["node"] for drain in self.document.get("drains", ()) for one in drain["stragglers"]}


async def look(cue: Cue, row: Row, looked: Looked) -> None:
    """Ask for the status a while after the update began, as a user would."""
    await cue.phase(row, "updating")
    await asyncio.sleep(LOOK_AFTER_SECONDS)
    asked = ("status", f"svc/{NAME}", "-n", row.namespace, "--kubeconfig", str(cue.lab.folder.kubeconfig))
    looked.text = (await asyncio.to_thread(tidegate, *asked)).stdout
    looked.document = json.loads((await asyncio.to_thread(tidegate, *asked, "-o", "json")).stdout)


def within_freeze(run: Run) -> tuple[PodTrack, ...]:
    """Old pods that got their SIGTERM while the proxy still stood."""
    thaws_at = run.timeline.update.patched_at + FREEZE_SECONDS
    return tuple(track for track in run.timeline.old if track.sigterm_at is not None and track.sigterm_at < thaws_at)


def longest_wait(run: Run) -> float:
    return max(run.timeline.drain_seconds, default=0.0)


def patient(run: Run, looked: Looked) -> list[Figure]:
    """Grace 60: waited, named, lost nothing, verified."""
    results = [drain.result for drain in run.drains]
    words = ", ".join(sorted(looked.stragglers)) or "nobody"
    return [
        holds("grace 60: the run is valid", not run.invalid, run.invalid),
        at_least("grace 60: longest drain", longest_wait(run), "s", FREEZE_SECONDS - 2.0, "the freeze is 20 s"),
        holds("grace 60: no pod ended while the node stood", not within_freeze(run)),
        holds(
            "grace 60: `tidegate status` names the node, and only it",
            looked.stragglers == {FROZEN_NODE},
            f"it named {words}",
        ),
        at_most("grace 60: dropped", run.tally.dropped, "requests", 0, f"of {run.tally.requests}"),
        holds("grace 60: every drain verified", set(results) == {"verified"}, counted(results)),
    ]


def hurried(run: Run, looked: Looked) -> list[Figure]:
    """Grace 30: timed out, the node named, nothing called verified that was not."""
    ended = {drain.pod: drain for drain in run.drains}
    early = [ended[track.seen.name] for track in within_freeze(run)]
    late = [drain for name, drain in ended.items() if name not in {one.pod for one in early}]
    timed_out = [drain for drain in run.drains if drain.result == Ending.TIMED_OUT.value]
    named = all(drain.stragglers == (FROZEN_NODE,) for drain in timed_out)
    after = f"; after the thaw {counted([drain.result for drain in late])}" if late else ""
    note = f"{len(timed_out)} of {len(ended)}{after}"
    return [
        holds("grace 30: drains timed out", bool(timed_out), note),
        holds("grace 30: each of them names the node, and only it", bool(timed_out) and named),
        holds(
            "grace 30: none that ended while the node stood is verified",
            bool(early) and all(drain.result == Ending.TIMED_OUT.value for drain in early),
            counted([drain.result for drain in early]),
        ),
        holds("grace 30: `tidegate status` names the node, and only it", looked.stragglers == {FROZEN_NODE}),
        Figure("grace 30: dropped", run.tally.dropped, "requests", note=f"of {run.tally.requests}"),
    ]


def run() -> list[Figure]:
    seen = {PATIENT: Looked(), HURRIED: Looked()}

    async def beside(cue: Cue) -> None:
        for row, looked in seen.items():
            await look(cue, row, looked)

    rehearsal = play("bench-frozen", Settings(rows=(PATIENT, HURRIED)), beside)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "frozen-status.txt").write_text(seen[PATIENT].text)
    patient_run, hurried_run = rehearsal.runs
    return patient(patient_run, seen[PATIENT]) + hurried(hurried_run, seen[HURRIED])
