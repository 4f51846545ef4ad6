"""``tidegate verify pod/NAME``: does traffic reach it? Evidence from every node, and connections where asked for."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.main import DONE, FAILED, UNVERIFIED, fail
from tidegate.cli.target import Duration, Reference, asking, cluster_options, patience

if TYPE_CHECKING:
    from tidegate.client.targets import Targets
    from tidegate.client.verify import VerifyOptions
    from tidegate.kube.kubeconfig import Cluster

PROBES_MAX = 100_000


@click.command(short_help="Does traffic reach a pod? Asks every node, and tries where asked to.")
@click.argument("pods", type=Reference("pod"), nargs=-1)
@cluster_options
@click.option("-l", "--selector", default="", help="Choose pods by labels instead of names.")
@click.option("--service", default="", metavar="NAME", help="Only routes of this Service.  [default: of all]")
@click.option("--probe", type=click.IntRange(1, PROBES_MAX), metavar="N", help="Open N connections from every node.")
@click.option("--probe-http", default="", metavar="PATH", help="GET PATH from every node instead.")
@click.option("--count", type=click.IntRange(1, PROBES_MAX), metavar="N", help="How many GETs.  [default: 1]")
@click.option(
    "--timeout", default="60s", type=Duration(), help="To wait for nodes that have not let go.  [default: 60s]"
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(pods: tuple[tuple[str, str], ...], **given: Any) -> None:
    """Whether any new connection can still reach a pod. Changes nothing on it.

    Of several pods the exit code is 1 where any has a route, else 4 where any is not known.

    Every node is asked at a fence written after a clean list of EndpointSlices. --probe opens N bare connections from
    every node through each address and NodePort of the pod's Services and tells which reach the pod; --probe-http
    sends a GET on each and shows the answers' status too.

    \b
    tidegate verify pod/web-7d9c5-x2x8k
    tidegate verify pod/web-7d9c5-x2x8k --probe 1000

    \b
    Exit codes: 0 no route, proven on every node
                1 a route is left: node, Service, slice are named
                4 not known: who could not be asked is named
    """
    from tidegate.client.targets import Targets, TooFewPods
    from tidegate.client.verify import VerifyOptions
    from tidegate.kube.kubeconfig import load

    if bool(pods) is bool(given["selector"]):
        raise click.UsageError("name pods (pod/NAME ...) or choose them with -l SELECTOR, one of both")
    options = VerifyOptions(
        timeout_seconds=given["timeout"],
        service=given["service"],
        probes=probes_of(given),
        path=path_of(given["probe_http"]),
    )
    cluster = load(given["kubeconfig"], given["context"])
    namespace = given["namespace"] or cluster.namespace
    with asking(cluster, namespace):
        about = Targets(namespace, tuple(name for _, name in pods), given["selector"])
        try:
            documents = asyncio.run(_verify(cluster, about, options))
        except TooFewPods as error:
            fail(str(error), FAILED)
    if given["output"] == "json":
        click.echo(json.dumps(documents[0] if len(documents) == 1 else {"items": documents}, indent=2))
    else:
        click.echo("\n\n".join("\n".join(lines(one)) for one in documents))
    codes = [exit_code(one["result"]) for one in documents]
    sys.exit(next((code for code in (FAILED, UNVERIFIED) if code in codes), DONE))


def probes_of(given: dict[str, Any]) -> int:
    """How many connections were asked for. Raises ``UsageError`` where the options contradict each other."""
    if given["probe"] and given["probe_http"]:
        raise click.UsageError("--probe and --probe-http exclude each other")
    if given["count"] and not given["probe_http"]:
        raise click.UsageError("--count is how many GETs of --probe-http; for bare connections write --probe N")
    return int(given["probe"] or given["count"] or 0)


def path_of(text: str) -> str:
    """Raises ``UsageError`` for what cannot stand on a request line."""
    if text and not (text.startswith("/") and text.isascii() and text.isprintable() and " " not in text):
        raise click.UsageError(f"--probe-http {text!r}: a path begins with a slash and has no spaces")
    return text


async def _verify(cluster: Cluster, about: Targets, options: VerifyOptions) -> list[dict[str, Any]]:
    """A document for each pod. They are asked about side by side: one fence serves all of them."""
    from tidegate.client.targets import pods_of
    from tidegate.client.verify import verify_pod
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=patience(options.timeout_seconds)) as client:
        names = await pods_of(client, about)
        found = await asyncio.gather(*(verify_pod(client, about.namespace, name, options) for name in names))
        return [one.document for one in found]


def exit_code(result: str) -> int:
    """0 for a proof, 1 for a route, 4 for everything that is not known."""
    return {"unrouted": DONE, "routed": FAILED}.get(result, UNVERIFIED)


_WORDS = {
    "unrouted": "no route is left",
    "routed": "traffic reaches it",
    "unknown": "not known",
    "assumed": "no route is known, and none is disproved",
}


def lines(document: dict[str, Any]) -> list[str]:
    """The answer for people: the verdict, then its evidence."""
    shown = [f"pod/{document['pod']} {document['result']}: {_WORDS[document['result']]}"]
    shown += [f"  {reason}" for reason in document["reasons"]]
    for one in document["nodes"]:
        detail = f"{one['detail']}  " if one["verdict"] == "no-route" else ""  # else it stands among the reasons
        evidence = f"[{one['evidence'] or 'no dump'}{', ' + one['at'] if one['at'] else ''}]"
        shown.append(f"node {one['node']:<12} {one['verdict']:<9} {detail}{evidence}")
    live = document["connections"]
    clients = f": {', '.join(live['clients'])}" if live["clients"] else ""
    shown.append(f"connections {live['problem'] or str(live['live']) + ' live' + clients}")
    for one in document["probes"]:
        shown.append(_probe(one))
    reached, tried = (sum(one[key] for one in document["probes"]) for key in ("reached", "probes"))
    if document["probes"]:
        shown.append(f"{reached:,} of {tried:,} reach the pod")
    return shown


def _probe(one: dict[str, Any]) -> str:
    counts = ", ".join(f"{one[key]} {key}" for key in ("opened", "reached", "refused", "unmatched"))
    statuses = ", ".join(f"{count} x {status}" for status, count in one["statuses"].items())
    more = f"; answers: {statuses}" if statuses else ""
    problem = f"; {one['problem']}" if one["problem"] else ""
    return f"probe {one['node']} {one['via']} {one['address']} ({one['service']}): {counts}{more}{problem}"
