"""Other rollouts than the demo's: surge 1 and unavailable 0, and a readiness period of 10 s.

No targets: the demo's ratios hold for fast rollouts. Where pods are replaced one by one, or Ready takes 10 s to be
seen, the rollout is mostly the waiting for new pods, which no drain can shorten.
"""

from __future__ import annotations

from dataclasses import replace

from bench.figures import Figure
from bench.playing import play
from tidegate.rehearse.settings import ROWS, Settings
from tidegate.rehearse.verdict import Run

THREE = tuple(row for row in ROWS if row.name in ("plain", "sleep-15", "tidegate"))
USUAL = Settings(rows=THREE)
VARIANTS = (
    ("surge 1, unavailable 0", replace(USUAL, max_surge=1, max_unavailable=0)),
    ("readiness period 10 s", replace(USUAL, probe_seconds=10)),
)


def figures_of(variant: str, run: Run) -> list[Figure]:
    line, name = run.timeline, run.row.name
    results = ", ".join(sorted({drain.result for drain in run.drains}))
    note = (
        f"excess {line.excess_pod_seconds:.1f} pod-s, drain p50 {line.drain_p50:.2f} s, {results} {run.invalid}".strip()
    )
    dropped = f"of {run.tally.requests}"
    return [
        Figure(f"{variant}: {name}: rollout", line.rollout_seconds or 0.0, "s", note=note),
        Figure(f"{variant}: {name}: dropped", run.tally.dropped, "", note=dropped),
    ]


def run() -> list[Figure]:
    found: list[Figure] = []
    for variant, settings in VARIANTS:
        for one in play("bench-variants", settings).runs:
            found += figures_of(variant, one)
    return found
