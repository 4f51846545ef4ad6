"""Label mode: the pod is held by its labels, sealed by a tombstone, let go by a DELETE with preconditions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tidegate import vtime
from tidegate.client.options import VerbOptions
from tidegate.client.plan import DrainPlan
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.event import Cut, Event, Released, Restored, Tombstoned
from tidegate.drain.progress import Drain
from tidegate.drain.result import record
from tidegate.drain.state import State
from tidegate.engine import act
from tidegate.engine.observe import PodSeen
from tidegate.kube.api import Api, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import CUT_VALUE, TOMBSTONE, TOMBSTONE_VALUE, DrainRecord, DrainResult
from tidegate.model.pod import Pod
from tidegate.observers.proxied import ProxiedAgents
from tidegate.traffic import tombstone


class NotAsSeen(KubeError):
    """The pod changed under our hands: it is looked at once more before anything irreversible."""


class LabelGrip:
    """Holds one pod by its labels."""

    def __init__(self, api: Api, plan: DrainPlan, options: VerbOptions, origin: DrainRecord) -> None:
        self._api = api
        self._options = options
        self._origin = origin
        self._cut = plan.cut.labels
        self._wanted: Mapping[str, str] = flipped(plan)
        self._deadline_at = asyncio.get_running_loop().time() + options.timeout_seconds
        self.seen = PodSeen(plan.pod.uid, plan.pod)

    def is_cut(self, seen: PodSeen) -> bool:
        """Never by itself: the cut is an act of ours."""
        return False

    def deadline_at(self, seen: PodSeen) -> float:
        return self._deadline_at

    async def cut(self) -> Event | None:
        """Flip the traffic labels and record the drain, in one patch on the pod exactly as it was seen."""
        if not await self._relabel(self._cut):
            return None
        return Cut(at=asyncio.get_running_loop().time())

    async def seal(self) -> Event | None:
        """The tombstone: the pod's own labels flipped, so that no selector takes it back."""
        if not await self._relabel(tombstone(self._pod, self._origin.token)):
            return None
        return Tombstoned(at=asyncio.get_running_loop().time())

    async def keep(self, drain: Drain) -> None:
        """Somebody gave the labels back: take them off again, the cut is a level and not an edge."""
        if not self._is_intact() and not self._pod.is_terminating:
            await self._relabel(self._wanted)

    async def conclude(self, drain: Drain, result: DrainResult) -> bool:
        self._take(await act.record_result(self._api, self._pod, result))
        return True

    async def release(self, drain: Drain, result: DrainResult) -> Event | None:
        """DELETE what is proven; what is not, as the policy says."""
        at = asyncio.get_running_loop().time()
        if drain.state is State.OVERDUE and self._options.on_deadline == "restore":
            await self._restore()
            return Restored(at=at)
        if drain.state is State.BYPASSED or (drain.state is State.OVERDUE and self._options.on_deadline == "hold"):
            return None
        if not self._is_intact():
            raise NotAsSeen(f"the labels of {self._pod} were changed")
        await act.end(self._api, self._pod)
        return Released(at=at)

    async def note(self, drain: Drain) -> None:
        """Keep the record on the pod true, for people and for whoever goes on after us."""
        if drain.state in (State.SERVING, State.RELEASED) or self.seen.is_gone:
            return
        try:
            self._take(await act.record_drain(self._api, self._pod, record(drain, self._origin)))
        except KubeError:
            return

    @property
    def _pod(self) -> Pod:
        assert self.seen.pod is not None
        return self.seen.pod

    def _is_intact(self) -> bool:
        return all(self._pod.labels.get(key) == value for key, value in self._wanted.items())

    def _take(self, obj: JsonObject) -> None:
        """The server's answer to a write is newer than what the watch has shown."""
        self.seen.update(obj)

    async def _relabel(self, labels: Mapping[str, str]) -> bool:
        """False when the pod is not as it was seen any more: the watch brings it, then again."""
        try:
            self._take(await act.relabel(self._api, self._pod, labels, self._origin))
        except ApiError as error:
            if error.is_conflict or error.code == 422:  # a failed ``test`` is 422 Invalid
                return False
            raise
        self._wanted = {**self._wanted, **labels}
        return True

    async def _restore(self) -> None:
        before = self._origin.labels
        touched = {*self._wanted, TOMBSTONE}
        labels: dict[str, str | None] = {key: before.get(key) for key in sorted(touched | set(before))}
        for _ in range(20):
            origin = DrainRecord(token=self._origin.token, state=State.RESTORED.name, mode=self._origin.mode)
            try:
                self._take(await act.relabel(self._api, self._pod, labels, origin))
                return
            except ApiError as error:
                if not (error.is_conflict or error.code == 422):
                    raise
            await asyncio.sleep(0.1)
        raise NotAsSeen(f"{self._pod} changes too often to be given its labels back")


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


def flipped(plan: DrainPlan) -> dict[str, str]:
    """The labels that an earlier run has flipped and that still are: they are held like our own."""
    before = plan.record.labels if plan.record is not None else plan.pod.labels
    ours = (CUT_VALUE, TOMBSTONE_VALUE)
    kept = {key: value for key, value in plan.pod.labels.items() if value in ours and before.get(key) != value}
    return kept | ({TOMBSTONE: plan.pod.labels[TOMBSTONE]} if kept and TOMBSTONE in plan.pod.labels else {})


def is_tombstoned(pod: Pod) -> bool:
    """Whether no selector of before selects it: every label of its own is flipped."""
    return TOMBSTONE in pod.labels and all(
        value == TOMBSTONE_VALUE for key, value in pod.labels.items() if key != TOMBSTONE
    )


def origin_of(plan: DrainPlan, options: VerbOptions, token: str) -> DrainRecord:
    """The record of a drain that begins now, or of the one that is continued."""
    if plan.record is not None:
        return plan.record
    now = vtime.now()
    return DrainRecord(
        token=token,
        state=State.CUT.name,
        mode="label",
        at=act.instant(now),
        deadline=act.instant(now.fromtimestamp(now.timestamp() + options.timeout_seconds, now.tzinfo)),
        labels=plan.pod.labels,
        seen=plan.seen,
    )
