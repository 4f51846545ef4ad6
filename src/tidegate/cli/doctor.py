"""``tidegate doctor``: is everything there that the verbs need, and is anything left over?"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.main import DONE, FAILED, UNVERIFIED
from tidegate.cli.target import cluster_options, patience

if TYPE_CHECKING:
    from tidegate.kube.kubeconfig import Cluster

_CODES = {"ok": DONE, "warn": DONE, "unknown": UNVERIFIED, "fail": FAILED}


@click.command(short_help="Is everything there that the verbs need? Each finding with its next step.")
@cluster_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Permissions, gates and leftovers of every namespace.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(**given: Any) -> None:
    """Look at the API server, these credentials, the coordinator, every node's agent, proxy and fence, pods without a
    gate, and records that are left over.

    \b
    ok       as it should be           unknown  could not be told
    warn     works, and is a risk      fail     something will not work
    Exit code: 1 with a fail, else 4 with an unknown, else 0.
    """
    from tidegate.kube.kubeconfig import load

    cluster = load(given["kubeconfig"], given["context"])
    namespace = "" if given["all_namespaces"] else given["namespace"] or cluster.namespace
    try:
        sys.exit(asyncio.run(_examine(cluster, namespace, given["output"])))
    except KeyboardInterrupt:
        sys.exit(130)


async def _examine(cluster: Cluster, namespace: str, output: str) -> int:
    from tidegate.client.doctor import examine
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=patience()) as client:
        found = await examine(client, namespace)
    document = {"context": cluster.context, **found.document}
    click.echo(json.dumps(document, indent=2) if output == "json" else "\n".join(lines(document)))
    return _CODES[found.level]


def lines(document: dict[str, Any]) -> list[str]:
    """The findings, the next step of each below it; those that are the same of many subjects share a line."""
    where = f"namespace {document['namespace']}" if document["namespace"] else "every namespace"
    found = [f"context {document['context'] or '-'}, server {document['server']}, {where}"]
    shared: dict[tuple[str, str, str, str], list[str]] = {}
    for one in document["findings"]:
        key = (one["level"], one["check"], one["sentence"], one["next"])
        shared.setdefault(key, []).append(one["subject"])
    for (level, check, sentence, step), subjects in shared.items():
        named = ", ".join(subject for subject in subjects if subject)
        found.append(f"{level:<7}  {check:<11}  {f'{named}: ' if named else ''}{sentence}")
        if step:
            found.append(f"{'':<22}-> {step}")
    return found
