"""``tidegate drain pod/NAME | deploy/NAME | ...``: out of its Services, verified, then deleted."""

from __future__ import annotations

from typing import Any

import click

from tidegate.cli import drain_node, mutate
from tidegate.cli.target import Duration, Reference


@click.command(short_help="Take a pod out of its Services, verify, then delete it.")
@click.argument("targets", type=Reference("pod", "deploy", "rs", "sts", "ds", "node"), nargs=-1)
@mutate.verb_options
@click.option("--no-replace", is_flag=True, help="Cut at once; the replacement comes when it comes.")
@click.option("--parallel", default=4, show_default=True, type=click.IntRange(1), help="Of a node: drains at once.")
@click.option("--keep-going", is_flag=True, help="Of several, go on after one that is not verified.")
@click.option(
    "--activity",
    default="",
    metavar="PROBE",
    help="How to ask the pod if it is working: http:PORT/PATH, metric:PORT/PATH#NAME, exec:COMMAND.",
)
@click.option("--timeout", default="5m", type=Duration(), help="From the cut to the deadline.  [default: 5m]")
@click.option(
    "--on-deadline", type=click.Choice(["hold", "proceed", "restore"]), default="hold", show_default=True,
    help="hold: stay cut, run again to go on. proceed: delete it unverified. restore: give the labels back.",
)  # fmt: skip
def drain(targets: tuple[tuple[str, str], ...], **given: Any) -> None:
    """Take a pod out of its Services, wait until every node has let go and nothing is in flight, then delete it.

    Where labels allow, its owner makes the replacement first, and only when every node routes to that is the pod cut.
    Of a workload, or with -l, each pod that is there now is drained in turn; those made meanwhile are not. Kill it
    anywhere and run it again: it goes on where it stood.

    node/NAME is cordoned, and every pod on it drained but those of DaemonSets. Budgets that allow nothing are waited
    for; --force takes pods that nothing owns too, and overrides floors, never budgets.

    \b
    tidegate drain pod/web-7d9c5-x2x8k
    tidegate drain deploy/web --dry-run
    tidegate drain -l app=web --count 2
    tidegate drain node/worker-7

    \b
    Exit codes: 0 verified          3 refused, nothing was changed
                1 failed            4 not verified: the stragglers are named
    """
    options = mutate.chosen(
        given,
        timeout_seconds=given["timeout"],
        on_deadline=given["on_deadline"],
        activity=given["activity"],
        replace=False if given["no_replace"] else None,
    )
    if any(kind == "node" for kind, _ in targets):
        drain_node.run(targets, options, given)
    mutate.run("drain", targets, options, given)
