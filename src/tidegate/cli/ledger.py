"""``tidegate ledger [pod/NAME]``: what was retired, cut, isolated, restored, and on whose word."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.target import Duration, Reference, cluster_options, patience

if TYPE_CHECKING:
    from tidegate.client.ledger import Found
    from tidegate.drain.ledger import Answer, Entry, InFlight

HEADER = ("WHEN", "VERB", "POD", "RESULT", "SECONDS", "SLOWEST", "CONNECTIONS")
WIDE = ("NODE", "BY", "EPOCH", "SERVICES", "REASON")


def default_path() -> str:
    """$TIDEGATE_LEDGER (empty: keep none), else ``ledger.jsonl`` in $TIDEGATE_STATE or the XDG state folder."""
    if "TIDEGATE_LEDGER" in os.environ:
        return os.environ["TIDEGATE_LEDGER"]
    if os.environ.get("TIDEGATE_STATE"):
        return str(Path(os.environ["TIDEGATE_STATE"]).absolute() / "ledger.jsonl")
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:  # an account without a home
        return ""
    return str(base.absolute() / "tidegate" / "ledger.jsonl")


@click.command(short_help="What was drained, cut, isolated and restored, and on whose word.")
@click.argument("pod", type=Reference("pod"), required=False)
@cluster_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Every namespace.")
@click.option("--since", type=Duration(), default=None, help="Only what ended within this time, such as 1h.")
@click.option("--file", "path", default="", metavar="FILE", help="Read this file alone, and ask nobody.")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json"]), default="table", show_default=True)
def ledger(pod: tuple[str, str] | None, path: str, **given: Any) -> None:
    """Every drain, cut, isolate and restore from this machine, and every drain of a gate that a node's agent kept.

    With pod/NAME the whole story: each acknowledgement with its latency and its evidence, connections at the cut and
    at the end, and what was seen to contradict it later.

    \b
    tidegate ledger --since 1h
    tidegate ledger pod/web-7d9c5-x2x8k
    """
    from tidegate import vtime
    from tidegate.client.ledger import Wanted
    from tidegate.drain.ledger import as_text
    from tidegate.kube.errors import KubeError
    from tidegate.kube.kubeconfig import load

    cluster = None
    try:
        cluster = None if path else load(given["kubeconfig"], given["context"])
    except KubeError as error:
        path = default_path()
        if given["kubeconfig"] or given["context"] or not os.path.exists(path):
            raise
        click.echo(f"note: no node can be asked, this is {path} alone: {error}", err=True)
    namespace = given["namespace"] or ("" if cluster is None or given["all_namespaces"] else cluster.namespace)
    since = given["since"]
    after = "" if since is None else as_text((vtime.now() - timedelta(seconds=since)).timestamp())
    wanted = Wanted("" if given["all_namespaces"] else namespace, pod[1] if pod else "", after)
    found = asyncio.run(_find(cluster, path, wanted))
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(rendered(found, given["output"], pod is not None))
    sys.exit(0)


async def _find(cluster: Any, path: str, wanted: Any) -> Found:
    from tidegate.client.ledger import find
    from tidegate.engine.ledger import Ledger
    from tidegate.kube.connect import open_cluster

    if cluster is None:
        if not Path(path).exists():
            raise FileNotFoundError(2, "there is no such file", path)
        return await find(None, Ledger(path), wanted)
    async with open_cluster(cluster, patience=patience()) as client:
        return await find(client, Ledger(default_path()), wanted)


def rendered(found: Found, output: str, is_story: bool = False) -> str:
    """As ``-o`` asks for it."""
    import msgspec

    from tidegate.cli.table import table

    if output == "json":
        return json.dumps({"items": msgspec.to_builtins(found.entries), "notes": list(found.notes)}, indent=2)
    if not found.entries:
        return "nothing was retired, as far as this ledger goes"
    if is_story:
        return "\n\n".join("\n".join(story(one)) for one in found.entries)
    is_wide = output == "wide"
    rows = [(*cells(one), *(wide_cells(one) if is_wide else ())) for one in found.entries]
    return "\n".join(table(rows, HEADER + (WIDE if is_wide else ())))


def cells(one: Entry) -> tuple[str, ...]:
    """One row."""
    slowest = one.slowest
    late = "" if slowest is None else f"{slowest.observer} {_latency(slowest)}"
    in_flight = f"{_count(one.connections_at_cut)} -> {_count(one.connections_at_end)}" if one.cut else ""
    result = f"{one.result} ({len(one.regressions)} regressions)" if one.regressions else one.result
    seconds = f"{one.seconds:.1f}" if one.verb else ""
    return _when(one), one.verb or "-", f"{one.namespace}/{one.pod}", result, seconds, late, in_flight


def wide_cells(one: Entry) -> tuple[str, ...]:
    """What a wide row has more."""
    return one.node, one.by or one.stamp, one.epoch, ", ".join(one.services), one.reason


def story(one: Entry) -> list[str]:
    """One retirement, told in lines."""
    by = f" by {one.by or one.stamp}" if one.by or one.stamp else ""
    on = f" on {one.node}" if one.node else ""
    lines = [f"{one.verb or 'unknown'} pod/{one.pod} in {one.namespace}{on}{by}: {one.result}, {one.at}"]
    facts = (
        ("uid", one.uid),
        ("why", one.why),
        ("services", ", ".join(one.services)),
        ("began", one.began),
        ("cut", one.cut or ("" if not one.verb else "never, or nobody saw it")),
        ("deadline", " ".join(part for part in (one.deadline, one.on_deadline and f"then {one.on_deadline}") if part)),
        ("epoch", one.epoch),
    )
    lines += [f"  {name:<12}{text}" for name, text in facts if text]
    for answer in reversed(one.answers):
        lines += _told(answer)
    if one.answers_left_off:
        lines.append(f"  {one.answers_left_off} observers that let go earlier are not kept by name")
    lines += [f"  suspected   {text}" for text in one.suspected]
    if one.cut:
        lines.append(f"  at the cut  {_connections(one.connections_at_cut)}")
        lines.append(f"  at the end  {_connections(one.connections_at_end)}")
    if one.probe:
        lines.append(f"  activity    {one.probe}: {one.activity or 'not asked'}")
    seconds = f" after {one.seconds:.3f} s" if one.cut else ""
    reason = f": {one.reason}" if one.reason else ""
    lines.append(f"  result      {one.result}{seconds}{reason}")
    lines += [f"  stragglers  {', '.join(one.stragglers)}"] if one.stragglers else []
    lines += [f"  after it    {text}" for text in one.regressions]
    return lines


def _told(answer: Answer) -> list[str]:
    at = f", dump of {answer.at}" if answer.at else ""
    evidence = f" [{answer.evidence}{at}, {answer.digest}]" if answer.evidence else ""
    lines = [f"  {_latency(answer):>9}   {answer.observer} {answer.verdict}: {answer.detail}{evidence}"]
    return lines + [f"  {turn.seconds:7.3f} s     said {turn.verdict}: {turn.detail}" for turn in answer.history[:-1]]


def _latency(answer: Answer) -> str:
    return "never" if answer.seconds is None else f"{answer.seconds:.3f} s"


def _count(one: InFlight) -> str:
    return "?" if one.count is None else str(one.count)


def _connections(one: InFlight) -> str:
    if one.count is None:
        return f"connections not known: {one.problem}"
    who = f", from {', '.join(one.clients)}" if one.clients else ""
    return f"{one.count} connections in flight{who}"


def _when(one: Entry) -> str:
    return one.at[:19].replace("T", " ") + "Z"
