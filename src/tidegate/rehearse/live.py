"""Live progress on stderr: a table that fills in on a terminal, one plain line per step elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from tidegate.rehearse import table
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.story import Progress, Tell

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PHASES = {
    "starting": "starting version 1",
    "steady": "steady load on version 1",
    "updating": "rolling update to version 2",
    "settling": "steady load on version 2",
    "done": "done",
}


@contextmanager
def progress(settings: Settings, stream: IO[str]) -> Iterator[Tell]:
    """Show progress while the block runs; gives the story's ``tell``. Leaves the terminal as it was, Ctrl-C too."""
    if not stream.isatty():
        yield PlainProgress(settings, stream).tell
        return
    from rich.console import Console
    from rich.live import Live

    shown = TerminalProgress(settings, Console(file=stream))
    with Live(shown.renderable(), console=shown.console, refresh_per_second=8, transient=True) as live:

        def tell(step: Progress) -> None:
            shown.take(step)
            live.update(shown.renderable())

        yield tell


class PlainProgress:
    """A line when a row changes phase and when it is done."""

    def __init__(self, settings: Settings, stream: IO[str]) -> None:
        self._stream = stream
        self._width = max([len(row.name) for row in settings.rows], default=0)
        self._last: tuple[str, str] | None = None

    def tell(self, step: Progress) -> None:
        if self._last == (step.row.name, step.phase):
            return
        self._last = (step.row.name, step.phase)
        words = PHASES[step.phase]
        if step.run is not None:
            words = summary(step)
        self._stream.write(f"{step.row.name:<{self._width}}  {step.elapsed_seconds:5.1f} s  {words}\n")
        self._stream.flush()


def summary(step: Progress) -> str:
    """A row's result in one line."""
    run = step.run
    if run is None:
        return PHASES[step.phase]
    line = (
        f"dropped {table.causes(run)} of {run.tally.requests}, rollout {table.seconds(run.timeline.rollout_seconds)}, "
    )
    line += table.results(run)
    return f"{line}; INVALID: {run.invalid}" if run.invalid else line


class TerminalProgress:
    """The rows as a table: done ones with their result, the current one with what is going on."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self.console = console
        self._rows = settings.rows
        self._replicas = settings.replicas
        self._steps: dict[str, Progress] = {}

    def take(self, step: Progress) -> None:
        self._steps[step.row.name] = step

    def renderable(self) -> RenderableType:
        from rich.table import Table

        shown = Table.grid(padding=(0, 2))
        for _ in range(3):
            shown.add_column(no_wrap=True)
        shown.add_column()  # a long result wraps: cut off, it might hide what was lost
        for row in self._rows:
            shown.add_row(*self._cells(row))
        return shown

    def _cells(self, row: Row) -> tuple[RenderableType, ...]:
        from rich.spinner import Spinner
        from rich.text import Text

        step = self._steps.get(row.name)
        if step is None:
            return (Text("·", "dim"), Text(row.name, "dim"), Text(""), Text(""))
        elapsed = Text(f"{step.elapsed_seconds:5.1f} s", "dim")
        if step.run is not None:
            good = not step.run.tally.dropped and not step.run.invalid
            mark = Text("✓", "green") if good else Text("✗", "red")
            return (mark, Text(row.name, "bold"), elapsed, Text(summary(step), "" if good else "red"))
        return (Spinner("dots"), Text(row.name, "bold"), elapsed, Text(self._doing(step)))

    def _doing(self, step: Progress) -> str:
        words = PHASES[step.phase]
        if step.phase == "updating":
            words = f"{step.new_ready}/{self._replicas} new ready, {step.old_pods} old left"
        return f"{words}, {step.dropped} of {step.requests} dropped" if step.requests else words
