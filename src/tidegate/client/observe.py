"""``observe``: rollouts as they are. Who still routed to a pod after its SIGTERM, for how long, and what that risked.

Changes nothing. Every pod that leaves while it watches is followed until every node has let go of it. Without agents
only the EndpointSlices are seen, which say what nodes were told and not what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tidegate import vtime
from tidegate.client.kinds import RESOURCES
from tidegate.client.observe_nodes import Leaving, NodeWatch, follow_sockets
from tidegate.client.trace import EVENTS_SECONDS, listings_of
from tidegate.kube.api import ENDPOINTSLICES, EVENTS, NODES, PODS, REPLICASETS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.reflector import Reflector
from tidegate.model import pod as pods
from tidegate.model.decode import Malformed
from tidegate.model.names import SYSTEM_NAMESPACE, decode_result
from tidegate.model.pod import Pod
from tidegate.observers.proxied import AGENT_LABELS, ProxiedAgents
from tidegate.traffic import every_endpoint
from tidegate.traffic.exposure import SLICE, Exposure, Judgement, LetGo, Sigterm, judge, sigterm_of
from tidegate.traffic.moments import changes, is_gated, killing_seen
from tidegate.vtime import Nursery

TAIL_SECONDS = 60.0
"""How long a node that still routes to a pod which is gone is waited for."""
QUIET_SECONDS = 1.0
"""After the pod is gone the other watches have this long to show what came before."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose pods: ``svc`` or ``deploy`` with its name, or neither for all of ``namespace`` (empty: of the cluster)."""

    namespace: str
    kind: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" if self.kind else (self.namespace or "all namespaces")


@dataclass(slots=True)
class Observation:
    """``exposures`` in the order in which they came to an end; ``notes`` are what could not be seen."""

    subject: Subject
    began: datetime
    exposures: list[Exposure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_agents: bool = False
    unlisted: int = 0
    ended: datetime | None = None

    @property
    def judgement(self) -> Judgement:
        return judge(self.exposures)

    @property
    def document(self) -> dict[str, Any]:
        """The JSON that ``-o json`` prints; docs/json.md names its keys."""
        found = self.judgement
        gate = found.gate_seconds
        return {
            "subject": str(self.subject),
            "namespace": self.subject.namespace,
            "began": _text(self.began),
            "ended": _text(self.ended),
            "agents": self.has_agents,
            "pods": [document_of(one) for one in self.exposures],
            "unlisted": self.unlisted,
            "exposed": found.exposed,
            "unknown": found.unknown,
            "exposed_seconds": _seconds(found.exposed_seconds),
            "opened": found.opened,
            "sleep_seconds": found.sleep_seconds,
            "gate_seconds": None if gate is None else {"median": round(gate[0], 3), "worst": round(gate[1], 3)},
            "verdict": list(found.sentences),
            "notes": self.notes,
        }


def document_of(one: Exposure) -> dict[str, Any]:
    """One pod's leaving as JSON."""
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "uid": one.uid,
        "node": one.node,
        "deleted": _text(one.deleted),
        "gone": _text(one.gone),
        "gated": one.is_gated,
        "result": one.result,
        "sigterm": {
            "at": _text(one.sigterm.at),
            "source": one.sigterm.source,
            "resolution_seconds": one.sigterm.resolution_seconds,
            "gap": one.sigterm.gap,
        },
        "observers": [
            {
                "observer": each.observer,
                "kind": each.kind,
                "at": _text(each.at),
                "at_most": each.is_bound,
                "after_deletion_seconds": _seconds(one.after_deletion(each)),
                "after_sigterm_seconds": _seconds(one.after_sigterm(each)),
                "gap": each.gap,
            }
            for each in one.observers
        ],
        "exposed_seconds": _seconds(one.exposed_seconds),
        "exposed_to": list(one.exposed_to),
        "opened": one.opened,
        "sentence": one.sentence,
    }


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


async def observe(client: KubeClient, subject: Subject, seconds: float, into: Observation) -> AsyncIterator[Exposure]:
    """Each pod's exposure once it is known to its end; ``into`` is filled meanwhile, and stopping early loses nothing.

    After ``seconds`` no new pod is taken up, and who is leaving is followed to its end. Raises ``KubeError`` when pods
    cannot be watched, or the subject is not there.
    """
    await client.list(PODS, Selection(subject.namespace))  # what may not be read fails at once
    if subject.kind:
        await client.get(RESOURCES[subject.kind], subject.name, subject.namespace)
    into.has_agents = bool((await client.list(PODS, Selection(SYSTEM_NAMESPACE, AGENT_LABELS))).items)
    if not into.has_agents:
        into.notes.append("there are no agents: only the EndpointSlices are seen, and nodes follow them later")
    watching = _Watching(client, subject, into)
    async with Nursery() as nursery:
        watching.start(nursery, seconds)
        try:
            while (found := await watching.told.get()) is not None:
                yield found
        finally:
            watching.give_up()
            into.ended = vtime.now()
            nursery.cancel()


