"""What every verb that changes pods has in common: its options, its plan on stderr, the question, progress, results.

The order is always the same: context and plan, refusals, ``--dry-run`` stops, a terminal is asked, then pod by pod.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli import question
from tidegate.cli.main import DONE, FAILED, REFUSED, UNVERIFIED, fail
from tidegate.cli.target import Duration, asking, cluster_options, patience

if TYPE_CHECKING:
    from tidegate.client import PodPlan, VerbOptions
    from tidegate.client.options import Verb
    from tidegate.client.targets import Targets
    from tidegate.drain.progress import Drain
    from tidegate.kube.client import KubeClient
    from tidegate.kube.kubeconfig import Cluster
    from tidegate.model.names import DrainResult


LOOK_SECONDS = 3.0
"""For the last look of a verb that was interrupted."""


def verb_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every verb that changes pods."""
    for option in (
        click.option("-l", "--selector", default="", help="Choose pods by labels instead of names."),
        click.option("--count", default=0, type=click.IntRange(0), help="How many of the selected.  [default: all]"),
        click.option("--floor", default=1, show_default=True, type=click.IntRange(0), help="Ready endpoints to keep."),
        click.option("--force", is_flag=True, help="Override floors and budgets, never verification."),
        click.option("--settle", default="15s", type=Duration(), help="Wait where nobody can be asked. [default: 15s]"),
        click.option("--reason", default="", help="Why: recorded on the pod."),
        click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True),
    ):  # fmt: skip
        command = option(command)
    return cluster_options(command)


def chosen(given: dict[str, Any], **more: Any) -> VerbOptions:
    """The options of the command line, asked by this process."""
    from tidegate.cli.ledger import default_path
    from tidegate.client import VerbOptions
    from tidegate.client.identity import this_process
    from tidegate.engine.ledger import Ledger

    return VerbOptions(
        floor=given["floor"],
        force=given["force"],
        settle_seconds=given["settle"],
        reason=given["reason"],
        identity=this_process(),
        ledger=Ledger(default_path()),
        **more,
    )


@dataclass(frozen=True, slots=True)
class Deed:
    """One verb on some pods. ``plan(client, name, is_witnessed)`` looks, ``carry_out(client, plan, told)`` acts."""

    verb: str
    targets: Targets
    options: VerbOptions
    plan: Callable[[KubeClient, str, bool], Awaitable[PodPlan]]
    carry_out: Callable[[KubeClient, PodPlan, Callable[[Drain], None]], Awaitable[DrainResult]]


def deed(verb: Verb, about: Targets, options: VerbOptions) -> Deed:
    """``verb`` as ``plan_pod`` and ``carry_out`` know it."""
    from tidegate.client import carry_out, plan_pod

    def plan(client: KubeClient, name: str, is_witnessed: bool) -> Awaitable[PodPlan]:
        return plan_pod(client, (about.namespace, name), verb, options, is_witnessed)

    def act(client: KubeClient, planned: PodPlan, told: Callable[[Drain], None]) -> Awaitable[DrainResult]:
        return carry_out(client, planned, options, told)

    return Deed(verb, about, options, plan, act)


def run(
    verb: Verb,
    pods: tuple[tuple[str, str], ...],
    options: VerbOptions,
    given: dict[str, Any],
    made: Callable[[Targets], Deed] | None = None,
) -> None:
    """Carry ``verb`` out on the pods of the command line, and leave with the exit code of what came of it.

    ``made``: the deed, where it is another than ``plan_pod`` and ``carry_out``.
    """
    from tidegate.client.targets import TooFewPods
    from tidegate.kube.kubeconfig import load

    about = targets(given["namespace"], pods, given)
    cluster = load(given["kubeconfig"], given["context"])
    about = replace(about, namespace=about.namespace or cluster.namespace)
    with asking(cluster, about.namespace):
        asked = deed(verb, about, options) if made is None else made(about)
        try:
            documents, codes = asyncio.run(_run(cluster, asked, given))
        except TooFewPods as error:
            fail(f"{error}; nothing was changed", REFUSED)
        finally:
            note_unkept(options)
    if given["output"] == "json" and documents:
        click.echo(json.dumps(documents[0] if len(documents) == 1 else {"items": documents}, indent=2))
    sys.exit(worst(codes))


def note_unkept(options: VerbOptions) -> None:
    """A ledger that cannot be written to stops nothing, and is said."""
    if options.ledger is not None and options.ledger.failure:
        click.echo(f"note: {options.ledger.failure}; $TIDEGATE_LEDGER names another file", err=True)


