"""Gate mode: the drains of this node's leaving pods, one per pod, whoever of its containers asks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from tidegate import vtime
from tidegate.agent.ground import PodSockets
from tidegate.agent.holds import HeldPod, Holds
from tidegate.drain.deadline import DEFAULT_BUDGET, Budget, gate_deadline
from tidegate.drain.event import Event, Released
from tidegate.drain.gating import GATE_TOKEN
from tidegate.drain.ledger import Subject, as_text
from tidegate.drain.progress import Drain, begin
from tidegate.drain.state import Mode
from tidegate.engine import act
from tidegate.engine.chronicle import Chronicle
from tidegate.engine.ledger import Ledger
from tidegate.engine.loop import Keeper, Ports
from tidegate.engine.observe import Connections, PodSeen
from tidegate.kube.api import PODS, Api, JsonObject, Selection
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Reflector
from tidegate.model import pod as pods
from tidegate.model.activity import parse
from tidegate.model.decode import Malformed
from tidegate.model.endpoint import canonical
from tidegate.model.names import ACTIVITY, DrainRecord, DrainResult, Ending
from tidegate.model.pod import Pod
from tidegate.observers import activity
from tidegate.observers.coordinator import Coordinator, ask_of
from tidegate.traffic.held import held
from tidegate.traffic.listing import every_endpoint

RETRY_SECONDS = 0.3
AFTERMATH_SECONDS_MAX = 60.0
REMEMBERED_SECONDS = 30.0
"""How long after a pod's end its line may still be amended: the holder has 10 s to confirm an answer."""
RECORD_LATE_SECONDS = 1.0
"""How long past the deadline a record may still be tried: the kubelet keeps 2 s of its own."""


class GateGrip:
    """Holds a pod by its preStop call: the deletionTimestamp is the cut, the answer the release."""

    def __init__(self, api: Api, holds: Holds, budget: Budget = DEFAULT_BUDGET) -> None:
        self.containers: set[str] = set()
        self._api = api
        self._holds = holds
        self._budget = budget
        self._deadline: tuple[datetime | None, float] = (None, float("inf"))
        self.pod: PodSeen | None = None

    def is_cut(self, seen: PodSeen) -> bool:
        self.pod = seen
        return seen.pod is not None and seen.pod.is_terminating

    def deadline_at(self, seen: PodSeen) -> float:
        """From the newest deletionTimestamp (a later delete can only shorten it), mapped to our clock once each.

        However slow our node's clock is against the API server's: never later than the whole grace period from now.
        """
        at = seen.pod.deletion_timestamp if seen.pod is not None else None
        if seen.pod is not None and at is not None and at != self._deadline[0]:
            now = vtime.now()
            left = (gate_deadline(at, self._budget) - now).total_seconds()
            grace = seen.pod.deletion_grace_seconds
            if grace is not None:
                whole = gate_deadline(now + timedelta(seconds=grace), self._budget) - now
                left = min(left, whole.total_seconds())
            self._deadline = (at, asyncio.get_running_loop().time() + left)
        return self._deadline[1]

    async def cut(self) -> Event | None:
        return None

    async def seal(self) -> Event | None:
        return None

    async def keep(self, drain: Drain) -> None:
        return

    async def conclude(self, drain: Drain, result: DrainResult) -> bool:
        """Record on the pod; given up only when the kubelet cannot be kept waiting for it any longer."""
        if self.pod is None or self.pod.pod is None:
            return True
        recorded = self._holds.result_of(self.pod.uid, result, self.containers)
        try:
            async with asyncio.timeout(RECORD_LATE_SECONDS):
                await act.record_result(self._api, self.pod.pod, recorded)
        except (KubeError, TimeoutError) as error:
            if isinstance(error, ApiError) and error.is_not_found:
                return True  # the pod is gone
            # A conflict too: no record reads as bypassed. Where another pod has the name, the watch says so.
            return asyncio.get_running_loop().time() >= self._deadline[1]
        return True

    async def release(self, drain: Drain, result: DrainResult) -> Event | None:
        """The gate's answer is the caller's: it follows at once."""
        return Released(at=asyncio.get_running_loop().time())

    async def note(self, drain: Drain) -> None:
        return


