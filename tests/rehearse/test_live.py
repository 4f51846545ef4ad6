"""Progress as it is shown."""

from __future__ import annotations

import io
from typing import Any

from inline_snapshot import snapshot
from rich.console import Console

from tidegate.rehearse.live import TerminalProgress, progress
from tidegate.rehearse.settings import ROWS, Settings
from tidegate.rehearse.story import Progress

SETTINGS = Settings(rows=ROWS[:2])


def test_off_a_terminal_each_step_is_one_line(rehearsal: Any) -> None:
    stream = io.StringIO()
    run = rehearsal(ROWS[:1]).runs[0]
    with progress(SETTINGS, stream) as tell:
        tell(Progress(ROWS[0], "starting", 0.0))
        tell(Progress(ROWS[0], "starting", 0.2))
        tell(Progress(ROWS[0], "updating", 3.0, requests=800))
        tell(Progress(ROWS[0], "done", 14.2, run=run))
    assert stream.getvalue() == snapshot(
        """\
plain      0.0 s  starting version 1
plain      3.0 s  rolling update to version 2
plain     14.2 s  dropped 276 (refused 85, reset 191) of 10040, rollout 2.7 s, 4 ungated
"""
    )


def test_on_a_terminal_rows_still_to_come_are_listed_too(rehearsal: Any) -> None:
    console = Console(width=110, no_color=True, force_terminal=False)
    shown = TerminalProgress(SETTINGS, console)
    shown.take(Progress(ROWS[0], "updating", 3.0, requests=2400, dropped=7, old_pods=2, new_ready=3))
    with console.capture() as capture:
        console.print(shown.renderable())
    first, second = capture.get().splitlines()
    assert "3/4 new ready, 2 old left, 7 of 2400 dropped" in first
    assert "sleep-5" in second


def test_a_narrow_terminal_hides_no_part_of_a_result(rehearsal: Any) -> None:
    run = rehearsal(ROWS[4:5]).runs[0]
    console = Console(width=60, no_color=True, force_terminal=False)
    shown = TerminalProgress(Settings(rows=ROWS[4:5]), console)
    shown.take(Progress(ROWS[4], "done", 14.2, run=run))
    with console.capture() as capture:
        console.print(shown.renderable())
    words = " ".join(capture.get().split())
    assert words.endswith("dropped 1370 (refused 448, reset 922) of 10040, rollout 7.7 s, 4 ungated")


def test_a_row_under_way_takes_one_line_of_eighty_columns() -> None:
    console = Console(width=80, no_color=True, force_terminal=False)
    shown = TerminalProgress(Settings(), console)
    shown.take(Progress(ROWS[5], "updating", 103.5, requests=10_200, dropped=1_376, old_pods=4, new_ready=4))
    with console.capture() as capture:
        console.print(shown.renderable())
    assert len(capture.get().splitlines()) == len(ROWS)
