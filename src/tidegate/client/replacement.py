"""Replacement before removal: the owner lets go of a pod that still serves, makes another, and only then is it cut.

The pod's record says where that stands (state ISOLATED). The condition to go on names no pod: the owner has as many
ready pods as it wants, every one of them routed wherever it should be. So a run that was killed anywhere asks the same
again, and an owner that is gone, scaled down or superseded wants fewer: then the floor decides alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import msgspec

from tidegate import vtime
from tidegate.client.capacity import Capacity
from tidegate.client.holding import Holding
from tidegate.client.options import VerbOptions
from tidegate.client.plan import ISOLATED, PodPlan
from tidegate.client.reservation import reserve
from tidegate.drain.progress import Drain, begin
from tidegate.drain.state import Mode, State
from tidegate.engine import act
from tidegate.kube.api import PODS
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import HELD, HELD_ISOLATED, DrainRecord, DrainResult, Ending

LOOK_SECONDS = 0.5
TRIES = 20
DELETED = DrainResult(Ending.BYPASSED, "somebody else deleted the pod during the drain")


async def make_way(
    client: KubeClient, plan: PodPlan, options: VerbOptions, holding: Holding, told: Callable[[Drain], None]
) -> PodPlan | DrainResult:
    """Everything before the cut: the replacement, floors and budgets as of now, the reservation.

    The plan to cut by, or the result where it does not come to that. Raises ``HeldByOther``, ``KubeError``.
    """
    if not plan.is_uncut:
        return plan
    way = _Way(client, plan, options, holding)
    if not plan.awaits(options):
        refusal = await way.reserve()
        if refusal:
            return DrainResult(Ending.REFUSED, refusal)
        return way.cleared() if plan.record is not None else plan
    if plan.isolation is not None and not await way.isolate({**plan.isolation.labels, HELD: HELD_ISOLATED}):
        return DELETED
    return await way.follow(told)


class _Way:
    """The road of one pod from its isolation to its cut."""

    def __init__(self, client: KubeClient, plan: PodPlan, options: VerbOptions, holding: Holding) -> None:
        self._client = client
        self._plan = plan
        self._options = options
        self._holding = holding
        self._labels = dict(plan.record.isolated or plan.record.changed) if plan.record is not None else {}

    async def isolate(self, labels: dict[str, str | None]) -> bool:
        """The owner's labels off, its Services' left on; False where the pod is on its way out meanwhile."""
        self._labels |= labels
        for _ in range(TRIES):
            record = self._holding.record
            changed = {**record.changed, **self._labels}
            isolated = msgspec.structs.replace(record, state=ISOLATED, changed=changed, isolated=self._labels)
            if await self._holding.write(self._labels, isolated):
                return True
            if self._is_ending():
                return False
        raise KubeError(f"{self._plan.pod} changes too often to be isolated: try again")

    async def reserve(self) -> str:
        """Floors and budgets as they are now; empty once every Service has the reservation. Force is recorded."""
        token = self._holding.record.token
        refusal = await reserve(self._client, self._plan, replace(self._options, force=False), token)
        if refusal is None or not self._options.force:
            return refusal or ""
        record = self._holding.record
        self._holding.record = msgspec.structs.replace(record, forced=record.forced or refusal)
        return await reserve(self._client, self._plan, self._options, token) or ""

    async def follow(self, told: Callable[[Drain], None]) -> PodPlan | DrainResult:
        """Until the pod may be cut, or the deadline."""
        loop = asyncio.get_running_loop()
        began, capacity = loop.time(), Capacity(self._client, self._plan, self._options.settle_seconds)
        waiting: tuple[str, ...] = ()
        while True:
            try:
                if await self._is_leaving():
                    return DELETED
                missing = await capacity.missing() or tuple(filter(None, (await self.reserve(),)))
            except KubeError as error:
                missing = (str(error),)
            if not missing:
                return self.cleared()
            if missing != waiting:
                waiting = missing
                told(replace(begin(str(self._plan.pod), Mode.LABEL), reasons=missing))
            if loop.time() >= began + self._options.timeout_seconds:
                return await self._overdue(missing, capacity, round(loop.time() - began, 3))
            await asyncio.sleep(LOOK_SECONDS)

    def cleared(self) -> PodPlan:
        """The plan as it is carried on with: the deadline counts from the cut."""
        deadline = vtime.now() + timedelta(seconds=self._options.timeout_seconds)
        self._holding.record = msgspec.structs.replace(self._holding.record, deadline=act.instant(deadline))
        return replace(self._plan, pod=self._holding.pod, record=self._holding.record, isolation=None)

    async def _overdue(self, missing: tuple[str, ...], capacity: Capacity, seconds: float) -> PodPlan | DrainResult:
        """No replacement came in time: as the policy says, and never below the floor."""
        reason = "; ".join(missing)
        if self._options.on_deadline == "proceed":
            refusal = await self.reserve()
            if not refusal:
                return self.cleared()
            reason = f"{reason}; {refusal}" if refusal not in missing else reason
        if self._options.on_deadline == "restore" and not capacity.is_whole:
            # Its owner then has a pod too many and deletes one that is not ready (kube-controller: ActivePods).
            await self._restore()
            reason += "; its labels were given back"
        return DrainResult(Ending.TIMED_OUT, f"not cut, it still serves: {reason}", seconds=seconds)

    async def _restore(self) -> None:
        held = self._holding.record
        labels = {key: held.labels.get(key) for key in sorted(held.changed)}
        restored = DrainRecord(held.token, State.RESTORED.name, held.mode, act.instant(vtime.now()), by=held.by)
        for _ in range(TRIES):
            if self._is_ending() or await self._holding.write(
                labels, msgspec.structs.replace(restored, verb="restore")
            ):
                return
        raise KubeError(f"{self._plan.pod} changes too often to be given its labels back")

    async def _is_leaving(self) -> bool:
        """Look at the pod: whether somebody else deleted it. Labels that somebody gave back are taken off again."""
        pod = self._plan.pod
        try:
            self._holding.seen.update(await self._client.get(PODS, pod.name, pod.namespace))
        except ApiError as error:
            if not error.is_not_found:
                raise
            self._holding.seen.update(None)
        if self._is_ending():
            return True
        self._holding.check()
        now = self._holding.pod.labels
        if any(now.get(key) != value for key, value in self._labels.items()):
            return not await self.isolate({})
        return False

    def _is_ending(self) -> bool:
        return self._holding.seen.is_gone or self._holding.pod.is_terminating