def targets(namespace: str, named: tuple[tuple[str, str], ...], given: dict[str, Any]) -> Targets:
    """What the command line names: pods, one workload, or a selector. Raises ``UsageError``."""
    from tidegate.client.targets import Targets

    kinds = {kind for kind, _ in named}
    if bool(named) is bool(given["selector"]):
        raise click.UsageError("name pods (pod/NAME ...) or choose them with -l SELECTOR, one of both")
    if kinds - {"pod"} and len(named) > 1:
        raise click.UsageError("name several pods, or one workload")
    if kinds == {"pod"} and given["count"]:
        raise click.UsageError("--count chooses among what -l selects or a workload owns; pods named are all meant")
    if kinds - {"pod"}:
        return Targets(namespace, count=given["count"], workload=named[0])
    return Targets(namespace, tuple(name for _, name in named), given["selector"], given["count"])


async def _plans(client: KubeClient, deed: Deed, names: tuple[str, ...], is_witnessed: bool) -> list[PodPlan]:
    """Of several that are named, one that is gone already is passed over: the run before this one may have ended it."""
    from tidegate.kube.errors import ApiError

    plans, missing = [], []
    for name in names:
        try:
            plans.append(await deed.plan(client, name, is_witnessed))
        except ApiError as error:
            if not error.is_not_found:
                raise
            missing.append((name, error))
    if missing and not plans:
        raise missing[0][1]
    for name, _ in missing:
        click.echo(f"pod/{name}: there is no such pod, or no more: passed over", err=True)
    return plans


