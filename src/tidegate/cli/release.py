"""``tidegate release``: from one revision to another without losing a request. One command for each verb."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from tidegate.cli import question
from tidegate.cli.fitted import fitted
from tidegate.cli.main import DONE, FAILED, REFUSED, UNVERIFIED, USAGE, fail
from tidegate.cli.target import KINDS, Duration, Reference, asking, cluster_options, engine_patience

if TYPE_CHECKING:
    from tidegate.client.release.book import AskableBook, Entry
    from tidegate.client.release.command import Verb
    from tidegate.kube.kubeconfig import Cluster

WORKLOAD = Reference("deploy")
REASON_WIDTH = 100
Option = Callable[[Callable[..., Any]], Callable[..., Any]]


@click.group(short_help="From one revision to another: rolling, blue/green, canary, rainbow.")
def release() -> None:
    """Release a new revision of a Deployment so that no request is lost.

    Four strategies, the same verbs. A release is written down beside its workload: killed anywhere, the next command
    goes on from what it finds.

    \b
    tidegate release start deploy/web --image web=shop/web:2 --dry-run
    tidegate release start deploy/web --image web=shop/web:2
    tidegate release start deploy/web --image web=shop/web:2 --strategy bluegreen --service web
    tidegate release status deploy/web -w
    tidegate release rollback deploy/web
    """


def _revisions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a release of the workload that was typed has been at."""
    from tidegate.cli.suggest import revisions

    del param
    # An option whose value is still being typed leaves the argument before it unread.
    typed = ctx.params.get("workload") or next(
        (tuple(one.split("/", 1)) for one in ctx.args if one.partition("/")[0] in KINDS["deploy"] and "/" in one), None
    )
    found = revisions(typed[1], ctx.params) if typed else []
    return [CompletionItem(name, help=images) for name, images in found if name.startswith(incomplete)]


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every verb that changes something."""
    for option in (
        click.option("--timeout", default="0", type=Duration(), help="Leave after this long; what was begun stays.  "
                     "[default: stay to its end]"),
        click.option("--no-wait", is_flag=True, help="Ask for it and leave: an operator, or another command, does it."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True),
    ):  # fmt: skip
        command = option(command)
    return cluster_options(command)


@release.command(short_help="Begin a release.")
@click.argument("workload", type=WORKLOAD, required=False)
@click.option("--image", "images", multiple=True, metavar="CONTAINER=IMAGE", help="Another image; may be repeated.")
@click.option("-f", "--filename", default="", help="A Deployment with the new template, or a Release; - is stdin.")
@click.option("--restart", is_flag=True, help="The same template once more.")
@click.option("--strategy", type=click.Choice(["rolling", "bluegreen", "canary", "rainbow"]), default=None,
              help="[default: rolling]")  # fmt: skip
@click.option("--service", default="", help="The Service to move.  [default: the only one that selects the pods]")
@click.option("--preview", default="", help="bluegreen: a Service for the new revision before the flip.")
@click.option("--manual", is_flag=True, help="bluegreen: flip when `release promote` says so.")
@click.option("--keep", type=Duration(), default=None, help="bluegreen: how long the old pods stay warm.  "
              "[default: until `release retire`]")  # fmt: skip
@click.option("--by", default="", help="bluegreen: a label of your own whose value differs.")
@click.option("--together", is_flag=True, help="bluegreen: both serve from when the new pods are ready until the flip.")
@click.option("--steps", default="", help="canary: weights, each with its pause: 10:5m,50:promote,100.")
@click.option("--route", default="", help="canary: by the weights of httproute/NAME or traefikservice/NAME.  "
              "[default: by the ratio of pods]")  # fmt: skip
@click.option("--cap", type=int, default=None, help="rainbow: live revisions at most.")
@click.option("--activity", default="", help="rainbow: how to ask a revision for its work.")
@click.option("--ungated", type=click.Choice(["drain", "proceed"]), default="drain", show_default=True,
              help="Pods without a gate: drain them by label first, or let them end unverified.")  # fmt: skip
@click.option("--on-unverified", type=click.Choice(["halt", "proceed"]), default="halt", show_default=True,
              help="What to do when a pod ended in another way than verified.")  # fmt: skip
@click.option("--progress", type=Duration(), default="10m", help="How long new pods may take.  [default: 10m]")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@_common
def start(workload: tuple[str, str] | None, **given: Any) -> None:
    """Begin a release of WORKLOAD and carry it to its end, or to where it waits for you.

    The plan comes first: its steps with their reasons, how long it takes and how many pods stand beside each other if
    new pods need 2 s and old ones end in 1.5 s. Ctrl-C leaves what was begun as it stands: `release resume` goes on,
    `release abort` goes back.

    \b
    tidegate release start deploy/web --image web=shop/web:2
    tidegate release start deploy/web --image web=shop/web:2 --strategy canary --steps 10:5m,50:promote,100
    tidegate release start -f new.yaml --strategy bluegreen --manual

    \b
    Exit codes: 0 done, or paused as asked    3 refused, nothing was changed
                1 halted on a breach, named,  4 done, not all of it verified
                  aborted by itself, paused as
                  an analysis cannot be asked,
                  or not done by --timeout
    """
    from tidegate.cli.release_spec import Unclear, wish_of

    try:
        wish = wish_of(workload, given)
    except Unclear as error:
        raise click.UsageError(str(error)) from error
    name = str(wish.get("workload", ""))
    _act(name, given, lambda cluster, namespace: _start(cluster, namespace, wish, given))


def _verb(verb: Verb, short: str, text: str, *options: Option, subject: str = "") -> None:
    """One command that asks a release for something and carries it on."""

    def run(workload: tuple[str, str], **given: Any) -> None:
        def work(cluster: Cluster, namespace: str) -> Any:
            return _ask(cluster, (namespace, workload[1]), (verb, given.get(subject) or ""), given)

        _act(workload[1], given, work)

    run.__doc__ = f"{text}\n\n\b\ntidegate release {verb} deploy/web"
    for option in options:
        run = option(run)
    run = click.argument("workload", type=WORKLOAD)(_common(run))
    release.command(name=verb, short_help=short)(run)


_verb(
    "promote",
    "Let the next pause pass.",
    "Let the pause that it waits in pass: the flip of a blue/green, the next step of a canary (--full: all of them).",
    click.option("--full", is_flag=True, help="All that is left."),
)
_verb(
    "pause",
    "Stop before the next step.",
    "Stop before the next step. What is being drained goes on to its end.",
)
_verb("resume", "Go on.", "Go on: after a pause, after a halt, or after the command that carried it was killed.")
_verb(
    "abort",
    "Back to the revision before.",
    "Give up the new revision: traffic goes back to the one before first, then the new pods are drained.",
)
_verb(
    "rollback",
    "To an earlier revision.",
    "Release an earlier revision again. One that still has pods has the traffic at once.",
    click.option("--to", default="", metavar="REVISION", shell_complete=_revisions, help="[default: the one before]"),
    subject="to",
)
_verb(
    "retire",
    "End a revision that is kept.",
    "Drain and end a revision that is kept warm (blue/green) or kept for its work (rainbow).",
    click.option("--revision", default="", shell_complete=_revisions, help="[default: the one before]"),
    subject="revision",
)


@release.command(short_help="Where a release stands, and why it waits.")
@click.argument("workload", type=WORKLOAD)
@click.option("-w", "--watch", is_flag=True, help="Go on, and show it again whenever it changes.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@cluster_options
def status(workload: tuple[str, str], **given: Any) -> None:
    """Revisions, their pods, weights and connections, drains in flight with what keeps each, the step and why it waits.

    \b
    tidegate release status deploy/web -w

    \b
    Exit codes: 0 done, or on its way                    4 done, not all of it verified
                1 halted, aborted by itself, or paused
                  since an analysis cannot be asked
    """
    from tidegate.cli.release_view import watched

    def work(cluster: Cluster, namespace: str) -> Any:
        return watched(cluster, namespace, workload[1], given)

    _act(workload[1], given, work)


@release.command(name="list", short_help="Releases of a namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "name"]), default="table", show_default=True)
@cluster_options
def list_(**given: Any) -> None:
    """Every release that is written down.

    \b
    tidegate release list -A
    """
    _act("", given, lambda cluster, namespace: _list(cluster, namespace, given))


@release.command(short_help="Revisions that were released before.")
@click.argument("workload", type=WORKLOAD)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@cluster_options
def history(workload: tuple[str, str], **given: Any) -> None:
    """Revisions of WORKLOAD, the newest last: what `release rollback --to` takes.

    \b
    tidegate release history deploy/web
    """
    _act(workload[1], given, lambda cluster, namespace: _history(cluster, namespace, workload[1], given))


# --- carried out ---


def _act(workload: str, given: dict[str, Any], work: Callable[[Cluster, str], Any]) -> None:
    from tidegate.kube.kubeconfig import load

    cluster = load(given["kubeconfig"], given["context"])
    namespace = given["namespace"] or cluster.namespace
    try:
        with asking(cluster, namespace):
            document, code = asyncio.run(work(cluster, namespace))
    except KeyboardInterrupt:
        if workload and "yes" in given:
            click.echo(
                f"what was begun stays as it stands: `tidegate release resume deploy/{workload}` goes on, "
                f"`tidegate release abort deploy/{workload}` goes back",
                err=True,
            )
        raise
    if document is not None and given["output"] == "json":
        click.echo(json.dumps(document, indent=2))
    sys.exit(code)


async def _start(cluster: Cluster, namespace: str, wish: dict[str, Any], given: dict[str, Any]) -> tuple[Any, int]:
    from tidegate.cli.release_book import opened, patience
    from tidegate.cli.release_spec import Unclear, spec_of
    from tidegate.cli.release_view import plan_lines
    from tidegate.client.release.command import About, begin_release, plan_release
    from tidegate.client.release.document import plan_document
    from tidegate.kube.connect import open_cluster
    from tidegate.release.spec import Invalid

    async with open_cluster(cluster, patience=engine_patience()) as client:
        try:
            spec = await spec_of(client, namespace, wish)
        except Unclear as error:
            raise click.UsageError(str(error)) from error
        except Invalid as error:
            fail("; ".join(error.problems), USAGE)
        book = await opened(client, About(namespace, spec.workload))
        plan = await plan_release(client, book, namespace, spec, await patience(client, book) > 0)
        _where(cluster, namespace)
        for line in plan_lines(plan):
            click.echo(fitted(line), err=True)
        if plan.refusals or given["dry_run"]:
            return plan_document(plan), REFUSED if plan.refusals else DONE
        if not question.is_wanted(given["yes"]):
            fail("nothing was changed", FAILED)
        entry = await begin_release(book, plan)
        return await _carried(client, book, entry, given)


async def _ask(
    cluster: Cluster, about: tuple[str, str], asked: tuple[Verb, str], given: dict[str, Any]
) -> tuple[Any, int]:
    from tidegate.cli.release_book import opened
    from tidegate.client.release.command import About, ask_release, changed, no_way_back, sight_of, unknown
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=engine_patience()) as client:
        _where(cluster, about[0])
        try:
            book = await opened(client, About(*about))
            # Only a revision that was named can be unknown.
            if asked[1] and (wrong := unknown(await sight_of(client, book, About(*about)), *asked)):
                fail(wrong, REFUSED)
            if asked[0] == "rollback" and (wrong := await no_way_back(client, book, About(*about), asked[1])):
                fail(wrong, REFUSED)
            entry = await ask_release(
                book, About(*about), lambda found: changed(found, *asked, bool(given.get("full")))
            )
        except ValueError as error:
            fail(str(error), REFUSED)
        return await _carried(client, book, entry, given)


async def _carried(client: Any, book: AskableBook, entry: Entry, given: dict[str, Any]) -> tuple[Any, int]:
    from tidegate.cli.ledger import default_path
    from tidegate.cli.release_book import patience
    from tidegate.cli.release_view import Progress, closing
    from tidegate.client.identity import this_process
    from tidegate.client.release.command import About, ReleaseOptions, carry_on, seen
    from tidegate.client.release.document import document
    from tidegate.engine.ledger import Ledger

    workload, about = entry.spec.workload, About(entry.namespace, entry.spec.workload)
    if given["no_wait"]:
        click.echo(f"asked for; `tidegate release status deploy/{workload} -w` shows it", err=True)
    else:
        options = ReleaseOptions(
            identity=this_process(),
            ledger=Ledger(default_path()),
            timeout_seconds=given["timeout"] or float("inf"),
            patience_seconds=await patience(client, book),
        )
        with Progress() as progress:
            entry = await carry_on(client, book, about, options, progress.heard)
    shown = document(await seen(client, entry))
    if given["output"] == "text" and not given["no_wait"]:
        click.echo(fitted(closing(shown), sys.stdout))
    if given["no_wait"]:
        return shown, DONE
    is_under_way = shown["phase"] not in ("done", "aborted", "paused")
    return shown, FAILED if is_under_way else exit_code(shown)


def exit_code(shown: dict[str, Any]) -> int:
    """0 done, or waiting as asked; 1 halted, aborted by itself, or paused as an analysis cannot be asked; 4 done, and
    something of it was not verified."""
    from tidegate.release.analysis import PROBLEMS_MAX

    is_unanswered = any(one["problems"] >= PROBLEMS_MAX for one in shown["analyses"])
    is_by_itself = shown["phase"] == "aborted" and shown["cause"]
    if shown["phase"] == "halted" or is_by_itself or (shown["phase"] == "paused" and is_unanswered):
        return FAILED
    is_assumed = any(one["verdict"] == "assumed" for one in shown["questions"])
    return UNVERIFIED if shown["phase"] in ("done", "aborted") and (shown["unverified"] or is_assumed) else DONE


def _where(cluster: Cluster, namespace: str) -> None:
    click.echo(f"context {cluster.context or '-'}, server {cluster.server}, namespace {namespace}", err=True)


async def _list(cluster: Cluster, namespace: str, given: dict[str, Any]) -> tuple[Any, int]:
    from tidegate.cli.release_book import releases
    from tidegate.cli.release_view import short
    from tidegate.cli.table import table
    from tidegate.client.release.document import summary
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=engine_patience()) as client:
        found = [summary(one) for one in await releases(client, "" if given["all_namespaces"] else namespace)]
    if given["output"] == "name":
        click.echo("\n".join(f"deploy/{one['workload']}" for one in found))
    elif given["output"] == "table":
        keys = ["namespace"] if given["all_namespaces"] else []
        keys += ["workload", "strategy", "phase", "revision", "stable", "reason"]
        rows = [[short(str(one[key]), REASON_WIDTH) for key in keys] for one in found]
        lines = table(rows, [key.upper() for key in keys])
        click.echo("\n".join(lines) or f"no release in {'any namespace' if given['all_namespaces'] else namespace}")
    return {"items": found}, DONE


async def _history(cluster: Cluster, namespace: str, workload: str, given: dict[str, Any]) -> tuple[Any, int]:
    from tidegate.cli.release_book import opened
    from tidegate.cli.table import table
    from tidegate.client.release.command import About, sight_of
    from tidegate.client.release.document import history as past_of
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster, patience=engine_patience()) as client:
        about = About(namespace, workload)
        found = past_of((await sight_of(client, await opened(client, about), about)).entry)
    if given["output"] == "table":
        rows = [
            [one["revision"], " ".join(f"{k}={v}" for k, v in sorted(one["images"].items())), one["at"], one["outcome"]]
            for one in found
        ]
        click.echo("\n".join(table(rows, ("REVISION", "IMAGES", "AT", "OUTCOME"))) or "no revision before this one")
    return {"items": found}, DONE
