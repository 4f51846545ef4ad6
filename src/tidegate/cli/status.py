"""``tidegate status svc/NAME|pod/NAME``: who gets traffic and why, as every node shows it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.target import Reference, asking, cluster_options

if TYPE_CHECKING:
    from tidegate.kube.kubeconfig import Cluster

WATCH_SECONDS = 1.0


@click.command(short_help="Who gets traffic of a Service, or of a pod, and why.")
@click.argument("subject", type=Reference("svc", "pod"))
@cluster_options
@click.option("-w", "--watch", is_flag=True, help="Print again whenever it changes.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(subject: tuple[str, str], **given: Any) -> None:
    """Who gets traffic of a Service, or of a pod, and why: endpoints, each node's routes and fence, drains in flight
    with the node that keeps each waiting, live connections.
    """
    from tidegate.kube.kubeconfig import load

    cluster = load(given["kubeconfig"], given["context"])
    namespace = given["namespace"] or cluster.namespace
    try:
        with asking(cluster, namespace):
            asyncio.run(_show(cluster, namespace, subject, given))
    except KeyboardInterrupt:
        sys.exit(130)


async def _show(cluster: Cluster, namespace: str, subject: tuple[str, str], given: dict[str, Any]) -> None:
    from tidegate.client import status_of
    from tidegate.kube.connect import open_cluster

    kind, name = subject
    shown = ""
    async with open_cluster(cluster) as client:
        while True:
            document = (await status_of(client, kind, namespace, name)).document  # type: ignore[arg-type]
            text = json.dumps(document, indent=2) if given["output"] == "json" else "\n".join(lines(document))
            if text != shown:
                click.echo(text if not shown else f"\n{text}")
                shown = text
            if not given["watch"]:
                return
            await asyncio.sleep(WATCH_SECONDS)


def lines(document: dict[str, Any]) -> list[str]:
    """The document as text: every line a fact, its source and its reason."""
    found = [f"{document['kind']}/{document['name']} in {document['namespace']}"]
    found += _pod_lines(document.get("pod"))
    for service in document["services"]:
        found.append(f"Service {service['namespace']}/{service['name']}")
        found += [f"  note: {reason}" for reason in service["reasons"]]
        found += _table([_endpoint_cells(entry) for entry in service["endpoints"]]) or ["  no endpoint"]
    if document["nodes"]:
        found.append("Nodes")
        found += _table([_node_cells(node) for node in document["nodes"]])
    for drain in document["drains"]:
        found += _drain_lines(drain)
    live = [entry for entry in document["connections"] if entry["live"] or entry["problem"]]
    if live:
        found.append("Connections")
        found += _table([_connection_cells(entry) for entry in live])
    return found + [f"note: {problem}" for problem in document["problems"]]


def _pod_lines(pod: dict[str, Any] | None) -> list[str]:
    if pod is None:
        return []
    state = "terminating" if pod["terminating"] else "ready" if pod["ready"] else "not ready"
    found = [f"  on {pod['node'] or 'no node'}, {state}, {'gated' if pod['gated'] else 'not gated'}"]
    found += [f"  {one}" for one in pod["selected"]]
    if pod["drain"]:
        found.append(f"  drain: {pod['drain'].lower()}")
    if pod["result"]:
        found.append(f"  result: {pod['result']}")
    return found + [f"  note: {one}" for one in pod["suspected"]]


def _endpoint_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    words = [word for word in ("ready", "serving", "terminating") if entry[word]]
    routed = "routed" if entry["routed"] else "not routed"
    return entry["address"], entry["pod"] or "-", entry["node"] or "-", ",".join(words) or "-", routed, entry["why"]


def _node_cells(node: dict[str, Any]) -> tuple[str, ...]:
    if node["problem"]:
        return node["node"], "-", node["problem"]
    fence = ", ".join(f"fence {number}" for _, number in sorted(node["fence"].items())) or "no fence"
    routed = sorted({endpoint for route in node["routes"] for endpoint in route["endpoints"]})
    return node["node"], fence, f"routes to {', '.join(routed)}" if routed else "no route"


def _drain_lines(drain: dict[str, Any]) -> list[str]:
    what = f"Drain of {drain['pod']} ({drain['mode']} mode, {drain['seconds']:.1f} s)"
    if drain["source"] != "clean":
        return [what, *(f"  waiting for {reason}" for reason in drain["reasons"])]
    if not drain["epoch"]:
        return [what, "  waiting for the fence to be written"]
    late = [f"  straggler {one['node']}: {one['verdict']}, {one['detail']}" for one in drain["stragglers"]]
    return [f"{what}, epoch {drain['epoch']}", *(late or ["  every node has let go"])]


def _connection_cells(entry: dict[str, Any]) -> tuple[str, ...]:
    clients = ", ".join(entry["clients"][:5]) + (" ..." if len(entry["clients"]) > 5 else "")
    return entry["address"], entry["pod"] or "-", entry["problem"] or f"{entry['live']} live from {clients}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows with aligned columns, indented."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
