"""``tidegate drain pod/NAME``: out of its Services, verified, then deleted."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.main import DONE, FAILED, REFUSED, UNVERIFIED, fail
from tidegate.cli.target import Duration, Reference, asking, cluster_options

if TYPE_CHECKING:
    from tidegate.client import VerbOptions
    from tidegate.drain.progress import Drain
    from tidegate.kube.kubeconfig import Cluster
    from tidegate.model.names import DrainResult


@click.command(short_help="Take a pod out of its Services, verify, then delete it.")
@click.argument("pod", type=Reference("pod"))
@cluster_options
@click.option("--timeout", default="5m", type=Duration(), help="From the cut to the deadline.  [default: 5m]")
@click.option("--floor", default=1, show_default=True, type=click.IntRange(0), help="Other ready endpoints to keep.")
@click.option("--force", is_flag=True, help="Override floors and budgets. Never verification; the result is forced.")
@click.option(
    "--on-deadline", type=click.Choice(["hold", "proceed", "restore"]), default="hold", show_default=True,
    help="hold: stay cut, run again to go on. proceed: delete it unverified. restore: give the labels back.",
)  # fmt: skip
@click.option("--settle", default="15s", type=Duration(), help="Wait where nobody can be asked.  [default: 15s]")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def drain(pod: tuple[str, str], **given: Any) -> None:
    """Take a pod out of its Services, wait until every node has let go and nothing is in flight, then delete it.

    Kill it anywhere and run it again: it goes on where it stood.

    \b
    Exit codes: 0 verified          3 refused, nothing was changed
                1 failed            4 not verified: the stragglers are named
    """
    from tidegate.client import VerbOptions
    from tidegate.kube.kubeconfig import load

    cluster = load(given["kubeconfig"], given["context"])
    options = VerbOptions(
        timeout_seconds=given["timeout"],
        floor=given["floor"],
        force=given["force"],
        on_deadline=given["on_deadline"],
        settle_seconds=given["settle"],
    )
    namespace = given["namespace"] or cluster.namespace
    with asking(cluster, namespace):
        result = asyncio.run(_drain(cluster, (namespace, pod[1]), options, given))
    if result is None:
        return
    if given["output"] == "json":
        click.echo(json.dumps(_document((namespace, pod[1]), result), indent=2))
    else:
        click.echo(_sentence(pod[1], result))
    sys.exit(exit_code(result))


async def _drain(
    cluster: Cluster, target: tuple[str, str], options: VerbOptions, given: dict[str, Any]
) -> DrainResult | None:
    """The result, or None where the plan was all that was asked for."""
    from tidegate.client import carry_out, plan_drain
    from tidegate.kube.connect import open_cluster
    from tidegate.model.names import DrainResult, Ending
    from tidegate.observers.proxied import is_installed

    namespace, name = target
    async with open_cluster(cluster) as client:
        plan = await plan_drain(client, namespace, name, options, await is_installed(client))
        click.echo(f"context {cluster.context or '-'}, server {cluster.server}, namespace {namespace}", err=True)
        click.echo(f"drain pod/{name} on {plan.pod.node or 'no node'}:", err=True)
        for number, line in enumerate(plan.lines(options), start=1):
            click.echo(f"  {number}. {line}", err=True)
        for line in plan.consequences:
            click.echo(f"  note: {line}", err=True)
        refused = plan.refused(options)
        if refused:
            for reason in refused:
                click.echo(f"  refused: {reason}", err=True)
            return DrainResult(Ending.REFUSED, "; ".join(refused))
        if given["dry_run"]:
            return None
        if not given["yes"] and sys.stdin.isatty() and not click.confirm("Do it?", err=True):
            fail("nothing was changed", FAILED)
        return await carry_out(client, plan, options, _Progress())


class _Progress:
    """A line on stderr for each state, with what is being waited for."""

    def __init__(self) -> None:
        self._began = asyncio.get_running_loop().time()

    def __call__(self, drain: Drain) -> None:
        from tidegate.drain.result import waiting_for

        seconds = asyncio.get_running_loop().time() - self._began
        waiting = "; ".join(waiting_for(drain))
        state = drain.state.name.lower()
        click.echo(f"{seconds:6.1f} s  {state:<9} {f'waiting for {waiting}' if waiting else ''}".rstrip(), err=True)


def exit_code(result: DrainResult) -> int:
    """Design: 0 done, 3 refused, 4 not verified."""
    match result.result.value:
        case "verified":
            return DONE
        case "refused":
            return REFUSED
        case _:
            return UNVERIFIED


def _document(target: tuple[str, str], result: DrainResult) -> dict[str, Any]:
    return {
        "namespace": target[0],
        "pod": target[1],
        "result": result.result.value,
        "reason": result.reason,
        "stragglers": list(result.stragglers),
        "epoch": result.epoch,
        "seconds": result.seconds,
    }


def _sentence(name: str, result: DrainResult) -> str:
    seconds = f" after {result.seconds:.1f} s" if result.seconds else ""
    reason = f": {result.reason}" if result.reason else ""
    stragglers = f" [stragglers: {', '.join(result.stragglers)}]" if result.stragglers else ""
    return f"pod/{name} {result.result.value}{seconds}{reason}{stragglers}"
