"""``tidegate sim --fence N [--network kernel]``: the fence's invariant on every shape of proxy, as a table."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tidegate.cli.main import REFUSED, fail

if TYPE_CHECKING:
    from tidegate.rehearse.fence.judge import Signs
    from tidegate.rehearse.fence.play import Row

HEADS = (
    "shape",
    "cuts",
    "judged",
    "needs",
    "violations",
    "1 epoch",
    "2 epochs",
    "absence",
    "sync end",
    "both",
    "before",
)
LEGEND = """\
judged: cuts times nodes. needs: epochs that are asked for. The other columns: cuts in which a sign was wrong.
1 epoch, 2 epochs: (tables with it and a route) + (words taken back: first no route, then one).
absence: of a route alone. sync end: kube-proxy's healthz and sync metric. both together. before: an epoch of before
the cut. Were absence or the sync's end never wrong, this test would be too weak."""


def run(count: int, first: int, jobs: int, output: str) -> None:
    """Play, print, and exit: 0 without a violation, 1 with one, or where the sequences were too weak to show any."""
    from tidegate.lab.proxy.shapes import SHAPES
    from tidegate.rehearse.fence.play import row, tasks

    started = time.perf_counter()
    found: dict[str, list[tuple[int, int, Signs, int]]] = {shape: [] for shape in SHAPES}
    with ProcessPoolExecutor(jobs) as pool:
        for shape, seed, size, signs, hurts in pool.map(_play, tasks(tuple(SHAPES), count, first)):
            found[shape].append((seed, size, signs, hurts))
    seeds = -(-count // _size())
    _tell(
        [row(shape, outcomes) for shape, outcomes in found.items()], f"{first} to {first + seeds - 1}", started, output
    )


def run_on_kernel(count: int, seed: int, output: str) -> None:
    """The same on real netfilter, in a lab with network ``kernel`` for each layout of rules, one after another."""
    from tidegate.lab.folder import LabError
    from tidegate.lab.network.machine import missing
    from tidegate.lab.network.seam import SHAPES
    from tidegate.rehearse.fence.kernelground import play_on_kernel
    from tidegate.rehearse.fence.play import row

    if why := missing():
        fail(why, REFUSED)
    started, rows = time.perf_counter(), []
    for shape in SHAPES:
        try:
            outcome, complaints = play_on_kernel(shape, seed, count)
        except LabError as error:
            fail(str(error))
        rows.append(row(shape, [(seed, len(outcome.cuts), outcome.signs, outcome.hurts)]))
        for one in dict.fromkeys(complaints):
            click.echo(f"{shape}: {one}", err=True)
    _tell(rows, str(seed), started, output)


def _tell(rows: list[Row], seeds: str, started: float, output: str) -> None:
    seconds = round(time.perf_counter() - started, 1)
    is_failed = any(one.violations or one.is_weak for one in rows)
    if output == "json":
        shapes = [
            {
                "shape": one.shape, "sequences": one.sequences, "faults": one.hurts, "violations": one.violations,
                "failed": list(one.failed), "weak": one.is_weak, "signs": asdict(one.signs),
            }
            for one in rows
        ]  # fmt: skip
        click.echo(json.dumps({"seeds": seeds, "wall_seconds": seconds, "shapes": shapes}, indent=2))
    else:
        click.echo(text(rows))
        hurts = sum(one.hurts for one in rows)
        click.echo(f"seeds {seeds}, {hurts} faults, {seconds} s: {_verdict(rows)}")
    sys.exit(1 if is_failed else 0)


def text(rows: list[Row]) -> str:
    """The table and its legend."""
    from tidegate.rehearse.fence.play import needs_second

    cells = [HEADS]
    for one in rows:
        signs = one.signs
        cells.append(
            (
                one.shape, str(one.sequences), str(signs.cuts), "2" if needs_second(one.shape) else "1",
                str(one.violations), f"{signs.shown_first}+{signs.first}", f"{signs.shown_second}+{signs.second}",
                str(signs.absence), str(signs.synced), str(signs.synced_and_absent), str(signs.before),
            )
        )  # fmt: skip
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([*lines, LEGEND])


def _verdict(rows: list[Row]) -> str:
    broken = [f"{one.shape} in seeds {', '.join(map(str, one.failed))}" for one in rows if one.failed]
    weak = [one.shape for one in rows if one.is_weak]
    if broken:
        return f"VIOLATED: {'; '.join(broken)}"
    return f"too weak to show anything: {', '.join(weak)}; try more" if weak else "no violation"


def _size() -> int:
    from tidegate.rehearse.fence.play import SEQUENCES_MAX

    return SEQUENCES_MAX


def _play(task: tuple[str, int, int]) -> tuple[str, int, int, Signs, int]:
    from tidegate.rehearse.fence.play import play

    shape, seed, size = task
    outcome = play(shape, seed, size)
    return shape, seed, size, outcome.signs, outcome.hurts
