"""``tidegate observe [svc/NAME | deploy/NAME]``: rollouts as they are, and what they put at risk."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.target import Duration, Reference, asking, cluster_options, patience

if TYPE_CHECKING:
    from tidegate.client.observe import Observation, Subject
    from tidegate.kube.kubeconfig import Cluster

HEADER = ("POD", "NODE", "DELETED", "SIGTERM", "LAST", "EXPOSED", "NODES", "OPENED")


@click.command(short_help="Watch rollouts as they are: who routed to a pod after its SIGTERM.")
@click.argument("subject", type=Reference("svc", "deploy"), required=False)
@cluster_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Every namespace.")
@click.option("--for", "seconds", default="10m", type=Duration(), help="How long to watch.  [default: 10m]")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def observe(subject: tuple[str, str] | None, seconds: float, **given: Any) -> None:
    """Watch pods leave, as they are, and tell how long each node still routed to them after their deletion and after
    their SIGTERM. Changes nothing; a kubeconfig is enough.

    Ends with what preStop sleep would have been enough, and what a gate would have cost instead. Ctrl-C ends it early
    and loses nothing. Without agents only the EndpointSlices are seen, and the report says so.

    \b
    tidegate observe deploy/web --for 10m
    tidegate observe -A -o json
    """
    from tidegate.client.observe import Subject
    from tidegate.kube.kubeconfig import load

    if subject and given["all_namespaces"]:
        raise click.UsageError("a Service or a Deployment is in one namespace: leave out -A")
    cluster = load(given["kubeconfig"], given["context"])
    namespace = "" if given["all_namespaces"] else given["namespace"] or cluster.namespace
    about = Subject(namespace, *(subject or ("", "")))
    with asking(cluster, namespace):
        found = asyncio.run(_observe(cluster, about, seconds, given["output"] == "table"))
    click.echo(rendered(found, given["output"]))
    sys.exit(0)


async def _observe(cluster: Cluster, about: Subject, seconds: float, is_told: bool) -> Observation:
    """What was seen until the time was over, or somebody said that it is enough."""
    import signal

    from tidegate import vtime
    from tidegate.client.observe import Observation, observe
    from tidegate.kube.connect import open_cluster

    found = Observation(about, vtime.now())

    async def watch() -> None:
        async with open_cluster(cluster, patience=patience(seconds)) as client:
            click.echo(f"watching the pods of {about} for {seconds:g} s; Ctrl-C ends it with what was seen", err=True)
            async for one in observe(client, about, seconds, found):
                if is_told:
                    click.echo(f"pod/{one.pod}: {one.sentence}", err=True)

    loop = asyncio.get_running_loop()
    watching = asyncio.ensure_future(watch())
    try:
        loop.add_signal_handler(signal.SIGINT, watching.cancel)
        await watching
    except asyncio.CancelledError:
        if not watching.cancelled():
            raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return found


def rendered(found: Observation, output: str) -> str:
    """As ``-o`` asks for it."""
    from tidegate.cli.table import table

    document = found.document
    if output == "json":
        return json.dumps(document, indent=2)
    lines = table([cells(one) for one in document["pods"]], HEADER)
    if document["unlisted"]:
        lines.append(f"left out, since no Service lists them: {document['unlisted']} pods")
    lines += [f"note: {note}" for note in document["notes"]]
    gaps = {
        f"{each['observer']}: {each['gap']}" for one in document["pods"] for each in one["observers"] if each["gap"]
    }
    lines += [f"note: {gap}" for gap in sorted(gaps)]
    return "\n".join([*lines, *document["verdict"]])


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """One row. ``~`` before a time that is known to the second only; ``?`` for what is not known."""
    known = [each for each in one["observers"] if each["after_deletion_seconds"] is not None]
    nodes = [each for each in known if each["kind"] == "agent"] or known
    last = max(nodes, key=lambda each: (each["at"] is None, each["after_deletion_seconds"]), default=None)
    late = "?"
    if last is not None:
        more = ">" if last["at"] is None else ""
        late = f"{last['observer']} {more}{last['after_deletion_seconds']:.1f}s"
    exposed = "?" if one["exposed_seconds"] is None else f"{one['exposed_seconds']:.1f}s"
    opened = "?" if one["opened"] is None else f">={one['opened']}"
    return (
        f"{one['namespace']}/{one['pod']}",
        one["node"],
        one["deleted"][11:19],
        _sigterm(one),
        late,
        exposed,
        str(len(one["exposed_to"])),
        opened if one["exposed_to"] else "-",
    )


def _sigterm(one: dict[str, Any]) -> str:
    from datetime import datetime

    told = one["sigterm"]
    if told["at"] is None:
        return "?"
    seconds = (datetime.fromisoformat(told["at"]) - datetime.fromisoformat(one["deleted"])).total_seconds()
    return f"{'~' if told['resolution_seconds'] else ''}+{max(0.0, seconds):.1f}s"
