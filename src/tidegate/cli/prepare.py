"""``tidegate prepare deploy/NAME --service S``: a traffic label of its own, without losing a request."""

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
    from tidegate.client.prepare.plan import PrepareOptions, PreparePlan
    from tidegate.client.prepare.run import Prepared
    from tidegate.client.prepare.scene import About
    from tidegate.kube.kubeconfig import Cluster
    from tidegate.traffic.preparation import Move


@click.command(short_help="Give a Service a traffic label of its own, without losing a request.")
@click.argument("workloads", type=Reference("deploy", "sts", "ds"), nargs=-1, required=True)
@click.option("--service", required=True, help="The Service that gets the label.")
@click.option("--in-place", is_flag=True, help="Restart no pod: label pods and their ReplicaSet as they stand.")
@click.option("--label", default="", metavar="KEY=VALUE", help="[default: traffic.tidegate.dev/SERVICE=on]")
@click.option("--abort", is_flag=True, help="Back to how it was, from the middle or afterwards.")
@click.option("--timeout", default="10m", type=Duration(), help="For all of it.  [default: 10m]")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@cluster_options
def prepare(workloads: tuple[tuple[str, str], ...], **given: Any) -> None:
    """Give a Service a label of its own that no Deployment selects on: then one label takes a pod out of traffic and
    its ReplicaSet keeps it.

    Pods get the label first, by a rollout or with --in-place by none; the Service's selector asks for it last. Name
    every Deployment whose pods the Service selects. Run it again to go on where it was killed, or --abort to go back.

    \b
    tidegate prepare deploy/web --service web --in-place
    tidegate prepare deploy/web --service web --abort

    \b
    Exit codes: 0 done, or it was so already   3 refused, nothing was changed
                1 stopped on the way, named
    """
    from tidegate.kube.kubeconfig import load

    options = _chosen(given)
    _refuse_kinds(workloads, given["service"])
    cluster = load(given["kubeconfig"], given["context"])
    namespace = given["namespace"] or cluster.namespace
    from tidegate.client.prepare.scene import About

    about = About(namespace, given["service"], tuple(dict.fromkeys(name for _, name in workloads)))
    try:
        with asking(cluster, namespace):
            document, code = asyncio.run(_run(cluster, about, options, given))
    except KeyboardInterrupt:
        click.echo(f"what was begun stays: {_again(about)}", err=True)
        raise
    if given["output"] == "json":
        click.echo(json.dumps(document, indent=2))
    sys.exit(code)


def _chosen(given: dict[str, Any]) -> PrepareOptions:
    from tidegate.client.identity import this_process
    from tidegate.client.prepare.plan import PrepareOptions
    from tidegate.model.decode import Malformed
    from tidegate.model.names import TRAFFIC_VALUE
    from tidegate.model.selector import parse

    key, _, value = given["label"].partition("=")
    if given["label"]:
        try:
            found = parse(given["label"]).requirements
        except Malformed:
            found = ()
        if (
            len(found) != 1
            or found[0].operator != "In"
            or not value
            or max(len(key.rpartition("/")[2]), len(value)) > 63
        ):
            raise click.UsageError(f"{given['label']!r} is no label: write KEY=VALUE, each of 63 characters at most")
    return PrepareOptions(
        key=key,
        value=value or TRAFFIC_VALUE,
        in_place=given["in_place"],
        is_abort=given["abort"],
        timeout_seconds=given["timeout"],
        identity=this_process(),
    )


def _refuse_kinds(workloads: tuple[tuple[str, str], ...], service: str) -> None:
    """Only a Deployment rolls back by itself if its new pods are no good, and has ReplicaSets to label in place."""
    kinds = {"sts": "StatefulSet", "ds": "DaemonSet"}
    for kind, name in workloads:
        if kind in kinds:
            fail(
                f"{kind}/{name} is a {kinds[kind]}, and prepare knows Deployments only; add the label "
                f'traffic.tidegate.dev/{service}: "on" to its template, wait for its rollout, then add it to the '
                f"selector of svc/{service}",
                REFUSED,
            )


