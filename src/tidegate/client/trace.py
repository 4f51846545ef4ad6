"""``trace_pod`` and ``follow_pod``: the timeline of a pod's birth and death, each moment with its source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from tidegate import vtime
from tidegate.client.trace_nodes import Connections, RoutesAsked, follow_ledger, follow_routes
from tidegate.dataplane.facts import Facts
from tidegate.kube.api import ENDPOINTSLICES, EVENTS, NODES, PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.kube.reflector import Reflector
from tidegate.model import endpointslice
from tidegate.model import pod as pod_noun
from tidegate.model.decode import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import DRAIN
from tidegate.model.pod import Pod
from tidegate.observers.proxied import ProxiedAgents, ProxiedCoordinator
from tidegate.observers.witness import Question
from tidegate.traffic import every_endpoint, listings
from tidegate.traffic.moments import (
    LATE,
    Moment,
    changes,
    gaps,
    hooked,
    is_gated,
    killing_seen,
    ordered,
    standing,
    stopping,
)
from tidegate.vtime import Nursery

_BORN = ("scheduled", "address", "started", "ready")
EVENTS_SECONDS = 2.0
TAIL_SECONDS = 0.5
"""After the pod is gone the other watches have this long to show what came before."""


@dataclass(slots=True)
class Trace:
    """``moments`` in order. ``is_whole``: it was followed from the pod's creation to its end."""

    namespace: str
    name: str
    uid: str = ""
    node: str = ""
    is_whole: bool = False
    moments: list[Moment] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        """The JSON that ``-o json`` prints; docs/json.md names its keys."""
        return {
            "namespace": self.namespace,
            "pod": self.name,
            "uid": self.uid,
            "node": self.node,
            "whole": self.is_whole,
            "moments": [document_of(one) for one in ordered(self.moments)],
        }


def document_of(one: Moment) -> dict[str, Any]:
    """One moment as JSON; ``at`` is RFC 3339 with milliseconds, null for a gap."""
    return {
        "step": one.step,
        "at": None if one.at is None else one.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "subject": one.subject,
        "source": one.source,
        "detail": one.detail,
        "resolution_seconds": one.resolution_seconds,
        "gap": one.gap,
    }


async def trace_pod(client: KubeClient, namespace: str, name: str) -> Trace:
    """What can be told of a pod now, without watching. Raises ``KubeError`` (404: no such pod)."""
    obj = await client.get(PODS, name, namespace)
    try:
        events = (await client.list(EVENTS, _events_of(namespace, name))).items
    except KubeError:
        events = []
    slices = (await client.list(ENDPOINTSLICES, Selection(namespace))).items
    nodes = sorted(one["metadata"]["name"] for one in (await client.list(NODES)).items)
    subject = pod_noun.decode(obj)
    found = [*standing(obj, events), *_listed(subject, slices)]
    found += await _routed(ProxiedAgents(client), nodes, subject)
    why = {"first-connection": LATE} if subject.ips else {}
    if subject.is_terminating:
        why |= {"last-connection": LATE, "sigterm": _no_sigterm(obj)}
    found += gaps(found, {**dict.fromkeys(_BORN, "not yet" if not subject.is_terminating else LATE), **why})
    return Trace(namespace, name, subject.uid, subject.node, False, ordered(found))


async def follow_pod(client: KubeClient, namespace: str, name: str, trace: Trace) -> AsyncIterator[Moment]:
    """Each moment as it is seen, until the pod is gone; waits for a pod that does not exist yet.

    ``trace`` is filled meanwhile. Raises ``KubeError`` when pods cannot be watched.
    """
    await client.list(PODS, Selection(namespace, fields=f"metadata.name={name}"))  # what may not be read fails at once
    told: asyncio.Queue[Moment | None] = asyncio.Queue()
    following = _Following(client, trace, told)
    async with Nursery() as nursery:
        following.start(nursery)
        try:
            while (moment := await told.get()) is not None:
                trace.moments.append(moment)
                yield moment
        finally:
            nursery.cancel()


