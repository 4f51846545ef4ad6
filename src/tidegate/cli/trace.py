"""``tidegate trace pod/NAME``: the timeline of a pod's birth and death."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.target import Reference, asking, cluster_options, patience

if TYPE_CHECKING:
    from tidegate.client.trace import Trace
    from tidegate.kube.kubeconfig import Cluster


@click.command(short_help="The timeline of a pod's birth and death, each moment with its source.")
@click.argument("pod", type=Reference("pod"))
@cluster_options
@click.option("-w", "--watch", is_flag=True, help="Follow it to its end; waits for a pod that is not there yet.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def trace(pod: tuple[str, str], **given: Any) -> None:
    """Created, scheduled, address, started, ready, listed per Service, routed per node, first connection; deleted,
    terminating, unrouted per node, last connection, drained, SIGTERM, gone: each with the instant, and who says so.

    What nobody saw is shown as a gap, with the reason. Without --watch only what the objects tell, and what the
    nodes show now; API times are whole seconds.

    \b
    tidegate trace pod/web-7d9c5-x2x8k --watch
    """
    from tidegate.kube.kubeconfig import load

    cluster = load(given["kubeconfig"], given["context"])
    namespace = given["namespace"] or cluster.namespace
    try:
        with asking(cluster, namespace):
            asyncio.run(_trace(cluster, namespace, pod[1], given))
    except KeyboardInterrupt:
        sys.exit(130)


async def _trace(cluster: Cluster, namespace: str, name: str, given: dict[str, Any]) -> None:
    from tidegate.client.trace import Trace, document_of, follow_pod, trace_pod
    from tidegate.kube.connect import open_cluster
    from tidegate.kube.errors import ApiError

    is_json = given["output"] == "json"
    async with open_cluster(cluster, patience=patience()) as client:
        if not given["watch"]:
            try:
                _print(await trace_pod(client, namespace, name), is_json)
            except ApiError as error:
                if not error.is_not_found:
                    raise
                raise ApiError(error.code, error.reason, f"{error.message} (--watch would wait for it)") from error
            return
        found = Trace(namespace, name)
        if not is_json:
            click.echo(f"pod/{name} in {namespace}, as it happens")
            click.echo(row(("TIME", "STEP", "OF", "SOURCE", "DETAIL")))
        async for moment in follow_pod(client, namespace, name, found):
            if not is_json:
                click.echo(row(cells(document_of(moment))))
        if is_json:
            _print(found, True)


def _print(found: Trace, is_json: bool) -> None:
    click.echo(json.dumps(found.document, indent=2) if is_json else "\n".join(lines(found.document)))


def lines(document: dict[str, Any]) -> list[str]:
    """The document as a table, gaps where they belong."""
    from tidegate.cli.table import table

    on = f" on {document['node']}" if document["node"] else ""
    title = f"pod/{document['pod']} in {document['namespace']}{on}"
    header = ("TIME", "STEP", "OF", "SOURCE", "DETAIL")
    return [title, *table([cells(moment) for moment in document["moments"]], header)]


def cells(moment: dict[str, Any]) -> tuple[str, ...]:
    """One row. A time without fractions is the API's, to the second; ``gap`` stands where there is none."""
    at = moment["at"]
    time = "gap" if at is None else at[11:19] if moment["resolution_seconds"] >= 1 else at[11:23]
    detail = "; ".join(text for text in (moment["detail"], moment["gap"]) if text)
    return time, moment["step"], moment["subject"] or "-", moment["source"] or "-", detail


def row(found: tuple[str, ...]) -> str:
    """A row printed before the next one is known: columns of a fixed width."""
    widths = (12, 16, 24, 28, 0)
    return "  ".join(cell.ljust(width) for cell, width in zip(found, widths, strict=True)).rstrip()
