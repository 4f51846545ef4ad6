"""Node agent: what it costs on a real kernel with 10,000 Services of five endpoints and 50,000 tracked connections.

Each kind of rules is loaded into a network namespace of its own, into the kernel of this machine; the agent's reader is
the one process that is measured there, with all that an agent imports. A question is timed from the commit on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from bench.figures import Figure, at_most, percentile

MIB_MAX, IDLE_MAX, MS_MAX = 64.0, 5.0, 200.0
INSIDE_SECONDS = 235


def run(*kinds: str) -> list[Figure]:
    """All four lines of the budget, for each of these kinds of rules (``bench.node_rules.KINDS``)."""
    figures = []
    for kind in kinds:
        command = ["unshare", "--net", sys.executable, "-m", "bench.node_agent_inside", kind]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=INSIDE_SECONDS, check=False)
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        found = json.loads(ran.stdout.splitlines()[-1])
        figures += _figures(kind, found)
    return figures


def _figures(kind: str, found: Any) -> list[Figure]:
    load = f"load {os.getloadavg()[0]:.1f}"

    def question(name: str, which: str) -> Figure:
        taken, cpu = found[which], found[f"{which}_cpu"]
        note = f"p50 {percentile(taken, 0.5):.0f} ms, CPU of it {percentile(cpu, 0.5):.0f} ms; {load}"
        return at_most(f"{kind}: {name}, p99 of {len(taken)}", percentile(taken, 0.99), "ms", MS_MAX, note)

    one = {name: float(found[name]) for name in ("first", "first_cpu", "open", "idle", "rss", "peak")}
    return [
        Figure(f"{kind}: everything read for the first time", one["first"], "s", note=f"{one['first_cpu']:.1f} s CPU"),
        question("one Service changed, its pod asked about", "one"),
        question("500 Services changed at once, 500 pods in one question", "many"),
        at_most(f"{kind}: idle, a question open", one["open"], "mCPU", IDLE_MAX),
        at_most(f"{kind}: idle", one["idle"], "mCPU", IDLE_MAX),
        at_most(f"{kind}: RSS", one["rss"], "MiB", MIB_MAX, f"at most {one['peak']:.0f} MiB"),
    ]
