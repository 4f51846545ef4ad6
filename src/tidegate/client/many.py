"""Several pods in turn: which are meant is recorded on them first, so that a run that was killed goes on with the same.

A drain of a workload, or by selector, is about the pods that are there when it begins. Each is marked with the subject
and the instant of the youngest (their creation, by the server's clock). Whoever runs it again finds the marks and goes
on with what is left of these; a pod made since is younger and is not drained a second time. Marks go with their pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tidegate.client.capacity import Capacity
from tidegate.client.options import VerbOptions
from tidegate.client.plan import PodPlan
from tidegate.client.targets import Targets, candidates, enough
from tidegate.drain.progress import Drain, begin
from tidegate.drain.state import Mode
from tidegate.engine import act
from tidegate.kube.api import PODS, Api, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import pod
from tidegate.model.names import DRAIN_RUN, DrainResult, Ending
from tidegate.model.pod import Pod

LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Run:
    """The pods of one run, in order. ``at`` is what their marks say; ``unmarked`` are those that lack theirs."""

    pods: tuple[Pod, ...]
    mark: str
    unmarked: tuple[Pod, ...]
    is_continued: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.pods)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one pod. ``plan`` is what was done, the pod as it was seen just before."""

    plan: PodPlan
    result: DrainResult


async def run_of(api: Api, targets: Targets) -> Run:
    """The run to begin, or the one to continue; changes nothing. Raises ``KubeError``, ``TooFewPods``."""
    found = [pod.decode(obj) for obj in (await api.list(PODS, Selection(targets.namespace))).items]
    marked = [one for one in found if _subject(one) == targets.subject and not one.is_finished]
    if not marked:
        chosen = tuple(enough(await candidates(api, targets), targets))
        mark = f"{targets.subject} {max(map(_made, chosen))}"
        return Run(chosen, mark, chosen)
    mark = max(one.annotations[DRAIN_RUN] for one in marked)
    known = {one.uid for one in marked}
    # Killed before every mark was made: what is as old as the marked ones was there too.
    missed = [] if targets.count else [one for one in await candidates(api, targets) if one.uid not in known]
    missed = [one for one in missed if f"{targets.subject} {_made(one)}" <= mark]
    alive = [one for one in marked if not one.is_terminating]
    return Run((*sorted(alive, key=lambda one: one.name), *missed), mark, tuple(missed), is_continued=True)


async def mark(api: Api, run: Run) -> None:
    """Record the run on each of its pods. Raises ``KubeError``; a pod that is gone needs none."""
    for one in run.unmarked:
        try:
            await act.annotate(api, one, {DRAIN_RUN: run.mark})
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise


async def in_turn(
    names: tuple[str, ...],
    plan: Callable[[str], Awaitable[PodPlan]],
    carry_out: Callable[[PodPlan, int], Awaitable[DrainResult]],
    whole: Callable[[PodPlan], Awaitable[str]],
    is_enough: Callable[[DrainResult], bool],
) -> list[Outcome]:
    """Each pod, planned only when the one before has left and ``whole`` says that another stands in for it.

    Ends with the first result that is not ``is_enough``; a pod that is gone already is passed over. ``carry_out``
    is given the pod's place among ``names``, from 1. Raises ``KubeError``.
    """
    outcomes: list[Outcome] = []
    before: PodPlan | None = None
    for place, name in enumerate(names, start=1):
        try:
            if before is not None and (reason := await whole(before)):
                current = await plan(name)
                outcomes.append(Outcome(current, DrainResult(Ending.REFUSED, f"not begun: {reason}")))
            else:
                current = await plan(name)
                outcomes.append(Outcome(current, await carry_out(current, place)))
        except ApiError as error:
            if not error.is_not_found:
                raise
            continue
        before = current
        if not is_enough(outcomes[-1].result):
            break
    return outcomes


async def whole_again(client: KubeClient, plan: PodPlan, options: VerbOptions, told: Callable[[Drain], None]) -> str:
    """Wait until the owner of a pod that has left has all its pods back, routed; what is missing at the deadline."""
    loop = asyncio.get_running_loop()
    until, capacity = loop.time() + options.timeout_seconds, Capacity(client, plan, options.settle_seconds)
    waiting: tuple[str, ...] = ()
    while True:
        try:
            missing = await capacity.missing()
        except KubeError as error:
            missing = (str(error),)
        if not missing or loop.time() >= until:
            return "; ".join(missing)
        if missing != waiting:
            waiting = missing
            told(replace(begin(str(plan.pod), Mode.LABEL), reasons=missing))
        await asyncio.sleep(LOOK_SECONDS)


def _subject(one: Pod) -> str:
    return one.annotations.get(DRAIN_RUN, "").rpartition(" ")[0]


def _made(one: Pod) -> str:
    return act.instant(one.created_at) if one.created_at is not None else ""
