"""Releases for people: the plan, progress, and the live view."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.fitted import fitted
from tidegate.cli.table import table
from tidegate.cli.target import ENGINE_PAUSE_SECONDS

if TYPE_CHECKING:
    from rich.live import Live

    from tidegate.client.release.command import ReleasePlan
    from tidegate.client.release.run import Turn
    from tidegate.kube.kubeconfig import Cluster
    from tidegate.release.foresee import Foreseen

LOOK_SECONDS = 0.5
NOTES_SHOWN = 6
NAMES_SHOWN = 3
_PAUSED, _STAYING = "paused: ", "wait: stays at "
"""How moments begin at which a release waits because somebody wants it to."""


_RESTING = ("done", "aborted", "paused", "halted")


def plan_lines(plan: ReleasePlan) -> Iterator[str]:
    """The plan, for stderr."""
    spec = plan.spec
    what = ", ".join(f"{name}={image}" for name, image in sorted(spec.images.items()))
    what = what or ("the same template once more" if spec.restart else "the template as given")
    service = f", svc/{spec.service}" if spec.service else ""
    yield f"release deploy/{spec.workload}, {spec.strategy}{service}: {what}"
    seen = plan.foreseen
    if seen is not None and not plan.refusals:
        for number, text in enumerate(foreseen_steps(seen), start=1):
            yield f"  {number}. {text}"
        pods = f"{seen.most_pods} pods at most beside each other"
        given = "new pods need 2 s and old ones 1.5 s"
        given += ", and nobody waits to promote" if any(one.text.startswith(_PAUSED) for one in seen.moments) else ""
        yield f"  foreseen: {seen.phase} after {seen.seconds:.0f} s if {given}; {pods}"
        if seen.phase in ("pending", "progressing", "aborting"):
            yield f"  note: that is no end: {seen.reason}"
    for note in plan.notes:
        yield f"  note: {note}"
    for refusal in plan.refusals:
        yield f"  refused: {refusal}"


def foreseen_steps(seen: Foreseen) -> list[str]:
    """Each step once, and each pause: what is asked for again while it goes on is no other step."""
    found: list[str] = []
    before: tuple[Any, ...] = ()
    for one in seen.moments:
        if one.step is not None:
            key: tuple[Any, ...] = (one.step.act, one.step.subject, one.step.reason)
            text = one.text
        elif one.text.startswith((_PAUSED, _STAYING)):
            text = one.text.partition(": ")[2]
            key = (text,)
        else:
            continue
        if key != before:
            found.append(text)
        before = key
    return found


def lines(shown: dict[str, Any]) -> Iterator[str]:
    """The document of a release as a screen."""
    head = f"deploy/{shown['workload']}  {shown['strategy']}  {shown['phase']}"
    yield f"{head}: {shown['reason']}" if shown["reason"] else head
    rows = [_row(one) for one in shown["revisions"]]
    header = ("REVISION", "ROLE", "DEPLOYMENT", "READY", "ROUTED", "LEAVING", "CONNS", "WEIGHT", "IMAGES")
    yield from table(rows, header, "  ")
    for one in shown["revisions"]:
        if one["problem"] and one["problem"] not in shown["reason"]:
            yield f"  {one['revision']}: {one['problem']}"
    for one in shown["drains"]:
        names = [*one["stragglers"], *one["waiting"]]
        held = f": {', '.join(names[:NAMES_SHOWN])}{' ...' if len(names) > NAMES_SHOWN else ''}" if names else ""
        yield f"  draining pod/{one['pod']} on {one['node']} ({one['mode'] or 'no gate'}), {one['state']}{held}"
    for one in shown["questions"]:
        for name in one["stragglers"][:NAMES_SHOWN]:
            yield f"  waits for {name}"
        for name in one["assumed"][:NAMES_SHOWN]:
            yield f"  assumed: {name}"
    for one in shown["analyses"]:
        counts = f"{one['passed']} passed, {one['failed']} failed"
        if one["problems"]:
            counts += f", not answered {one['problems']} times"
        yield f"  {one['analysis']} {one['moment']}: {counts}: {one['said']}"
    for text in shown["problems"]:
        yield f"  cannot be read: {text}"
    if not shown["atWork"] and (shown["phase"] not in _RESTING or not shown["takenUp"]):
        yield f"  nobody is at work on it: `tidegate release resume deploy/{shown['workload']}` goes on"
    for text in shown["unverified"]:
        yield f"  not verified: {text}"
    for note in [one for one in shown["notes"] if one["text"] != f"{shown['phase']}: {shown['reason']}"][-NOTES_SHOWN:]:
        yield f"  {note['at'][11:19]}  {note['text']}"


def short(text: str, width: int) -> str:
    """Its beginning, for a column of a table."""
    return text if len(text) <= width else f"{text[: width - 4].rstrip()} ..."


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    conns = f"{one['connections']}{'+?' if one['unknown'] else ''}" if one["connections"] or one["unknown"] else ""
    return (
        one["revision"],
        one["role"],
        one["deployment"],
        f"{one['ready']}/{one['desired']}",
        str(one["listed"]),
        str(one["leaving"] or ""),
        conns,
        "" if one["weight"] is None else f"{one['weight']} %",
        " ".join(f"{name}={image}" for name, image in sorted(one["images"].items())),
    )


def closing(shown: dict[str, Any]) -> str:
    """How it ended, or where it waits, in a line with the way on."""
    name = f"deploy/{shown['workload']}"
    match shown["phase"]:
        case "done":
            rest = (
                f"; {len(shown['unverified'])} pods ended unverified: {shown['unverified'][0]}"
                if shown["unverified"]
                else ""
            )
            return f"{name} released: {shown['reason']}{rest}"
        case "aborted":
            return f"{name} is back: {shown['reason']}"
        case "paused":
            return f"{name} waits: {shown['reason']}"
        case "halted":
            return f"{name} halted: {shown['reason']}; `tidegate release resume {name}` tries again, `abort` goes back"
        case _:
            return f"{name} {shown['phase']}: {shown['reason']}; `tidegate release resume {name}` goes on"


class Progress:
    """A live screen on a terminal; elsewhere one line for whatever is new."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._last: tuple[str, ...] = ()
        """What was told of the look before: a step that goes on for several is told once."""
        self._began = 0.0

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def heard(self, turn: Turn) -> None:
        """One look of the engine."""
        from tidegate.client.release.document import document

        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(fitted("\n".join(lines(document(turn.sight))))), refresh=True)
            return
        now = asyncio.get_running_loop().time()
        self._began = self._began or now
        fresh = {f"{step.act} {step.subject} {step.reason}": str(step) for step in turn.decision.steps}
        told = fresh or {turn.decision.status.reason: turn.decision.status.reason}
        for key, text in told.items():
            if text and key not in self._last:
                click.echo(f"{now - self._began:6.1f} s  {text}", err=True)
        self._last = tuple(told)


