"""Label mode: the pod is held by its labels, sealed by a tombstone, let go by a DELETE with preconditions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import msgspec

from tidegate import vtime
from tidegate.client.holding import Holding
from tidegate.client.options import VerbOptions
from tidegate.client.plan import ISOLATED, PodPlan
from tidegate.client.scraping import see_to
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.event import Cut, Event, Released, Restored, Tombstoned
from tidegate.drain.progress import Drain
from tidegate.drain.result import record
from tidegate.drain.state import State
from tidegate.engine import act, owners
from tidegate.engine.observe import PodSeen
from tidegate.kube.api import SERVICES, Api, Selection
from tidegate.kube.errors import KubeError
from tidegate.model import service
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import HELD, HELD_CUT, HELD_ISOLATED, TOMBSTONE, TOMBSTONE_VALUE, DrainRecord, DrainResult
from tidegate.model.pod import Owner, Pod
from tidegate.observers.proxied import ProxiedAgents
from tidegate.traffic import isolation, tombstone
from tidegate.traffic.labels import changed

Ending = Callable[[Drain, DrainResult], Awaitable[None]]


async def _unheard(drain: Drain, result: DrainResult) -> None:
    """Nobody writes it down."""


class NotAsSeen(KubeError):
    """The pod changed under our hands: it is looked at once more before anything irreversible."""


class LabelGrip:
    """Holds one pod by its labels. Raises ``HeldByOther`` from any act once somebody else holds it."""

    def __init__(self, api: Api, plan: PodPlan, options: VerbOptions, holding: Holding) -> None:
        self._api = api
        self._options = options
        self._holding = holding
        self._verb = plan.verb
        self._cut = plan.cut.labels
        self._wanted: Mapping[str, str | None] = flipped(plan)
        self._deadline_at = asyncio.get_running_loop().time() + options.timeout_seconds
        self.seen = holding.seen
        self.ending: Ending = _unheard
        """Told just before the DELETE: what is written down after it is lost with a process that is killed there."""

    def is_cut(self, seen: PodSeen) -> bool:
        """Never by itself: the cut is an act of ours."""
        return False

    def deadline_at(self, seen: PodSeen) -> float:
        return self._deadline_at

    async def cut(self) -> Event | None:
        """Flip the traffic labels and record the drain, in one patch on the pod exactly as it was seen."""
        if not await self._relabel({**self._cut, HELD: HELD_CUT}):
            return None
        await see_to(self._api, self._pod.namespace)
        return Cut(at=asyncio.get_running_loop().time())

    async def seal(self) -> Event | None:
        """The tombstone: the pod's own labels flipped, so that no selector takes it back."""
        if not await self._relabel(tombstone(self._pod, self._holding.record.token)):
            return None
        return Tombstoned(at=asyncio.get_running_loop().time())

    async def keep(self, drain: Drain) -> None:
        """Somebody gave the labels back: take them off again, the cut is a level and not an edge."""
        if not self._is_intact() and not self._pod.is_terminating:
            await self._relabel(self._wanted)

    async def conclude(self, drain: Drain, result: DrainResult) -> bool:
        """The result is the last word about a pod that ends; a pod that is kept goes on and has its record."""
        if self._verb == "drain":
            self.seen.update(await act.record_result(self._api, self._pod, result))
        return True

    async def release(self, drain: Drain, result: DrainResult) -> Event | None:
        """DELETE what is proven; what is not, as the policy says."""
        at = asyncio.get_running_loop().time()
        if drain.state is State.OVERDUE and self._options.on_deadline == "restore":
            await self._restore()
            return Restored(at=at)
        if drain.state is State.BYPASSED or (drain.state is State.OVERDUE and self._options.on_deadline == "hold"):
            return None
        self._holding.check()
        if not self._is_intact():
            raise NotAsSeen(f"the labels of {self._pod} were changed")
        await self.ending(drain, result)
        await act.end(self._api, self._pod)
        return Released(at=at)

    async def note(self, drain: Drain) -> None:
        """Keep the record on the pod true, for people and for whoever goes on after us."""
        if drain.state in (State.SERVING, State.RELEASED, State.RESTORED) or self.seen.is_gone:
            return  # the last two have written what there is to say
        with contextlib.suppress(KubeError):
            await self._holding.write({}, record(drain, self._holding.record))

    @property
    def record(self) -> DrainRecord:
        """What stands on the pod."""
        return self._holding.record

    @property
    def _pod(self) -> Pod:
        return self._holding.pod

    def _is_intact(self) -> bool:
        return all(self._pod.labels.get(key) == value for key, value in self._wanted.items())

    async def _relabel(self, labels: Mapping[str, str | None]) -> bool:
        """False when the pod is not as it was seen any more: it was looked at, then again."""
        held = self._holding.record
        if not await self._holding.write(labels, msgspec.structs.replace(held, changed={**held.changed, **labels})):
            return False
        self._wanted = {**self._wanted, **labels}
        return True

    async def _restore(self) -> None:
        """Labels back. Where another pod stands in for it the owner's stay off: given back, the owner would have one
        too many and delete one that serves, whichever."""
        held = self._holding.record
        touched = {*self._wanted, *held.changed, TOMBSTONE}
        labels = {key: held.labels.get(key) for key in sorted(touched | set(held.labels))}
        apart = held.isolated or await self._kept_away(labels)
        labels |= apart
        at = act.instant(vtime.now())
        restored = DrainRecord(held.token, State.RESTORED.name, held.mode, at, by=held.by, verb="restore")
        if apart:
            given = msgspec.structs.replace(held, state=ISOLATED, changed=apart, isolated=apart)
            restored = msgspec.structs.replace(given, sealed=False, epoch="", waiting=(), stragglers=())
        for _ in range(20):
            if await self._holding.write(labels, restored):
                return
            await asyncio.sleep(0.1)
        raise NotAsSeen(f"{self._pod} changes too often to be given its labels back")

    async def _kept_away(self, labels: Mapping[str, str | None]) -> dict[str, str | None]:
        """The label by which the owner that the cut made let go of it does not take it back with ``labels``."""
        held, pod = self._holding.record, self._pod
        if pod.owner is not None or held.owner.count("/") != 2:
            return {}
        before = msgspec.structs.replace(pod, owner=Owner(*held.owner.split("/")), labels=changed(pod.labels, labels))
        chain = [one for one in await owners.of(self._api, before) if not one.is_ending]
        services = (await self._api.list(SERVICES, Selection(pod.namespace))).items
        found = isolation(before, map(service.decode, services), chain[0] if chain else None)
        return {**found.labels, HELD: HELD_ISOLATED} if found is not None else {}


