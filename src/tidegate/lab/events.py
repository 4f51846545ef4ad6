"""The event recorder: what controllers, scheduler and kubelets say about objects, as client-go posts it.

Three steps of client-go's correlator (tools/record/events_cache.go) in its order: similar events (same
source, object and reason) collapse after ten different messages in ten minutes; an identical event raises
``count`` on the one posted before; a source may say 25 things about one object, then one per 300 s. Posting
is behind a queue: nothing that reconciles ever waits for an event, and a lost one is not retried for ever.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, TypeVar

from tidegate import vtime
from tidegate.kube.api import EVENTS, Api, JsonObject, Patch
from tidegate.kube.errors import ApiError, KubeError
from tidegate.lab.instants import micro_stamp, nanoseconds, stamp

Severity = Literal["Normal", "Warning"]
_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_SIMILAR_MAX = 10
_SIMILAR_SECONDS = 600.0
_BURST = 25
_REFILL_PER_SECOND = 1 / 300
_SERIES_SECONDS = 360.0
_REMEMBERED_MAX = 4096
_NAME_TRIES = 20


@dataclass(frozen=True, slots=True)
class Source:
    """Who speaks. ``modern`` is the events.k8s.io form (the scheduler's): eventTime and action, no count."""

    component: str
    host: str = ""
    modern: bool = False

    @property
    def instance(self) -> str:
        return f"{self.component}-{self.host}" if self.modern else self.host


@dataclass(frozen=True, slots=True)
class Event:
    """One thing said. ``field_path`` names a container (``spec.containers{app}``); ``action`` is modern."""

    severity: Severity
    reason: str
    message: str
    field_path: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class _Said:
    ref: JsonObject
    event: Event
    at: datetime
    message: str = ""

    @property
    def text(self) -> str:
        return self.message or self.event.message

    @property
    def namespace(self) -> str:
        return str(self.ref.get("namespace") or "default")


@dataclass(slots=True)
class _Posted:
    name: str
    count: int
    at: float


@dataclass(slots=True)
class _Similar:
    messages: set[str] = field(default_factory=set)
    at: float = 0.0


@dataclass(slots=True)
class _Allowance:
    tokens: float = _BURST
    at: float = 0.0


def reference(obj: JsonObject, field_path: str = "") -> JsonObject:
    """The ``involvedObject`` of an object (needs kind, apiVersion and metadata)."""
    meta = obj["metadata"]
    ref = {"kind": obj.get("kind", ""), "namespace": meta.get("namespace"), "name": meta["name"]}
    ref |= {"uid": meta.get("uid"), "apiVersion": obj.get("apiVersion")}
    ref |= {"resourceVersion": meta.get("resourceVersion"), "fieldPath": field_path}
    return {key: value for key, value in ref.items() if value}


class Recorder:
    """Records events of one source. ``event`` never blocks; ``run`` posts them in order until cancelled."""

    def __init__(self, api: Api, source: Source) -> None:
        self._api = api
        self._source = source
        self._queue: asyncio.Queue[_Said] = asyncio.Queue()
        self._posted: OrderedDict[tuple[str, ...], _Posted] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._last_ns = 0

    def event(self, involved: JsonObject, event: Event) -> None:
        """Say ``event`` about ``involved``, an object with apiVersion, kind and metadata."""
        self._queue.put_nowait(_Said(reference(involved, event.field_path), event, vtime.now()))

    async def run(self) -> None:
        """Post what was recorded, for ever. What cannot be posted is dropped: events are best effort."""
        while True:
            said = await self._queue.get()
            try:
                await self._post(said)
            except KubeError:
                continue

    async def _post(self, said: _Said) -> None:
        ref, event = said.ref, said.event
        about = f"{ref.get('kind')}/{ref.get('namespace', '')}/{ref['name']}/{ref.get('uid', '')}"
        about += f"/{ref.get('fieldPath', '')}"
        similar = not self._source.modern and self._is_one_of_many(about, event)
        key = (about, event.severity, event.reason, "" if similar else event.message)
        if similar:
            said = replace(said, message=f"(combined from similar events): {event.message}")
        if not self._source.modern and not self._is_allowed(about):
            return
        known = self._posted.get(key)
        now = asyncio.get_running_loop().time()
        if known and (not self._source.modern or now - known.at < _SERIES_SECONDS):
            known.count, known.at = known.count + 1, now
            self._posted.move_to_end(key)
            if await self._count(said, known):
                return
        name = await self._create(said)
        if name:
            _remember(self._posted, key, _Posted(name, 1, now))

    def _is_one_of_many(self, about: str, event: Event) -> bool:
        """True after ten different messages of one kind: one event then stands for them all."""
        now = asyncio.get_running_loop().time()
        key = (about, event.severity, event.reason)
        similar = self._similar.get(key)
        if similar is None or now - similar.at > _SIMILAR_SECONDS:
            similar = _Similar()
            _remember(self._similar, key, similar)
        similar.messages.add(event.message)
        similar.at = now
        if len(similar.messages) < _SIMILAR_MAX:
            return False
        similar.messages.discard(event.message)
        return True

    def _is_allowed(self, about: str) -> bool:
        now = asyncio.get_running_loop().time()
        allowance = self._allowances.get(about)
        if allowance is None:
            allowance = _Allowance(at=now)
            _remember(self._allowances, about, allowance)
        allowance.tokens = min(_BURST, allowance.tokens + (now - allowance.at) * _REFILL_PER_SECOND)
        allowance.at = now
        if allowance.tokens < 1:
            return False
        allowance.tokens -= 1
        return True

    async def _count(self, said: _Said, known: _Posted) -> bool:
        """Raise the count of an event posted before; False when it has expired and must be created again."""
        body: JsonObject = {"count": known.count, "message": said.text, "lastTimestamp": stamp(said.at)}
        if self._source.modern:
            body = {"series": {"count": known.count, "lastObservedTime": micro_stamp(said.at)}}
        try:
            await self._api.patch(EVENTS, known.name, Patch(body), said.namespace)
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        return True

    async def _create(self, said: _Said) -> str:
        """Post a new event. Two sources may draw one name at one virtual instant: take the next."""
        for _ in range(_NAME_TRIES):
            self._last_ns = max(nanoseconds(said.at), self._last_ns + 1)
            name = f"{said.ref['name']}.{self._last_ns:016x}"
            meta = {"name": name, "namespace": said.namespace}
            try:
                await self._api.create(EVENTS, self._body(said) | {"metadata": meta}, said.namespace)
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    continue
                raise
            return name
        return ""

    def _body(self, said: _Said) -> JsonObject:
        source, event = self._source, said.event
        body: JsonObject = {"apiVersion": "v1", "kind": "Event", "involvedObject": said.ref}
        body |= {"reason": event.reason, "message": said.text, "type": event.severity}
        body |= {"reportingComponent": source.component, "reportingInstance": source.instance}
        if source.modern:
            at = {"firstTimestamp": None, "lastTimestamp": None, "eventTime": micro_stamp(said.at)}
            return body | at | {"source": {}, "action": event.action}
        spoken_by = {"component": source.component} | ({"host": source.host} if source.host else {})
        at = {"firstTimestamp": stamp(said.at), "lastTimestamp": stamp(said.at), "eventTime": None}
        return body | at | {"source": spoken_by, "count": 1}


def _remember(cache: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _REMEMBERED_MAX:
        cache.popitem(last=False)