@dataclass(slots=True)
class PodDrain:
    """One pod's drain and who waits for it."""

    keeper: Keeper
    grip: GateGrip
    chronicle: Chronicle
    task: asyncio.Task[DrainResult]


@dataclass(slots=True)
class PodDrains:
    """All drains of this node's pods."""

    api: Api
    node: str
    coordinator: Coordinator
    holds: Holds
    sockets: PodSockets
    log: Callable[[str], None]
    rng: random.Random
    budget: Budget = DEFAULT_BUDGET
    ledger: Ledger = field(default_factory=Ledger)
    running: dict[str, PodDrain] = field(default_factory=dict)
    watch: Reflector = field(init=False)
    _seen: dict[str, PodSeen] = field(default_factory=dict)
    _chronicles: dict[str, Chronicle] = field(default_factory=dict)
    _recording: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _aftermaths: dict[asyncio.Task[None], None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Reflector(self.api, PODS, Selection(fields=f"spec.nodeName={self.node}"))
        self.watch.subscribe(self._pod_changed)

    # --- who is asking ---

    async def identify(self, ip: str, token: str = "") -> HeldPod | DrainResult:
        """Quorum-read, for the kubelet may have heard of the deletion before our watch did."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self.budget.fallback_sleep_seconds
        while True:
            try:
                return await (self._identify_by(token) if token else self._identify(canonical(ip)))
            except ValueError:
                return DrainResult(Ending.BYPASSED, f"{ip} is no address of a pod")
            except (KubeError, Malformed) as error:
                if loop.time() >= give_up_at:
                    return DrainResult(Ending.BYPASSED, f"it could not be told which pod {ip} is: {error}")
            await asyncio.sleep(RETRY_SECONDS)

    async def _identify(self, ip: str) -> HeldPod | DrainResult:
        known = self._at(ip, list(self.watch.objects.values()))
        if known is None:
            listing = await self.api.list(PODS, Selection(fields=f"spec.nodeName={self.node}"))
            known = self._at(ip, listing.items)
        elif not known.is_terminating:
            try:
                known = pods.decode(await self.api.get(PODS, known.name, known.namespace))
            except ApiError as error:
                if not error.is_not_found:
                    raise
                known = None
        if known is None:
            return DrainResult(Ending.BYPASSED, f"no pod of this node has the address {ip}")
        if not known.is_terminating:
            # Measured: the pod stays ready during such a hold; holding it helps nobody and stalls the kubelet.
            return DrainResult(Ending.BYPASSED, "no deletionTimestamp: a liveness restart, or a node shutdown")
        self._seen.setdefault(known.uid, PodSeen(known.uid)).pod = known
        return HeldPod(known.uid, known.namespace, known.name)

    async def _identify_by(self, token: str) -> HeldPod | DrainResult:
        """A pod on the node's own network, by its annotation: the node's address is everybody's there."""
        listing = await self.api.list(PODS, Selection(fields=f"spec.nodeName={self.node}"))
        named = [one for one in listing.items if (one["metadata"].get("annotations") or {}).get(GATE_TOKEN) == token]
        found = [pod for pod in map(pods.decode, named) if pod.host_network and not pod.is_finished]
        leaving = [pod for pod in found if pod.is_terminating]
        if not found:
            return DrainResult(Ending.BYPASSED, "no pod of this node has this token")
        if not leaving:
            return DrainResult(Ending.BYPASSED, "no deletionTimestamp: a liveness restart, or a node shutdown")
        if len(leaving) > 1:
            return DrainResult(Ending.BYPASSED, f"{len(leaving)} pods of this node leave with this token")
        [pod] = leaving
        if not every_endpoint(pod):
            return DrainResult(
                Ending.BYPASSED, "on its node's network, and it declares no port: nothing tells its traffic"
            )
        self._seen.setdefault(pod.uid, PodSeen(pod.uid)).pod = pod
        return HeldPod(pod.uid, pod.namespace, pod.name)

    def _at(self, ip: str, objects: list[JsonObject]) -> Pod | None:
        """The pod at an address; of several (one finished, its address used again) the one still to be ended."""
        found = []
        for obj in objects:
            try:
                pod = pods.decode(obj)
            except Malformed:
                continue
            if ip in pod.ips and not pod.is_finished and not pod.host_network:
                found.append(pod)
        return max(found, key=lambda pod: (pod.is_terminating, pod.created_at is not None, pod.uid), default=None)

    # --- draining ---

    async def drain(self, pod: HeldPod, container: str) -> DrainResult:
        """Join the pod's drain, or begin it."""
        running = self.running.get(pod.uid)
        if running is None or running.task.done():
            running = self._begin(pod)
        running.grip.containers.add(container)
        return await asyncio.shield(running.task)

    def _begin(self, held: HeldPod) -> PodDrain:
        seen = self._seen[held.uid]
        assert seen.pod is not None
        drain = begin(str(seen.pod), Mode.GATE)
        ask = ask_of((held.uid, held.namespace, held.name), every_endpoint(seen.pod), Mode.GATE)
        token = f"{self.rng.getrandbits(48):012x}"
        ports = Ports(self.coordinator, self._connections(seen), self.holds.journal)
        grip = GateGrip(self.api, self.holds, self.budget)
        keeper = Keeper(drain, msgspec.structs.replace(ask, round=token), ports, grip, seen)
        chronicle = self._chronicle(held, seen.pod, token)
        endpoints = every_endpoint(seen.pod)
        keeper.heard = chronicle.follow(lambda: self.sockets.read(endpoints))
        work = self._run(keeper, grip, chronicle, held)
        task = asyncio.get_running_loop().create_task(work, name=f"drain {held.name}")
        self.running[held.uid] = PodDrain(keeper, grip, chronicle, task)
        return self.running[held.uid]

    def _chronicle(self, held: HeldPod, pod: Pod | None, token: str) -> Chronicle:
        """Of a new drain of the pod; a pod has one at a time."""
        at = pod.deletion_timestamp if pod is not None else None
        subject = Subject(
            verb="gate",
            mode=Mode.GATE.value,
            token=token,
            stamp=f"node/{self.node}",
            uid=held.uid,
            namespace=held.namespace,
            pod=held.name,
            node=self.node,
            deadline="" if at is None else act.instant(gate_deadline(at, self.budget)),
            on_deadline="proceed",
            probe=pod.annotations.get(ACTIVITY, "") if pod is not None else "",
        )
        self._chronicles[held.uid] = Chronicle(subject, self.ledger)
        return self._chronicles[held.uid]

    def _connections(self, seen: PodSeen) -> Connections:
        """The pod's sockets, and its own word where it names an activity probe."""
        assert seen.pod is not None
        text = seen.pod.annotations.get(ACTIVITY, "")
        if not text:
            return self.sockets
        try:
            probe: activity.ActivityProbe = activity.DialledActivity(parse(text), seen.pod.ips[0])
        except (ValueError, IndexError) as error:
            probe = activity.Unaskable(text, str(error))
        return activity.Probed(self.sockets, probe)

    async def _run(self, keeper: Keeper, grip: GateGrip, chronicle: Chronicle, held: HeldPod) -> DrainResult:
        noting = asyncio.get_running_loop().create_task(self._note(keeper, chronicle.subject.token))
        try:
            result = await keeper.run()
            # As it was recorded on the pod: the worst of its containers' holds.
            self._write(chronicle, self.holds.result_of(held.uid, result, grip.containers), keeper.drain)
        finally:
            noting.cancel()
            self.running.pop(held.uid, None)
        after = asyncio.get_running_loop().create_task(self._watch_to_the_end(keeper), name=f"after {held.name}")
        self._aftermaths[after] = None
        after.add_done_callback(self._aftermaths.pop)
        return result

    async def _watch_to_the_end(self, keeper: Keeper) -> None:
        pod = keeper.pod.pod
        seconds = AFTERMATH_SECONDS_MAX if pod is None else min(float(pod.grace_seconds), AFTERMATH_SECONDS_MAX)
        await keeper.watch_to_the_end(seconds)
        for what in keeper.drain.regressions:
            self.log(f"{keeper.drain.pod}: after its release, {what}")

    async def _note(self, keeper: Keeper, token: str) -> None:
        """Say on the pod that it is being drained: for people, and for whoever comes after us."""
        pod = keeper.pod.pod
        if pod is None or pod.deletion_timestamp is None:
            return
        by_label = held(pod)
        if by_label is not None and by_label.record is not None:
            # It says what nobody could say again: the labels before, who asked and why, whose pod it was. That the gate
            # is asked as well, the deletionTimestamp says; our token is in our ledger.
            return
        record = DrainRecord(
            token=token,
            state=keeper.drain.state.name,
            mode=Mode.GATE.value,
            at=act.instant(vtime.now()),
            deadline=act.instant(gate_deadline(pod.deletion_timestamp, self.budget)),
        )
        try:
            await act.record_drain(self.api, pod, record)
        except KubeError:
            return

    def abandoned(self, pod: HeldPod, container: str, why: str) -> None:
        """The container's hold died: say so on the pod, and stop draining for nobody."""
        running = self.running.get(pod.uid)
        if running is not None:
            running.grip.containers.discard(container)
            if not running.grip.containers and not running.task.done():
                running.task.cancel()
        result = DrainResult(Ending.BYPASSED, why)
        self._bypass(pod, result)
        self._recording[pod.uid] = asyncio.get_running_loop().create_task(self.record(pod, result))

    async def died(self, pod: HeldPod, why: str) -> None:
        """A hold died with the agent before us: its line is amended, where it came to write one."""
        kept = await vtime.to_thread(self.ledger.read)
        known = [one for one in kept.entries if one.uid == pod.uid and not one.amends]
        if known:
            at = as_text(vtime.now().timestamp())
            result = Ending.BYPASSED.value
            self.ledger.write(msgspec.structs.replace(known[-1], amends=True, at=at, result=result, reason=why))
        else:
            self._write(self._chronicle(pod, None, ""), DrainResult(Ending.BYPASSED, why))

    def _bypass(self, pod: HeldPod, result: DrainResult) -> None:
        """The pod's line, or what amends it, says that a hold of it died."""
        chronicle = self._chronicles.get(pod.uid) or self._chronicle(pod, None, "")
        if chronicle.is_concluded:
            chronicle.amend(result)
        elif pod.uid not in self.running or not self.running[pod.uid].grip.containers:
            self._write(chronicle, result)

    def _write(self, chronicle: Chronicle, result: DrainResult, drain: Drain | None = None) -> None:
        chronicle.conclude(result, drain)
        if self.ledger.failure:
            self.log(self.ledger.failure)

    async def record(self, held: HeldPod, result: DrainResult) -> None:
        """Write a result on a pod that still exists; try until it is written or the pod is gone."""
        while True:
            try:
                found = pods.decode(await self.api.get(PODS, held.name, held.namespace))
                if found.uid == held.uid:
                    await act.record_result(self.api, found, self.holds.result_of(held.uid, result, ()))
                return
            except ApiError as error:
                if error.is_not_found:
                    return
            except Malformed:
                return
            except KubeError:
                pass
            await asyncio.sleep(RETRY_SECONDS)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        either = new or old
        assert either is not None
        uid = str(either["metadata"].get("uid"))
        if uid in self._seen:
            self._seen[uid].update(new)
            running = self.running.get(uid)
            if running is not None:
                running.keeper.wake()
        if new is None:
            # Its hold may be found dead after its end was seen: that amends its line, and is no second one.
            asyncio.get_running_loop().call_later(REMEMBERED_SECONDS, self._chronicles.pop, uid, None)
            self._recording.pop(uid, None)
            self._seen.pop(uid, None)
