"""``tidegate drain node/NAME``: its plan, its progress, a document per pod and what is left."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tidegate.cli import question
from tidegate.cli.main import DONE, FAILED, INTERRUPTED, REFUSED, fail
from tidegate.cli.mutate import Progress, exit_code, note_unkept, show, worst
from tidegate.cli.target import asking, patience

if TYPE_CHECKING:
    from tidegate.client import VerbOptions
    from tidegate.client.node import NodePlan, NodeResult
    from tidegate.kube.kubeconfig import Cluster


def run(named: tuple[tuple[str, str], ...], options: VerbOptions, given: dict[str, Any]) -> NoReturn:
    """Drain the one node that is named, and leave with the exit code of what came of it."""
    from tidegate.kube.kubeconfig import load

    if len(named) > 1 or given["selector"] or given["count"]:
        raise click.UsageError("one node at a time, and all that is on it: no -l, no --count")
    name = named[0][1]
    cluster = load(given["kubeconfig"], given["context"])
    with asking(cluster, given["namespace"] or cluster.namespace):
        try:
            document, code = asyncio.run(drained(cluster, name, options, given))
        except KeyboardInterrupt:
            click.echo(f"interrupted: node/{name} stays cordoned; `kubectl uncordon {name}` gives it back", err=True)
            sys.exit(INTERRUPTED)
        finally:
            note_unkept(options)
    if given["output"] == "json":
        click.echo(json.dumps(document, indent=2))
    sys.exit(code)


async def drained(
    cluster: Cluster, name: str, options: VerbOptions, given: dict[str, Any]
) -> tuple[dict[str, Any], int]:
    """The node's document and the exit code."""
    from tidegate.client.node import drain_node, plan_node
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=patience(options.timeout_seconds)) as client:
        plan = await plan_node(client, name, options)
        click.echo(f"context {cluster.context or '-'}, server {cluster.server}", err=True)
        show_node(plan, options)
        if given["dry_run"] or plan.refused:
            is_refused = plan.refused or any(one.plan.refused(options) for one in plan.pods if one.plan is not None)
            return planned(plan, options), REFUSED if is_refused else DONE
        if not question.is_wanted(given["yes"]):
            fail("nothing was changed", FAILED)
        result = await drain_node(client, plan, options, given["parallel"], lambda one: Progress(str(one)))
    if given["output"] == "text":
        for text in sentences(plan, result):
            click.echo(text)
    return document(plan, result), worst([exit_code(one) for one in result.results.values()])


def show_node(plan: NodePlan, options: VerbOptions) -> None:
    """The plan, for people, on stderr."""
    cordon = "is cordoned already: left as it is" if plan.is_cordoned else "cordon it"
    click.echo(f"drain node/{plan.node.name}: {cordon}", err=True)
    for one in plan.pods:
        if one.plan is not None:
            show(one.plan, options, str(one.pod))
        else:
            word = {"skip": "left", "refuse": "refused", "follow": "waited for", "delete": "deleted"}[one.fate]
            click.echo(f"{word} {one.pod}: {one.why}", err=True)
        for note in one.notes:
            click.echo(f"  note: {note}", err=True)


def planned(plan: NodePlan, options: VerbOptions) -> dict[str, Any]:
    """The plan as a document (docs/json.md)."""
    items = [one.plan.document(options) for one in plan.pods if one.plan is not None]
    return {
        "node": plan.node.name,
        "cordoned": plan.is_cordoned,
        "skipped": _named(plan, "skip"),
        "refused": _named(plan, "refuse"),
        "items": items,
    }


def document(plan: NodePlan, result: NodeResult) -> dict[str, Any]:
    """What came of it (docs/json.md)."""
    pods = {str(one.pod): one.pod for one in plan.pods}
    items = [
        {
            "verb": "drain",
            "namespace": pods[name].namespace,
            "pod": pods[name].name,
            "result": one.result.value,
            "reason": one.reason,
            "stragglers": list(one.stragglers),
            "epoch": one.epoch,
            "seconds": one.seconds,
        }
        for name, one in result.results.items()
    ]
    return {
        "node": plan.node.name,
        "cordoned": plan.is_cordoned or result.is_cordoned_by_us,
        "skipped": _named(plan, "skip"),
        "items": items,
        "left": [{"pod": name, "why": why} for name, why in result.left.items()],
    }


def _named(plan: NodePlan, fate: str) -> list[dict[str, str]]:
    return [{"pod": str(one.pod), "why": one.why} for one in plan.pods if one.fate == fate]


def sentences(plan: NodePlan, result: NodeResult) -> list[str]:
    """A line for each pod, and what is left."""
    from tidegate.cli.mutate import sentence

    lines = [sentence(name, one).removeprefix("pod/") for name, one in result.results.items()]
    lines += [f"left on node/{plan.node.name}: {name}: {why}" for name, why in result.left.items()]
    return [*lines, f"node/{plan.node.name} is cordoned; `kubectl uncordon {plan.node.name}` gives it back"]
