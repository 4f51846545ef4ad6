"""The demo, as `make demo` runs it: six rolling updates under 800 requests/s."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.figures import Figure, at_least, below, holds
from bench.ground import RESULTS, ROOT, tidegate

SECONDS_MAX = 120.0
GATED = ("tidegate", "tidegate+lag")
LOSSY = ("plain", "sleep-5+lag")
"""The rows that must lose requests: a lab that makes them lossless is wrong."""


def judged(runs: list[dict[str, Any]], exit_code: int, seconds: float) -> list[Figure]:
    """The issue's line about the demo, figure by figure."""
    by_name = {one["name"]: one for one in runs}
    gated = [by_name[name] for name in GATED if name in by_name]
    results = [drain["result"] for one in gated for drain in one["drains"]]
    lost = sum(one["dropped"] for one in gated)
    return [
        holds("exit code 0", exit_code == 0, f"it was {exit_code}"),
        holds("six rows, every one valid", len(runs) == 6 and not any(one.get("invalid") for one in runs)),
        holds("Tidegate's rows dropped nothing", len(gated) == 2 and not lost, f"{lost} dropped"),
        *(at_least(f"{name} dropped", by_name[name]["dropped"], "requests", 1) for name in LOSSY if name in by_name),
        holds(
            "every Tidegate drain verified", bool(results) and set(results) == {"verified"}, f"{len(results)} drains"
        ),
        below("the whole demo", seconds, "s", SECONDS_MAX),
    ]


def run() -> list[Figure]:
    begun = time.monotonic()
    done = tidegate("demo", "-o", "json", "--report", str(ROOT / "out" / "demo.html"), seconds=400.0)
    seconds = time.monotonic() - begun
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"the demo ended with {done.returncode}: {done.stderr[-500:]}") from None
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "demo-runs.json").write_text(json.dumps(found, indent=2) + "\n")
    return judged(found["runs"], done.returncode, seconds)
