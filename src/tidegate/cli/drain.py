"""``tidegate drain pod/NAME``: out of its Services, verified, then deleted."""

from __future__ import annotations

from typing import Any

import click

from tidegate.cli import mutate
from tidegate.cli.target import Duration, Reference


@click.command(short_help="Take a pod out of its Services, verify, then delete it.")
@click.argument("pods", type=Reference("pod"), nargs=-1)
@mutate.verb_options
@click.option("--timeout", default="5m", type=Duration(), help="From the cut to the deadline.  [default: 5m]")
@click.option(
    "--on-deadline", type=click.Choice(["hold", "proceed", "restore"]), default="hold", show_default=True,
    help="hold: stay cut, run again to go on. proceed: delete it unverified. restore: give the labels back.",
)  # fmt: skip
def drain(pods: tuple[tuple[str, str], ...], **given: Any) -> None:
    """Take a pod out of its Services, wait until every node has let go and nothing is in flight, then delete it.

    Kill it anywhere and run it again: it goes on where it stood.

    \b
    Exit codes: 0 verified          3 refused, nothing was changed
                1 failed            4 not verified: the stragglers are named
    """
    options = mutate.chosen(given, timeout_seconds=given["timeout"], on_deadline=given["on_deadline"])
    mutate.run("drain", pods, options, given)