async def watched(cluster: Cluster, namespace: str, workload: str, given: dict[str, Any]) -> tuple[Any, int]:
    """``release status``, once or for as long as somebody looks."""
    from tidegate.cli.release import exit_code
    from tidegate.cli.release_book import opened
    from tidegate.client.release.command import About, sight_of
    from tidegate.client.release.document import document
    from tidegate.client.release.keeping import keeping_of
    from tidegate.kube.connect import open_cluster
    from tidegate.kube.patience import Patience

    about = About(namespace, workload)
    quiet = Patience(pause_seconds_max=ENGINE_PAUSE_SECONDS)  # a line of its own would tear what is being shown
    async with open_cluster(cluster, patience=quiet) as client:
        book = await opened(client, about)

        async def looked() -> dict[str, Any]:
            sight = await sight_of(client, book, about)
            return document(sight, await keeping_of(client, sight))

        shown = await looked()
        if not given["watch"]:
            if given["output"] == "table":
                click.echo(fitted("\n".join(lines(shown)), sys.stdout))
            return shown, exit_code(shown)
        with _screen(given["output"]) as show:
            while True:
                show(shown)
                await asyncio.sleep(LOOK_SECONDS)
                shown = await looked()


@contextlib.contextmanager
def _screen(output: str) -> Iterator[Any]:
    """In place on a terminal; elsewhere again whenever it changed."""
    if output == "table" and sys.stdout.isatty():
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda shown: live.update(Text(fitted("\n".join(lines(shown)), sys.stdout)), refresh=True)
        return
    last: dict[str, Any] = {}

    def show(shown: dict[str, Any]) -> None:
        nonlocal last
        if shown != last:
            import json

            click.echo(json.dumps(shown) if output == "json" else "\n".join((*lines(shown), "")))
            last = shown

    yield show