class NodeConnections:
    """The pod's sockets, read by the agent of its node."""

    def __init__(self, agents: ProxiedAgents, node: str, serving: tuple[Endpoint, ...]) -> None:
        self._agents = agents
        self._node = node
        self._serving = serving

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        asked = sorted({*self._serving, *endpoints})
        served = tuple(one for one in asked if one.port) or tuple(asked)
        return await self._agents.connections(self._node, served) if served else Quiet()


class NoConnections:
    """Nobody can read the pod's sockets: never quiet, and the result says so."""

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        return Quiet(unreadable=(Unreadable("there is no agent to read the pod's sockets"),))


def flipped(plan: PodPlan) -> dict[str, str | None]:
    """The labels that an earlier run has flipped and that still are: they are held like our own."""
    changed = plan.record.changed if plan.record is not None else {}
    return {key: value for key, value in changed.items() if plan.pod.labels.get(key) == value}


def is_tombstoned(pod: Pod) -> bool:
    """Whether no selector of before selects it: every label of its own is flipped."""
    return TOMBSTONE in pod.labels and all(
        value == TOMBSTONE_VALUE for key, value in pod.labels.items() if key != TOMBSTONE
    )


def origin_of(plan: PodPlan, options: VerbOptions, token: str) -> DrainRecord:
    """The record of what begins now, or of what is continued, perhaps by another verb and somebody else."""
    now = vtime.now()
    until = now + timedelta(seconds=options.ttl_seconds)
    asked = DrainRecord(
        token=token,
        state=State.CUT.name,
        mode="label",
        at=act.instant(now),
        labels=plan.pod.labels,
        seen=plan.seen,
        reason=options.reason,
        owner=plan.owner,
    )
    return msgspec.structs.replace(
        plan.record or asked,
        deadline=act.instant(now + timedelta(seconds=options.timeout_seconds)),
        verb=plan.verb,
        by=options.identity.by,
        until=act.instant(until) if options.ttl_seconds and plan.verb != "drain" else "",
        forced=plan.forced(options) or (plan.record.forced if plan.record is not None else ""),
    )
