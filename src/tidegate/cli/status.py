"""``tidegate status``: who gets traffic and why, as every node shows it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.target import Reference, asking, cluster_options, patience

if TYPE_CHECKING:
    from tidegate.client.status import Status, Subject
    from tidegate.kube.client import KubeClient
    from tidegate.kube.kubeconfig import Cluster

OUTPUTS = ("table", "wide", "json", "yaml", "name")


@click.command(short_help="Who gets traffic of a Service, a workload or a pod, and why.")
@click.argument("subject", type=Reference("svc", "pod", "deploy", "rs", "sts", "ds", "job"), required=False)
@cluster_options
@click.option("-A", "--all-namespaces", is_flag=True, help="One line per Service of every namespace.")
@click.option("-l", "--selector", default="", help="Only the pods with these labels, and their Services.")
@click.option("--orphans", is_flag=True, help="Held pods that nobody is at work on, and what to do about each.")
@click.option("--why", is_flag=True, help="Every reason, and every Service that does not select a pod.")
@click.option("-w", "--watch", is_flag=True, help="Go on, and show it again whenever it changes.")
@click.option("-o", "--output", type=click.Choice(OUTPUTS), default="table", show_default=True)
def status(subject: tuple[str, str] | None, **given: Any) -> None:
    """Who gets traffic and why: endpoints with their revision, where each node sends new connections, drains in
    flight with the node that keeps each waiting, live connections, and what is risky as it stands.

    Without SUBJECT: the namespace.

    \b
    tidegate status svc/echo -w      tidegate status deploy/echo
    tidegate status pod/echo-1 --why tidegate status --orphans -A
    """
    from tidegate.kube.kubeconfig import load

    alone = [option for option in ("all_namespaces", "selector", "orphans") if given[option]]
    if subject is not None and alone:
        raise click.UsageError(f"--{alone[0].replace('_', '-')} takes no {'/'.join(subject)}")
    if given["selector"] and (given["all_namespaces"] or given["orphans"]):
        raise click.UsageError("--selector is about the pods of one namespace, as they are now")
    cluster = load(given["kubeconfig"], given["context"])
    namespace = given["namespace"] or cluster.namespace
    try:
        with asking(cluster, namespace):
            asyncio.run(_show(cluster, namespace, subject, given))
    except KeyboardInterrupt:
        sys.exit(130)


async def _show(cluster: Cluster, namespace: str, subject: tuple[str, str] | None, given: dict[str, Any]) -> None:
    from tidegate.client.status import Subject
    from tidegate.kube.connect import open_cluster
    from tidegate.model import selector
    from tidegate.model.decode import Malformed

    try:
        selector.parse(given["selector"])
    except Malformed as error:
        raise click.UsageError(str(error)) from error
    kind, name = subject or ("namespace", "")
    if given["all_namespaces"]:
        kind, namespace = "cluster", ""
    about = Subject(kind, namespace, name, given["selector"])
    async with open_cluster(cluster, patience=patience()) as client:
        with _shower(given) as show:
            async for found in _answers(client, about, given):
                show(found.document)


async def _answers(client: KubeClient, about: Subject, given: dict[str, Any]) -> AsyncIterator[Status]:
    from tidegate.client.status import follow_orphans, follow_status, orphans_of, status_of

    if given["orphans"]:
        if not given["watch"]:
            yield await orphans_of(client, about.namespace)
            return
        async for found in follow_orphans(client, about.namespace):
            yield found
    elif given["watch"]:
        async for found in follow_status(client, about):
            yield found
    else:
        yield await status_of(client, about.kind, about.namespace, about.name, about.labels)


@contextlib.contextmanager
def _shower(given: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """How documents are shown: in place on a terminal that is watched, else one after the other."""
    output, why = given["output"], given["why"]
    if given["watch"] and output in ("table", "wide") and sys.stdout.isatty():
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda document: live.update(Text(rendered(document, output, why)), refresh=True)
        return
    shown = 0

    def show(document: dict[str, Any]) -> None:
        nonlocal shown
        text = rendered(document, output, why)
        click.echo(text if not shown or output in ("json", "name") else f"\n{text}")
        shown += 1

    yield show


def rendered(document: dict[str, Any], output: str, why: bool = False) -> str:
    """The document as ``-o`` asks for it."""
    from tidegate.cli.status_text import lines, names

    match output:
        case "json":
            return json.dumps(document, indent=2)
        case "yaml":
            import yaml

            return f"---\n{yaml.safe_dump(document, sort_keys=False)}".rstrip()
        case "name":
            return "\n".join(names(document))
        case _:
            return "\n".join(lines(document, output == "wide", why))
