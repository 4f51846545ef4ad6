"""Virtual time: the same seed twice gives the same digest, in processes of their own; other seeds other digests."""

from __future__ import annotations

import json

from bench.figures import Figure, holds
from bench.ground import tidegate

SEEDS = 3
FIRST = 7


def digests(hash_seed: str) -> tuple[dict[int, str], list[int], float]:
    """Digest by seed, seeds that failed, and the virtual seconds in all."""
    done = tidegate(
        "sim", "--seeds", str(SEEDS), "--first", str(FIRST), "-o", "json", seconds=300, PYTHONHASHSEED=hash_seed
    )
    found = json.loads(done.stdout)
    virtual = sum(one["virtual_seconds"] for one in found["runs"])
    return {one["seed"]: one["digest"] for one in found["runs"]}, found["failed"], virtual / found["wall_seconds"]


def run() -> list[Figure]:
    first, failed, speed = digests("1")
    second, _, _ = digests("2")
    same = [seed for seed in first if first[seed] == second.get(seed)]
    return [
        holds("same seed, same digest", first == second, f"{len(same)} of {SEEDS} seeds, two hash seeds"),
        holds("other seeds, other digests", len(set(first.values())) == SEEDS),
        holds(
            "no seed's Tidegate rows lost or left anything unverified", not failed, f"failed {failed}" if failed else ""
        ),
        Figure("virtual seconds per second, two processes", speed, ""),
    ]
