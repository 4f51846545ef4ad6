"""``tidegate cut pod/NAME``: out of its Services, verified, and kept for inspection."""

from __future__ import annotations

from typing import Any

import click

from tidegate.cli import mutate
from tidegate.cli.target import Duration, Reference


@click.command(short_help="Take a pod out of its Services and keep it running.")
@click.argument("pods", type=Reference("pod"), nargs=-1)
@mutate.verb_options
@click.option("--replace", is_flag=True, help="Let its owner make another first, where labels allow.")
@click.option("--service", "services", multiple=True, help="Leave only this Service.  [default: all that select it]")
@click.option("--timeout", default="60s", type=Duration(), help="From the cut to the deadline.  [default: 60s]")
@click.option(
    "--on-deadline", type=click.Choice(["hold", "restore"]), default="hold", show_default=True,
    help="hold: stay cut, run again to go on. restore: give the labels back.",
)  # fmt: skip
@click.option("--ttl", default="24h", type=Duration(), help="Until `status --orphans` calls it one.  [default: 24h]")
def cut(pods: tuple[tuple[str, str], ...], **given: Any) -> None:
    """Take a pod out of its Services, wait until every node has let go, and keep it running for inspection.

    The fewest labels are changed: one that only Services look at where there is one. What it was doing goes on;
    `tidegate restore` gives it back, `tidegate drain` retires it.

    \b
    tidegate cut pod/web-7d9c5-x2x8k --reason "leaks memory, INC-4711"
    tidegate cut pod/web-7d9c5-x2x8k --replace

    \b
    Exit codes: 0 verified          3 refused, nothing was changed
                1 failed            4 not verified: the stragglers are named
    """
    options = mutate.chosen(
        given,
        timeout_seconds=given["timeout"],
        on_deadline=given["on_deadline"],
        services=given["services"],
        ttl_seconds=given["ttl"],
        replace=given["replace"],
    )
    mutate.run("cut", pods, options, given)
