"""``tidegate vouch node/NAME``: say by name that a silent node is dead, or that no agent can run there."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli import question
from tidegate.cli.main import DONE, FAILED, REFUSED, fail
from tidegate.cli.target import Duration, Reference, asking, cluster_options, patience

if TYPE_CHECKING:
    from tidegate.client.vouch import Vouching, VouchPlan
    from tidegate.kube.kubeconfig import Cluster


@click.command(short_help="Say by name that a silent node is dead, or agentless.")
@click.argument("node", type=Reference("node"))
@click.option("--dead", "says", flag_value="dead", help="It forwards nothing any more.")
@click.option("--no-agent", "says", flag_value="no-agent", help="No agent can run there: serverless, Windows.")
@click.option("--withdraw", "says", flag_value="withdraw", help="Take back what was said.")
@click.option("--reason", default="", help="Why: stands in every result that rests on it.")
@click.option("--ttl", type=Duration(), default=None, help="How long it counts, as 2h.  [as long as the Node object]")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@cluster_options
def vouch(node: tuple[str, str], **given: Any) -> None:
    """Say that one node need not be waited for, on your word.

    Drains wait for every node, NotReady ones too: a dead kubelet's kernel goes on forwarding.

    With --dead you say that this one does not. Drains then end `verified-except`, naming the node and you. With
    --no-agent they wait 15 s for it and end `assumed`. Either counts only while the node's agent is silent, is written
    on the Node object (tidegate.dev/vouched) and goes with it. Refused where the node is Ready (--dead) or answers.

    \b
    tidegate vouch node/worker-7 --dead --reason "power supply burnt, INC-4711" --ttl 24h
    tidegate vouch node/worker-7 --withdraw

    \b
    Exit codes: 0 done     1 failed     2 usage     3 refused, nothing was changed
    """
    from tidegate.client.identity import this_process
    from tidegate.client.vouch import Vouching
    from tidegate.kube.kubeconfig import load

    if given["says"] is None:
        raise click.UsageError("say --dead, --no-agent or --withdraw")
    if given["says"] != "withdraw" and not given["reason"]:
        raise click.UsageError("say --reason WHY: it stands in every result that rests on your word")
    cluster = load(given["kubeconfig"], given["context"])
    options = Vouching(given["says"], this_process().by, given["reason"], given["ttl"])
    with asking(cluster, given["namespace"] or cluster.namespace):
        told, code = asyncio.run(vouched(cluster, node[1], options, given))
    if given["output"] == "json":
        click.echo(json.dumps(told, indent=2))
    sys.exit(code)


async def vouched(cluster: Cluster, name: str, options: Vouching, given: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The document and the exit code."""
    from tidegate.client.vouch import carry_out_vouch, plan_vouch
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=patience()) as client:
        plan = await plan_vouch(client, name, options)
        click.echo(f"context {cluster.context or '-'}, server {cluster.server}", err=True)
        for line in sentences(plan):
            click.echo(line, err=True)
        if plan.refused or given["dry_run"]:
            return document(plan, False), REFUSED if plan.refused else DONE
        if not question.is_wanted(given["yes"]):
            fail("nothing was changed", FAILED)
        is_changed = await carry_out_vouch(client, plan)
    if given["output"] == "text":
        click.echo(ending(plan, is_changed))
    return document(plan, is_changed), DONE


def sentences(plan: VouchPlan) -> list[str]:
    """The plan, for people."""
    name, after = plan.node.name, plan.after
    lines = [f"vouch for node/{name}: {after.says}" if after is not None else f"withdraw what was said of node/{name}"]
    if plan.before is not None:
        lines.append(f"  note: {plan.before.by} said {plan.before.says} at {plan.before.at}: {plan.before.reason}")
    lines += [f"  note: {one}" for one in plan.consequences]
    return lines + [f"  refused: {one}" for one in plan.refused]


def ending(plan: VouchPlan, is_changed: bool) -> str:
    """What stands now."""
    if plan.after is None:
        return f"node/{plan.node.name} {'is waited for again' if is_changed else 'was not vouched for: unchanged'}"
    until = f" until {plan.after.until}" if plan.after.until else ", until it is withdrawn or the node is deleted"
    return f"node/{plan.node.name} is vouched for as {plan.after.says} by {plan.after.by}{until}"


def document(plan: VouchPlan, is_changed: bool) -> dict[str, Any]:
    """What ``-o json`` prints (docs/json.md)."""
    after = plan.after
    return {
        "node": plan.node.name,
        "says": "" if after is None else after.says,
        "reason": "" if after is None else after.reason,
        "by": "" if after is None else after.by,
        "at": "" if after is None else after.at,
        "until": "" if after is None else after.until,
        "changed": is_changed,
        "consequences": list(plan.consequences),
        "refused": list(plan.refused),
    }