async def _run(cluster: Cluster, deed: Deed, given: dict[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """A document and an exit code for each pod."""
    from tidegate.client.many import in_turn, mark, run_of, whole_again
    from tidegate.client.reservation import sweep
    from tidegate.client.targets import pods_of
    from tidegate.kube.connect import open_cluster
    from tidegate.kube.errors import KubeError
    from tidegate.observers.proxied import is_installed

    async with open_cluster(cluster, patience=patience(deed.options.timeout_seconds)) as client:
        is_run = deed.verb == "drain" and bool(deed.targets.subject)
        marked = await run_of(client, deed.targets) if is_run else None
        names = await pods_of(client, deed.targets) if marked is None else marked.names
        is_witnessed = await is_installed(client)
        plans = await _plans(client, deed, names, is_witnessed)
        click.echo(
            f"context {cluster.context or '-'}, server {cluster.server}, namespace {deed.targets.namespace}", err=True
        )
        if marked is not None and marked.is_continued:
            click.echo(f"continue the drain of {marked.mark.rpartition(' ')[0]}: {len(names)} pods are left", err=True)
        for plan in plans:
            show(plan, deed.options)
        if given["dry_run"]:
            return [plan.document(deed.options) for plan in plans], [_foreseen(plan, deed.options) for plan in plans]
        is_wanted = any(not plan.refused(deed.options) for plan in plans)
        if is_wanted and not question.is_wanted(given["yes"]):
            fail("nothing was changed", FAILED)
        if marked is not None:
            await mark(client, marked)
        elif deed.verb == "drain":
            await sweep(client, deed.targets.namespace)
        count = len(plans)

        async def carry_out(current: PodPlan, place: int) -> DrainResult:
            name = current.pod.name
            told = Progress(f"{name} ({place}/{count})" if count > 1 else "")
            try:
                result = await deed.carry_out(client, current, told)
            except (asyncio.CancelledError, KubeError):
                click.echo(await standing(client, current), err=True)
                raise
            if given["output"] == "text":
                click.echo(sentence(name, result))
                for line in await meaning(client, current, result):
                    click.echo(f"  {line}")
            return result

        async def whole(before: PodPlan) -> str:
            if deed.verb != "drain":
                return ""
            return await whole_again(client, before, deed.options, Progress(f"after {before.pod.name}"))

        def is_enough(result: DrainResult) -> bool:
            return deed.verb != "drain" or bool(given.get("keep_going")) or exit_code(result) == DONE

        outcomes = await in_turn(
            tuple(plan.pod.name for plan in plans),
            lambda name: deed.plan(client, name, is_witnessed), carry_out, whole, is_enough,
        )  # fmt: skip
        left = [plan.pod.name for plan in plans[len(outcomes) :]]
        if left:
            click.echo(
                f"stopped: not begun are {', '.join(f'pod/{name}' for name in left)}; --keep-going goes on", err=True
            )
        return [document(one.plan, one.result) for one in outcomes], [exit_code(one.result) for one in outcomes]


def show(plan: PodPlan, options: VerbOptions, name: str = "") -> None:
    """The plan, for people, on stderr."""
    click.echo(f"{plan.verb} {name or f'pod/{plan.pod.name}'} on {plan.pod.node or 'no node'}:", err=True)
    for number, step in enumerate(plan.steps(options), start=1):
        click.echo(f"  {number}. {step}", err=True)
    for line in plan.consequences:
        click.echo(f"  note: {line}", err=True)
    if forced := plan.forced(options):
        click.echo(f"  forced: {forced}", err=True)
    for reason in plan.refused(options):
        click.echo(f"  refused: {reason}", err=True)


def _foreseen(plan: PodPlan, options: VerbOptions) -> int:
    return REFUSED if plan.refused(options) else DONE


class Progress:
    """A line on stderr for each state, with what is being waited for. ``name``: of the pod, where there are several."""

    def __init__(self, name: str = "") -> None:
        self._began = asyncio.get_running_loop().time()
        self._name = f"{name}: " if name else ""

    def __call__(self, drain: Drain) -> None:
        from tidegate.drain.result import waiting_for

        seconds = asyncio.get_running_loop().time() - self._began
        waiting = "; ".join(waiting_for(drain))
        state = drain.state.name.lower()
        told = f"{state:<9} {f'waiting for {waiting}' if waiting else ''}".rstrip()
        click.echo(f"{seconds:6.1f} s  {self._name}{told}", err=True)


def exit_code(result: DrainResult) -> int:
    """Design: 0 done, 3 refused, 4 not verified."""
    match result.result.value:
        case "verified":
            return DONE
        case "refused":
            return REFUSED
        case _:
            return UNVERIFIED


def worst(codes: list[int]) -> int:
    """One exit code for several pods: what failed, then what is not verified, then what was refused."""
    return next((code for code in (FAILED, UNVERIFIED, REFUSED) if code in codes), DONE)


def document(plan: PodPlan, result: DrainResult) -> dict[str, Any]:
    """What ``-o json`` prints about one pod."""
    return {
        "verb": plan.verb,
        "namespace": plan.pod.namespace,
        "pod": plan.pod.name,
        "result": result.result.value,
        "reason": result.reason,
        "stragglers": list(result.stragglers),
        "epoch": result.epoch,
        "seconds": result.seconds,
    }


async def standing(client: KubeClient, plan: PodPlan) -> str:
    """What stands on a pod whose verb was interrupted, and how to go on or back."""
    from tidegate.kube.api import PODS
    from tidegate.kube.errors import KubeError
    from tidegate.model import pod
    from tidegate.traffic import held

    where = f"pod/{plan.pod.name} -n {plan.pod.namespace}"
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            found = pod.decode(await client.get(PODS, plan.pod.name, plan.pod.namespace))
    except (KubeError, TimeoutError) as error:
        return f"pod/{plan.pod.name}: what stands is not known ({error}): `tidegate status {where}`"
    hold = held(found)
    if hold is None:
        return (
            f"pod/{plan.pod.name}: nothing stands of it" if plan.verb != "restore" else f"pod/{plan.pod.name} is free"
        )
    state = hold.record.state.lower() if hold.record is not None else "held"
    back = "" if hold.is_sealed or plan.verb == "restore" else f", `tidegate restore {where}` gives it back"
    return f"pod/{plan.pod.name} stands at {state}, nobody is at work on it: the same command again goes on{back}"


async def meaning(client: KubeClient, plan: PodPlan, result: DrainResult) -> tuple[str, ...]:
    """What the result of a cut is worth to whoever asked, and what to do next; nothing for what speaks for itself."""
    if plan.verb != "cut" or result.result.value in ("bypassed", "refused"):
        return ()
    where = f"pod/{plan.pod.name} -n {plan.pod.namespace}"
    ways = f"`tidegate restore {where}` gives it back, `tidegate drain {where}` retires it"
    if result.result.value == "timed-out":
        return (f"next: `tidegate cut {where}` goes on waiting; {ways}",)
    services = " or ".join(map(str, plan.services)) or "any Service"
    proof = "no new connection can arrive" if result.result.value == "verified" else "no new connection is expected"
    return (f"{proof} through {services}; {await _in_flight(client, plan)}", f"next: {ways}")


async def _in_flight(client: KubeClient, plan: PodPlan) -> str:
    """How many connections the pod still has, by its node's agent."""
    from tidegate.kube.errors import KubeError
    from tidegate.observers.proxied import ProxiedAgents
    from tidegate.traffic import every_endpoint

    at = plan.serving or every_endpoint(plan.pod)
    if not plan.is_witnessed or not at:
        return "nobody can say what is still in flight"
    try:
        quiet = await ProxiedAgents(client).connections(plan.pod.node, at)
    except KubeError as error:
        return f"what is still in flight is not known: {error}"
    if quiet.unreadable:
        return f"what is still in flight is not known: {quiet.unreadable[0]}"
    count = len(quiet.live)
    return f"{count} connection{'' if count == 1 else 's'} in flight go on" if count else "nothing is in flight"


def sentence(name: str, result: DrainResult) -> str:
    """The result in a line."""
    seconds = f" after {result.seconds:.1f} s" if result.seconds else ""
    reason = f": {result.reason}" if result.reason else ""
    stragglers = f" [stragglers: {', '.join(result.stragglers)}]" if result.stragglers else ""
    return f"pod/{name} {result.result.value}{seconds}{reason}{stragglers}"