class _Following:
    """Watches and questions about one pod; everything they show goes into one queue."""

    def __init__(self, client: KubeClient, trace: Trace, told: asyncio.Queue[Moment | None]) -> None:
        self._trace = trace
        self._told = told
        self._seen: list[Moment] = []
        self._agents = ProxiedAgents(client)
        self._coordinator = ProxiedCoordinator(client)
        self._connections = Connections(self._agents, self._tell)
        one = Selection(trace.namespace, fields=f"metadata.name={trace.name}")
        self._pods = Reflector(client, PODS, one)
        self._slices = Reflector(client, ENDPOINTSLICES, Selection(trace.namespace))
        self._events = Reflector(client, EVENTS, _events_of(trace.namespace, trace.name))
        self._nodes = Reflector(client, NODES)
        self._pod: JsonObject | None = None
        self._listed: dict[str, str] = {}
        self._begun: dict[str, asyncio.Task[None]] = {}
        self._is_live = False
        self._is_gone = False

    def start(self, nursery: Nursery) -> None:
        """Begin everything in ``nursery``."""
        self._nursery = nursery
        for reflector in (self._pods, self._slices, self._events, self._nodes):
            nursery.start(reflector.run(), name=f"watch {reflector.resource.plural}")
        nursery.start(self._begin(), name="begin")

    async def _begin(self) -> None:
        """What is there already is told with the times its objects have; what comes from now on, as it is seen."""
        for reflector in (self._pods, self._slices, self._nodes):
            await reflector.synced()
        with contextlib.suppress(TimeoutError):  # who may not list events still gets the rest
            async with asyncio.timeout(EVENTS_SECONDS):
                await self._events.synced()
        self._pods.subscribe(self._pod_changed)
        self._is_live = True
        self._slices.subscribe(lambda old, new: self._slices_changed())
        self._events.subscribe(self._event_seen)
        self._nodes.subscribe(lambda old, new: self._ask_nodes())

    def _tell(self, moment: Moment) -> None:
        self._seen.append(moment)
        self._told.put_nowait(moment)

    # --- the pod ---

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if self._is_gone:
            return
        if self._pod is not None and (new is None or new["metadata"]["uid"] != self._trace.uid):
            self._is_gone = True
            self._nursery.start(self._end(vtime.now()), name="end")
            return
        if new is None:
            return
        known, self._pod = self._pod, new
        self._trace.uid = new["metadata"]["uid"]
        self._trace.node = str((new.get("spec") or {}).get("nodeName") or "")
        if self._is_live:
            self._trace.is_whole = self._trace.is_whole or known is None
            found = changes(known, new, vtime.now())
        else:
            found = standing(new, self._events.objects.values())
            found += gaps(found, {"first-connection": LATE} if (new.get("status") or {}).get("podIP") else {})
        for moment in found:
            self._tell(moment)
        self._slices_changed()
        self._ask_nodes()

    async def _end(self, gone: datetime) -> None:
        """Gone: what the other watches still bring, then what nobody saw."""
        await asyncio.sleep(TAIL_SECONDS)
        self._tell(self._connections.last())
        assert self._pod is not None
        unseen = {**_UNSEEN, "sigterm": _no_sigterm(self._pod)}
        for moment in gaps(self._seen, unseen):
            self._tell(moment)
        self._tell(Moment("gone", gone, "Pod watch"))
        self._told.put_nowait(None)

    # --- what others show of it ---

    def _slices_changed(self) -> None:
        """Which Services list it, and how: told whenever that changes."""
        if self._pod is None:
            return
        subject = pod_noun.decode(self._pod)
        now = {
            listing.service: _conditions(listing.endpoint)
            for listing in listings_of(subject, self._slices.objects.values())
        }
        for service in sorted(set(now) | set(self._listed)):
            before, after = self._listed.get(service), now.get(service)
            if before == after:
                continue
            step = "unlisted" if after is None else "terminating" if "terminating" in after else "listed"
            at, gap = (vtime.now(), "") if self._is_live else (None, LATE)
            self._tell(Moment(step, at, "EndpointSlice watch", service, after or "", gap=gap))
        self._listed = now

    def _event_seen(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None or self._pod is None or (new.get("involvedObject") or {}).get("uid") != self._trace.uid:
            return
        killing = killing_seen(new, vtime.now())
        if killing is None or any(one.step in ("stopping", "sigterm") for one in self._seen):
            return
        for moment in stopping(self._pod, *killing):
            self._tell(moment)

    def _ask_nodes(self) -> None:
        """Once it has an address every node is asked, and its own about connections too."""
        if self._pod is None or self._is_gone:
            return
        subject = pod_noun.decode(self._pod)
        if subject.is_terminating or DRAIN in subject.annotations:
            self._once("ledger", lambda: follow_ledger(self._coordinator, subject.uid, self._tell))
        endpoints = every_endpoint(subject)
        if not endpoints:
            return
        is_late = not self._trace.is_whole
        for _, node in sorted(self._nodes.objects):
            asked = RoutesAsked(node, endpoints, is_late)
            self._once(f"routes of {node}", partial(follow_routes, self._agents, asked, self._tell))
        if subject.node:
            self._once("connections", lambda: self._connections.follow(subject.node, endpoints))

    def _once(self, name: str, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if name not in self._begun:
            self._begun[name] = self._nursery.start(begin(), name=name)


_UNSEEN = {
    "scheduled": "it never was",
    "address": "it never had one",
    "started": "none ever did",
    "ready": "it never was",
    "listed": "no EndpointSlice listed it",
    "routed": "no node was seen to route to it",
    "first-connection": "none was seen",
    "deleted": "not seen",
}
"""Why a step is missing from a trace that ended."""


def _no_sigterm(pod: JsonObject) -> str:
    if is_gated(pod):
        return "not yet, or not seen: the gate is answered once the drain's result is on the pod"
    hooks = hooked(pod)
    if hooks:
        return f"sent when the preStop hook of {', '.join(hooks)} ended, which nothing tells"
    return "no Event Killing was seen"


def _conditions(entry: endpointslice.SliceEndpoint) -> str:
    words = {"ready": entry.is_ready, "serving": entry.is_serving, "terminating": entry.is_terminating}
    return ",".join(word for word, holds in words.items() if holds) or "not ready"


def listings_of(subject: Pod, slices: Any) -> Any:
    known = []
    for obj in slices:
        try:
            known.append(endpointslice.decode(obj))
        except Malformed:
            continue
    return listings(subject, known)


def _listed(subject: Pod, slices: list[JsonObject]) -> list[Moment]:
    return [
        Moment(
            "terminating" if listing.endpoint.is_terminating else "listed", None, "EndpointSlice", listing.service,
            _conditions(listing.endpoint), gap=LATE,
        )
        for listing in listings_of(subject, slices)
    ]  # fmt: skip


async def _routed(agents: ProxiedAgents, nodes: list[str], subject: Pod) -> list[Moment]:
    """Which nodes route to it now; since when is a gap."""
    endpoints: tuple[Endpoint, ...] = every_endpoint(subject)
    if not endpoints:
        return []

    async def one(node: str) -> Moment:
        source = f"agent of {node}"
        try:
            facts: Facts = (await agents.ask(node, Question(endpoints))).facts
        except KubeError as error:
            return Moment("routed", None, source, node, gap=f"not seen: {error}")
        if facts.unreadable:
            return Moment("routed", None, source, node, gap=f"not seen: {'; '.join(map(str, facts.unreadable))}")
        is_routed = any(facts.routes_to(endpoint) for endpoint in endpoints)
        step, detail = ("routed", "routes to it now") if is_routed else ("unrouted", "no route now")
        return Moment(step, None, source, node, detail, gap=LATE)

    return list(await asyncio.gather(*(one(node) for node in nodes)))


def _events_of(namespace: str, name: str) -> Selection:
    return Selection(namespace, fields=f"involvedObject.name={name}")
