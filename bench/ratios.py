"""Tidegate against `sleep 15`: rollout, excess pod-seconds and drain latency over many runs, ratios within each.

Every run is a fresh lab with a seed of its own and the demo's two rows. The issue asks for a rollout at least four
times as fast and at most a fifth of the excess pod-seconds in 9 of 10 runs, with nothing lost and every drain verified.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Figure, at_least, at_most, percentile
from bench.ground import load
from bench.playing import play
from tidegate.rehearse.settings import ROWS, Settings
from tidegate.rehearse.verdict import Rehearsal

SPEEDUP_MIN, EXCESS_MAX, SHARE_MIN = 4.0, 0.2, 0.9
OVERHEAD_SECONDS_MAX = 0.25
"""From a drain's physical floor (tables and connections, from the lab's own log) to its SIGTERM, p50."""
PAIR = tuple(row for row in ROWS if row.name in ("sleep-15", "tidegate"))


@dataclass(frozen=True, slots=True)
class Ratio:
    """One run: Tidegate beside sleep-15."""

    sleep_seconds: float
    gate_seconds: float
    sleep_excess: float
    gate_excess: float
    dropped: int
    verified: bool
    overheads: tuple[float, ...]
    invalid: str = ""

    @property
    def speedup(self) -> float:
        """How many times as fast; 0 for a run that did not end."""
        return self.sleep_seconds / self.gate_seconds if self.gate_seconds else 0.0

    @property
    def excess_share(self) -> float:
        """Tidegate's excess pod-seconds as a share of sleep-15's."""
        return self.gate_excess / self.sleep_excess if self.sleep_excess else 1.0

    @property
    def is_won(self) -> bool:
        """Did this run reach everything that is asked of one?"""
        fast = self.speedup >= SPEEDUP_MIN and self.excess_share <= EXCESS_MAX
        return fast and not self.dropped and self.verified and not self.invalid


def ratio_of(rehearsal: Rehearsal) -> Ratio:
    sleep, gate = rehearsal.runs
    return Ratio(
        sleep_seconds=sleep.timeline.rollout_seconds or 0.0,
        gate_seconds=gate.timeline.rollout_seconds or 0.0,
        sleep_excess=sleep.timeline.excess_pod_seconds,
        gate_excess=gate.timeline.excess_pod_seconds,
        dropped=gate.tally.dropped,
        verified=bool(gate.drains) and all(drain.result == "verified" for drain in gate.drains),
        overheads=gate.timeline.overheads,
        invalid=sleep.invalid or gate.invalid,
    )


def line(number: int, one: Ratio) -> str:
    """One run in one line, for whoever watches."""
    return (
        f"  run {number}: sleep-15 {one.sleep_seconds:.1f} s, {one.sleep_excess:.1f} pod-s; "
        f"tidegate {one.gate_seconds:.2f} s, {one.gate_excess:.1f} pod-s; "
        f"{one.speedup:.2f} times as fast, 1/{1 / one.excess_share if one.excess_share else 0:.1f} of the excess, "
        f"dropped {one.dropped}{'' if one.verified else ', NOT ALL VERIFIED'}"
        f"{f', INVALID: {one.invalid}' if one.invalid else ''} (load {load()})"
    )


def summary(ratios: list[Ratio]) -> list[Figure]:
    """The runs together."""
    won = sum(one.is_won for one in ratios)
    speedups = [one.speedup for one in ratios]
    shares = [one.excess_share for one in ratios]
    overheads = [seconds for one in ratios for seconds in one.overheads]
    count = f"of {len(ratios)}"
    return [
        at_least("runs that reach all of it", won, count, SHARE_MIN * len(ratios)),
        Figure("rollout, times as fast, p50", percentile(speedups, 0.5), "", f">= {SPEEDUP_MIN:g}"),
        Figure("rollout, times as fast, worst", min(speedups), ""),
        Figure("share of the excess pod-seconds, p50", percentile(shares, 0.5), "", f"<= {EXCESS_MAX:g}"),
        Figure("share of the excess pod-seconds, worst", max(shares), ""),
        Figure("tidegate rollout, p50", percentile([one.gate_seconds for one in ratios], 0.5), "s"),
        Figure("sleep-15 rollout, p50", percentile([one.sleep_seconds for one in ratios], 0.5), "s"),
        at_most("requests dropped by tidegate, all runs", sum(one.dropped for one in ratios), "", 0),
        at_most("runs with a drain not verified", sum(not one.verified for one in ratios), "", 0),
        at_most("drain beyond its floor, p50", percentile(overheads, 0.5), "s", OVERHEAD_SECONDS_MAX),
        Figure("drain beyond its floor, p90", percentile(overheads, 0.9), "s", note=f"{len(overheads)} drains"),
    ]


def run(runs: int = 10) -> list[Figure]:
    ratios = []
    for number in range(1, runs + 1):
        one = ratio_of(play("bench-ratios", Settings(rows=PAIR, seed=number)))
        print(line(number, one), flush=True)
        ratios.append(one)
    return summary(ratios)