async def _run(
    cluster: Cluster, about: About, options: PrepareOptions, given: dict[str, Any]
) -> tuple[dict[str, Any], int]:
    from tidegate.client.prepare.plan import plan_prepare
    from tidegate.client.prepare.run import carry_out
    from tidegate.kube.connect import open_cluster
    from tidegate.kube.errors import KubeError

    async with open_cluster(cluster, patience=patience(options.timeout_seconds)) as client:
        plan = await plan_prepare(client, about, options)
        where = f"context {cluster.context or '-'}, server {cluster.server}, namespace {about.namespace}"
        click.echo(where, err=True)
        show(plan)
        if given["dry_run"]:
            return plan.document(), REFUSED if plan.refusals else DONE
        is_wanted = not plan.refusals and not plan.done
        if is_wanted and not question.is_wanted(given["yes"]):
            fail("nothing was changed", FAILED)
        try:
            result = await carry_out(client, plan, options, _Progress(plan.about))
        except KubeError:
            click.echo(f"what was begun stays: {_again(about)}", err=True)
            raise
        if given["output"] == "text":
            click.echo(sentence(plan, result))
        return document(plan, result), exit_code(result)


def show(plan: PreparePlan) -> None:
    """The plan, for people, on stderr; what to commit instead, where somebody else keeps the fields."""
    from tidegate.client.prepare.plan import told

    names = " ".join(f"deploy/{name}" for name in plan.about.deployments)
    verb = "take back the label of" if plan.wish.is_abort else "prepare"
    way = "in place" if plan.wish.in_place else "by rollout"
    label = f"{plan.wish.key}={plan.wish.value}"
    click.echo(f"{verb} svc/{plan.about.service}, {names}, {way}, label {label}:", err=True)
    if plan.has_begun:
        click.echo("  note: it was begun before, this goes on from where it stands", err=True)
    for number, move in enumerate(() if plan.refusals else plan.moves, start=1):
        reason = "" if move.reason in told(move, plan.about) else f" ({move.reason})"
        click.echo(f"  {number}. {told(move, plan.about)}{reason}", err=True)
    for line in () if plan.refusals else plan.consequences:
        click.echo(f"  note: {line}", err=True)
    for refusal in plan.refusals:
        click.echo(f"  refused: {refusal}", err=True)
    if plan.patch:
        click.echo(plan.patch, err=True, nl=False)


class _Progress:
    """A line on stderr for each move."""

    def __init__(self, about: About) -> None:
        self._began = asyncio.get_running_loop().time()
        self._about = about

    def __call__(self, move: Move) -> None:
        from tidegate.client.prepare.plan import told

        seconds = asyncio.get_running_loop().time() - self._began
        click.echo(f"{seconds:6.1f} s  {told(move, self._about)}", err=True)


def exit_code(result: Prepared) -> int:
    """0 done or so already, 3 refused, 1 stopped on the way."""
    return {"refused": REFUSED, "stopped": FAILED}.get(result.result, DONE)


def sentence(plan: PreparePlan, result: Prepared) -> str:
    """The result in a line, and what to do where it is not done."""
    match result.result:
        case "prepared":
            label = f"{plan.wish.key}={plan.wish.value}"
            return f"svc/{plan.about.service} prepared after {result.seconds:.1f} s: it selects by {label} too"
        case "aborted":
            return f"svc/{plan.about.service} is as it was before, after {result.seconds:.1f} s"
        case "unchanged":
            return f"svc/{plan.about.service} unchanged: {result.reason}"
        case "refused":
            return f"svc/{plan.about.service} refused: {result.reason}"
        case _:
            return f"svc/{plan.about.service} stopped: {result.reason}; {_again(plan.about)}"


def _again(about: About) -> str:
    names = " ".join(f"deploy/{name}" for name in about.deployments)
    return f"`tidegate prepare {names} --service {about.service}` goes on, with --abort it goes back"


def document(plan: PreparePlan, result: Prepared) -> dict[str, Any]:
    """What ``-o json`` prints (docs/json.md)."""
    return {
        "verb": "prepare",
        "namespace": plan.about.namespace,
        "service": plan.about.service,
        "deployments": list(plan.about.deployments),
        "label": {"key": plan.wish.key, "value": plan.wish.value},
        "inPlace": plan.wish.in_place,
        "result": result.result,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "patch": plan.patch,
    }
