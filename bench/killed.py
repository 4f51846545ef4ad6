"""A node agent killed in a hold: the holder sleeps on, losses are no worse than `sleep-15`'s, never a false `verified`.

The demo's story once as ``sleep-15`` and once with the gate; in the second, the agent of the node whose pod is asked
first gets SIGKILL while the kubelet's preStop call is held. The kubelet restarts the agent; what it held is bypassed.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

from bench.figures import Figure, at_least, at_most, counted, holds
from bench.playing import Cue, play
from tidegate.model.names import Ending
from tidegate.rehearse.settings import ROWS, Row, Settings
from tidegate.rehearse.verdict import EXIT_UNVERIFIED, Run, judge

AFTER_SECONDS = 0.2
"""Into the hold: a drain takes about a second, so it is under way."""
FALLBACK_SECONDS = 15.0
SLEEP = next(row for row in ROWS if row.name == "sleep-15")
KILLED = Row("killed", "gate")


@dataclass(slots=True)
class Killing:
    """What was killed, and whose holds died with it."""

    node: str = ""
    agent: int = 0
    pods: tuple[str, ...] = ()


async def kill(cue: Cue, killing: Killing) -> None:
    """SIGKILL the agent on the node of the first hook of the row, a moment after that hook began."""
    await cue.phase(KILLED, "updating")
    births = cue.births(KILLED.namespace)
    asked = await cue.event(lambda entry: entry["event"] == "hook-started" and entry["uid"] in births)
    killing.node = str(births[asked["uid"]]["node"])
    killing.agent = cue.newest("agent", killing.node)
    await asyncio.sleep(AFTER_SECONDS)
    killing.pods = tuple(pod for pod, node in open_holds(cue).items() if node == killing.node)
    os.kill(killing.agent, signal.SIGKILL)


def open_holds(cue: Cue) -> dict[str, str]:
    """Pods of the row whose hook has begun and not ended, and their nodes."""
    births = cue.births(KILLED.namespace)
    held: dict[str, str] = {}
    for entry in cue.stage.journal():
        if entry.get("uid") in births and entry["event"] == "hook-started":
            held[str(entry["pod"])] = str(births[entry["uid"]]["node"])
        elif entry["event"] == "hook-ended":
            held.pop(str(entry["pod"]), None)
    return held


def judged(killing: Killing, sleep: Run, run: Run, exit_code: int) -> list[Figure]:
    ended = {drain.pod: drain for drain in run.drains}
    dead = [ended[name] for name in killing.pods]
    waits = {track.seen.name: track.drain_seconds for track in run.timeline.old}
    shortest = min((waits[name] or 0.0 for name in killing.pods), default=0.0)
    against = f"of {run.tally.requests}; sleep-15 beside"
    others = [drain for name, drain in ended.items() if name not in killing.pods]
    return [
        holds("both runs are valid", not sleep.invalid and not run.invalid, sleep.invalid or run.invalid),
        at_least("holds open when the agent was killed", len(dead), "", 1, f"agent of {killing.node}"),
        at_least("DELETE -> SIGTERM of a pod whose hold died", shortest, "s", FALLBACK_SECONDS - 0.1),
        at_most("dropped", run.tally.dropped, "requests", sleep.tally.dropped, against),
        holds(
            "each of these drains is bypassed",
            bool(dead) and all(drain.result == Ending.BYPASSED.value for drain in dead),
            "; ".join(f"{drain.result}: {drain.reason}" for drain in dead),
        ),
        Figure("drains of the other pods", len(others), "", note=counted([drain.result for drain in others])),
        holds("exit code 4", exit_code == EXIT_UNVERIFIED, f"it was {exit_code}"),
        Figure("rollout", run.timeline.rollout_seconds or 0.0, "s"),
        Figure("rollout of sleep-15", sleep.timeline.rollout_seconds or 0.0, "s"),
    ]


def run() -> list[Figure]:
    killing = Killing()

    async def beside(cue: Cue) -> None:
        await kill(cue, killing)

    rehearsal = play("bench-killed", Settings(rows=(SLEEP, KILLED)), beside)
    sleep, killed = rehearsal.runs
    return judged(killing, sleep, killed, judge(rehearsal).exit_code)
