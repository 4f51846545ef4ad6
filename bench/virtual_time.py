"""Virtual time: a rolling update of 100 pods on 50 nodes, one at a time, in CPU seconds.

The gate in every pod, agents on every node, kubelets, proxies, kernels and all controllers on one virtual loop; a
readiness period of 5 s makes the update last over eight minutes. A trickle of requests goes on meanwhile. The design
asks for 10 CPU seconds; that is not reached yet (docs/evidence.md).
"""

from __future__ import annotations

import time

from bench.figures import Figure, at_most, holds
from tidegate.rehearse.addons import TIDEGATE
from tidegate.rehearse.settings import ROWS, Settings
from tidegate.rehearse.virtual import rehearse_virtually

NODES, REPLICAS = 50, 100
SETTINGS = Settings(
    rows=tuple(row for row in ROWS if row.name == "tidegate"),
    replicas=REPLICAS,
    max_surge=1,
    max_unavailable=0,
    probe_seconds=5,
    new_per_second=5.0,
    pool_per_second=5.0,
    requests_min=0,
    row_seconds_max=3_600.0,
)


def run() -> list[Figure]:
    begun = time.process_time()
    rehearsal = rehearse_virtually(SETTINGS, nodes=NODES, addons=(TIDEGATE,))
    spent = time.process_time() - begun
    played = rehearsal.runs[0]
    rollout = played.timeline.rollout_seconds or 0.0
    results = sorted({drain.result for drain in played.drains})
    span = played.timeline.update.ended_at - played.timeline.update.started_at
    note = f"a rollout of {rollout:.0f} virtual seconds; the design asks for 10"
    return [
        Figure(f"{REPLICAS} pods on {NODES} nodes", spent, "CPU s", note=note),
        Figure("virtual seconds per CPU second", span / spent, ""),
        at_most("dropped", played.tally.dropped, "requests", 0, f"of {played.tally.requests}"),
        holds("every drain verified", results == ["verified"], f"{len(played.drains)} drains: {', '.join(results)}"),
    ]