@dataclass(slots=True)
class _Departure:
    """One pod on its way out, and all that was seen of it."""

    obj: JsonObject
    pod: Pod
    deleted: datetime
    leaving: Leaving
    slices: dict[str, LetGo] = field(default_factory=dict)
    killing: tuple[datetime, float] | None = None
    answered: datetime | None = None
    result: str = ""
    gone: datetime | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class _Watching:
    """The watches, and the departures under way."""

    def __init__(self, client: KubeClient, subject: Subject, into: Observation) -> None:
        self.told: asyncio.Queue[Exposure | None] = asyncio.Queue()
        self._subject = subject
        self._into = into
        self._agents = ProxiedAgents(client)
        where = Selection(subject.namespace)
        self._pods = Reflector(client, PODS, where)
        self._slices = Reflector(client, ENDPOINTSLICES, where)
        self._events = Reflector(client, EVENTS, where)
        self._nodes = Reflector(client, NODES)
        self._sets = Reflector(client, REPLICASETS, where)
        self._departures: dict[str, _Departure] = {}
        self._watches: dict[str, NodeWatch] = {}
        self._is_open = False
        self._is_over = False
        self._changed = asyncio.Event()

    def start(self, nursery: Nursery, seconds: float) -> None:
        """Begin everything in ``nursery``."""
        self._nursery = nursery
        wanted = [self._pods, self._slices, self._events]
        wanted += [self._nodes] if self._into.has_agents else []
        wanted += [self._sets] if self._subject.kind == "deploy" else []
        for reflector in wanted:
            nursery.start(reflector.run(), name=f"watch {reflector.resource.plural}")
        nursery.start(self._begin(wanted, seconds), name="begin")

    async def _begin(self, wanted: list[Reflector], seconds: float) -> None:
        for reflector in wanted:
            if reflector is not self._events:
                await reflector.synced()
        try:
            async with asyncio.timeout(EVENTS_SECONDS):
                await self._events.synced()
        except TimeoutError:  # who may not list events still gets the rest
            self._into.notes.append("Events cannot be read: when pods without a gate were told to stop is not known")
        self._pods.subscribe(self._pod_changed)
        self._events.subscribe(self._event_seen)
        self._slices.subscribe(lambda old, new: self._slices_changed())
        self._is_open = True
        await asyncio.sleep(seconds)
        self._is_over = True
        while self._departures:
            self._changed.clear()
            await self._changed.wait()
        self.told.put_nowait(None)

    def give_up(self) -> None:
        """Who is still leaving is told as far as it was seen."""
        for uid in sorted(self._departures):
            self._conclude(uid)
        self.told.put_nowait(None)

    # --- pods ---

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        either = new or old
        assert either is not None
        uid = str(either["metadata"].get("uid"))
        found = self._departures.get(uid)
        if found is None:
            if new is not None and self._is_leaving(old, new):
                self._depart(new)
            return
        if new is None or new["metadata"].get("uid") != uid:
            self._went(uid, found)
            return
        known, found.obj = found.obj, new
        self._note(found, known, new)

    def _is_leaving(self, old: JsonObject | None, new: JsonObject) -> bool:
        """Whether it was deleted while we watch: of one that was leaving before, the beginning was not seen."""
        if not new["metadata"].get("deletionTimestamp") or not self._is_open or self._is_over:
            return False
        return old is None or not old["metadata"].get("deletionTimestamp")

    def _depart(self, obj: JsonObject) -> None:
        try:
            pod = pods.decode(obj)
        except Malformed:
            return
        endpoints = every_endpoint(pod)
        if not endpoints or not self._is_meant(pod):
            return
        listed = {one.service for one in listings_of(pod, self._slices.objects.values())}
        if not listed:
            self._into.unlisted += 1
            return
        leaving = Leaving(pod.uid, pod.node, endpoints)
        found = _Departure(obj, pod, vtime.now(), leaving)
        found.slices = {service: LetGo(service, SLICE) for service in sorted(listed)}
        self._departures[pod.uid] = found
        for event in self._events.objects.values():
            self._event_seen(None, event)
        self._slices_changed()
        if not self._into.has_agents:
            return
        for _, node in sorted(self._nodes.objects):
            self._watch_of(node).add(leaving)
        if pod.node:
            self._start(found, follow_sockets(self._agents, leaving), f"sockets of {pod}")

    def _note(self, found: _Departure, old: JsonObject, new: JsonObject) -> None:
        if found.answered is None and any(one.step == "drained" for one in changes(old, new, vtime.now())):
            found.answered = vtime.now()
        with contextlib.suppress(Malformed):
            result = decode_result(new["metadata"].get("annotations") or {})
            found.result = found.result if result is None else result.result.value

    def _went(self, uid: str, found: _Departure) -> None:
        if found.gone is None:
            found.gone = vtime.now()
            self._start(found, self._after(uid, found), f"after {found.pod}")

    async def _after(self, uid: str, found: _Departure) -> None:
        """Until every node has let go, or has had its time."""
        until = vtime.now() + timedelta(seconds=TAIL_SECONDS)
        await asyncio.sleep(QUIET_SECONDS)
        while vtime.now() < until and any(
            one.at is None and not one.gap for one in (*found.leaving.letting.values(), *found.slices.values())
        ):
            await asyncio.sleep(0.2)
        self._conclude(uid)

    def _conclude(self, uid: str) -> None:
        found = self._departures.pop(uid)
        for watch in self._watches.values():
            watch.drop(uid)
        exposure = _exposure(found)
        self._into.exposures.append(exposure)
        self.told.put_nowait(exposure)
        self._changed.set()
        current = asyncio.current_task()
        for task in found.tasks:
            if task is not current:
                task.cancel()

    def _start(self, found: _Departure, work: Coroutine[Any, Any, None], name: str) -> None:
        found.tasks.append(self._nursery.start(work, name=name))

    def _watch_of(self, node: str) -> NodeWatch:
        if node not in self._watches:
            self._watches[node] = NodeWatch(self._agents, node)
            self._nursery.start(self._watches[node].run(), name=f"routes of {node}")
        return self._watches[node]

    def _is_meant(self, pod: Pod) -> bool:
        name, kind = self._subject.name, self._subject.kind
        if kind == "svc":
            listed = listings_of(pod, self._slices.objects.values())
            return f"{self._subject.namespace}/{name}" in {one.service for one in listed}
        if kind == "deploy":
            owner = self._sets.objects.get((pod.namespace, pod.owner.name)) if pod.owner is not None else None
            references = (owner or {}).get("metadata", {}).get("ownerReferences") or ()
            return any(one.get("kind") == "Deployment" and one.get("name") == name for one in references)
        return True

    # --- what others show ---

    def _event_seen(self, old: JsonObject | None, new: JsonObject | None) -> None:
        del old
        if new is None:
            return
        found = self._departures.get(str((new.get("involvedObject") or {}).get("uid")))
        killing = None if found is None else killing_seen(new, vtime.now())
        if found is None or killing is None or killing[0] < found.deleted - timedelta(seconds=EVENTS_SECONDS):
            return  # a container that was killed before belongs to a restart
        if found.killing is None or killing[0] < found.killing[0]:
            found.killing = killing

    def _slices_changed(self) -> None:
        """A Service has let go once no slice of it says that new traffic may go there."""
        now = vtime.now()
        for found in self._departures.values():
            ready = {
                one.service
                for one in listings_of(found.pod, self._slices.objects.values())
                if one.endpoint.is_ready and not one.endpoint.is_terminating
            }
            for service, known in found.slices.items():
                if service in ready:
                    found.slices[service] = LetGo(service, SLICE)
                elif known.at is None:
                    found.slices[service] = LetGo(service, SLICE, now)


def _exposure(found: _Departure) -> Exposure:
    sigterm = sigterm_of(found.obj, found.killing, found.answered)
    observers = (*(found.leaving.letting[node] for node in sorted(found.leaving.letting)), *found.slices.values())
    at = sigterm.at
    exposure = Exposure(
        namespace=found.pod.namespace,
        pod=found.pod.name,
        uid=found.pod.uid,
        node=found.pod.node,
        deleted=found.deleted,
        ended=vtime.now(),
        sigterm=_never_later_than(sigterm, found.gone),
        observers=observers,
        gone=found.gone,
        is_gated=is_gated(found.obj),
        result=found.result,
    )
    if at is None or not exposure.exposed_to:
        return exposure
    until = max(one.at or exposure.ended for one in observers if one.observer in exposure.exposed_to)
    return replace(exposure, opened=found.leaving.opened(at, until))


def _never_later_than(sigterm: Sigterm, gone: datetime | None) -> Sigterm:
    """What was worked out from a hook's own word cannot be later than the pod's end."""
    if sigterm.at is None or gone is None or sigterm.at <= gone:
        return sigterm
    return replace(sigterm, at=gone, source=f"{sigterm.source}, and no later than its end")
