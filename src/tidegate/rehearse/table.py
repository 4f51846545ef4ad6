"""The result as one table: for a terminal (rich) and for everything else (plain text)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tidegate.rehearse.verdict import UNGATED, Rehearsal, Run

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("RUN", "REQUESTS", "DROPPED", "ROLLOUT", "EXCESS POD-S", "DRAIN P50", "DRAIN MAX", "DRAINS")


def causes(run: Run) -> str:
    """Why requests were dropped: "212 (reset 180, refused 32)"."""
    counts = run.tally
    if not counts.dropped:
        return "0"
    parts = ", ".join(f"{cause} {count}" for cause, count in counts.dropped_by_cause)
    return f"{counts.dropped} ({parts})"


def results(run: Run) -> str:
    """The drains' results, counted: "4 verified", "3 verified, 1 timed-out"."""
    counts: dict[str, int] = {}
    for drain in run.drains:
        counts[drain.result] = counts.get(drain.result, 0) + 1
    return ", ".join(f"{count} {result}" for result, count in counts.items()) or "none"


def seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def cells(run: Run) -> tuple[str, ...]:
    """One row, in the order of ``HEADINGS``."""
    line = run.timeline
    return (
        run.row.name + (" (invalid)" if run.invalid else ""),
        f"{run.tally.requests}",
        causes(run),
        seconds(line.rollout_seconds),
        f"{line.excess_pod_seconds:.1f}",
        f"{line.drain_p50:.2f} s",
        f"{line.drain_max:.2f} s",
        results(run),
    )


def plain(rehearsal: Rehearsal) -> str:
    """The table as aligned text, two spaces between columns, like kubectl's."""
    rows = [HEADINGS, *(cells(run) for run in rehearsal.runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(padded)


def rich_table(rehearsal: Rehearsal) -> Table:
    """The table for a terminal; 80 columns are enough: only causes and results wrap."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for index, heading in enumerate(HEADINGS):
        is_prose = index in (2, 7)
        justify: Literal["left", "right"] = "left" if index == 0 or is_prose else "right"
        width = len("4 verified") if heading == "DRAINS" else None
        table.add_column(heading.replace(" ", "\n"), justify=justify, no_wrap=not is_prose, min_width=width)
    for run in rehearsal.runs:
        texts = [Text(cell) for cell in cells(run)]
        texts[0].stylize("bold cyan" if run.row.is_gated else "bold")
        texts[2].stylize("green" if not run.tally.dropped else "red")
        texts[7].stylize(_result_style(run))
        table.add_row(*texts)
    return table


def _result_style(run: Run) -> str:
    found = {drain.result for drain in run.drains}
    if found <= {UNGATED}:
        return "dim"
    return "green" if found == {"verified"} else "red"


def comparison(rehearsal: Rehearsal) -> str:
    """What the table shows, in a sentence: Tidegate against the longest sleep; "" without both rows."""
    by_name = {run.row.name: run for run in rehearsal.runs}
    gate, sleep = by_name.get("tidegate"), by_name.get("sleep-15")
    if gate is None or sleep is None:
        return ""
    fast, slow = gate.timeline.rollout_seconds, sleep.timeline.rollout_seconds
    if not fast or slow is None:
        return ""
    sentence = f"tidegate rolled out {slow / fast:.1f} times as fast as sleep-15"
    area = gate.timeline.excess_pod_seconds
    if area > 0:
        sentence += f", with 1/{sleep.timeline.excess_pod_seconds / area:.1f} of its excess pod-seconds"
    return f"{sentence}, and dropped {gate.tally.dropped} of {gate.tally.requests} requests."
