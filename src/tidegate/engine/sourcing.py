"""The source of truth for routes: what the EndpointSlices say about every drain in flight.

The watch is only a hint when to look; what counts is a quorum LIST of all namespaces that began after the drain
was asked for. Afterwards the watch takes a drain back as soon as it shows the pod again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tidegate.drain import source
from tidegate.drain.state import Mode
from tidegate.engine import owners
from tidegate.engine.flights import POD_IS_GONE, Flight, Flights
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Api, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Reflector, key_of
from tidegate.model import endpointslice, pod, service
from tidegate.model.decode import Malformed
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.names import decode_drain
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload
from tidegate.traffic.listing import serving_endpoints
from tidegate.vtime import Nursery

RELIST_SECONDS = 1.0
"""How long to trust a watch that shows nothing new: it may hang."""
RETRY_SECONDS = 0.2
WORKLOAD_SECONDS = 5.0
"""How long an owner is remembered: it may be scaled to zero, or deleted, while the last endpoint waits."""


@dataclass(slots=True)
class Decoder:
    """Decodes objects once per resourceVersion: a LIST repeats what the last one had."""

    decode: Callable[[Any], Any]
    known: dict[tuple[str, str], tuple[str, Any]] = field(default_factory=dict)

    def all(self, objects: Iterable[JsonObject]) -> tuple[Any, ...]:
        """Every object as a noun. Raises ``Malformed``: a slice nobody can read blocks every drain."""
        fresh: dict[tuple[str, str], tuple[str, Any]] = {}
        for obj in objects:
            key, version = key_of(obj), str(obj["metadata"].get("resourceVersion"))
            found = self.known.get(key)
            fresh[key] = found if found is not None and found[0] == version else (version, self.decode(obj))
        self.known = fresh
        return tuple(noun for _, noun in fresh.values())


@dataclass(frozen=True, slots=True)
class Lists:
    """Services and slices of all namespaces, as of ``version``."""

    services: tuple[Service, ...]
    slices: tuple[EndpointSlice, ...]
    version: str


class Sourcing:
    """Keeps ``clean_at`` and ``reasons`` of every flight true."""

    def __init__(self, api: Api, flights: Flights, log: Callable[[str], None]) -> None:
        self._api = api
        self._flights = flights
        self._log = log
        self.slices = Reflector(api, ENDPOINTSLICES)
        self.services = Reflector(api, SERVICES)
        self._listed_version = ""
        self._cached = (Decoder(service.decode), Decoder(endpointslice.decode))
        self._listed = (Decoder(service.decode), Decoder(endpointslice.decode))
        self._lock = asyncio.Lock()
        self._listed_at = 0.0

    async def run(self) -> None:
        """Look for ever."""
        self.slices.subscribe(lambda old, new: self._flights.news.set())
        async with Nursery() as nursery:
            nursery.start(self.slices.run(), name="watch slices")
            nursery.start(self.services.run(), name="watch services")
            nursery.start(self._look_for_ever(), name="look")

    async def _look_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        news = self._flights.news
        while True:
            news.clear()
            if (self._judge_from_watch() or self._is_overdue(loop.time())) and not await self.list_now():
                await asyncio.sleep(RETRY_SECONDS)
            try:
                async with asyncio.timeout(RELIST_SECONDS):
                    await news.wait()
            except TimeoutError:
                continue

    def _is_overdue(self, now: float) -> bool:
        return now - self._listed_at >= RELIST_SECONDS and any(flight.clean_at is None for flight in self._flights)

    def _judge_from_watch(self) -> bool:
        """Take back what the watch shows dirty; True when a drain that waits looks clean (or is not known yet)."""
        try:
            services, slices = self._cached
            lists = Lists(services.all(self.services.objects.values()), slices.all(self.slices.objects.values()), "")
        except Malformed as error:
            self._block(str(error))
            return False
        is_due = False
        is_newer = _is_newer(self.slices.resource_version, self._listed_version)
        for flight in self._flights:
            if flight.pod is None:
                is_due = is_due or not flight.is_read
                continue
            found = source.look(_question(flight, lists, flight.pod))
            self._note_lasts(flight, found)
            if flight.clean_at is None:
                is_due = is_due or found.is_clean
                flight.reasons = found.dirty or flight.reasons
            elif not found.is_clean and is_newer:
                self._dirty(flight, found.dirty)
        return is_due

    async def list_now(self) -> bool:
        """One quorum LIST for all drains in flight; False when the API did not answer."""
        async with self._lock:
            return await self._list()

    async def _list(self) -> bool:
        asked = [(flight, flight.round) for flight in self._flights]
        try:
            await asyncio.gather(*(self._read_pod(flight) for flight, _ in asked))
            # A Service that only one of the two has is in doubt either way: no slice of its own, or one of nobody's.
            listed_services, listed_slices = await asyncio.gather(
                self._api.list(SERVICES), self._api.list(ENDPOINTSLICES)
            )
            at = asyncio.get_running_loop().time()
            services, slices = self._listed
            lists = Lists(
                services.all(listed_services.items), slices.all(listed_slices.items), listed_slices.resource_version
            )
            self._listed_version, self._listed_at = lists.version, at
            for flight, round_ in asked:
                # A round that began during the list was not asked of it.
                if self._flights.by_key.get(flight.key) is flight and flight.round == round_:
                    await self._judge(flight, lists, at)
        except KubeError as error:
            self._block(f"the API does not answer: {error}")
            return False
        except Malformed as error:
            self._block(str(error))
            return False
        return True

    async def _judge(self, flight: Flight, lists: Lists, at: float) -> None:
        if flight.pod is None:
            return
        question = _question(flight, lists, flight.pod)
        found = source.look(question)
        self._note_lasts(flight, found)
        flight.seen = found.seen
        flight.serving = tuple(sorted({*flight.serving, *serving_endpoints(flight.pod, lists.slices)}))
        flight.suspected = source.suspects(_as_before(flight.pod, flight.labels_before), question.services)
        if not found.is_clean:
            if flight.mode is Mode.GATE:
                flight.exception = source.gate_exception(question, await self._workload(flight)) or ""
            self._dirty(flight, found.dirty)
        elif flight.clean_at is None:
            flight.found_clean(at)
            self._flights.tell()

    def _note_lasts(self, flight: Flight, found: source.Source) -> None:
        if flight.lasts != found.lasts:
            flight.lasts = found.lasts
            self._flights.tell()

    def _dirty(self, flight: Flight, reasons: tuple[str, ...]) -> None:
        if flight.clean_at is not None or flight.reasons != reasons or flight.exception:
            if flight.clean_at is not None:
                self._log(f"{flight.name} is back: {'; '.join(reasons)}")
            flight.found_dirty(reasons)
            self._flights.tell()

    def _block(self, reason: str) -> None:
        """Why nothing can be said now. What was clean stays clean: not reading is no evidence against it."""
        for flight in self._flights:
            if flight.clean_at is None and flight.reasons != (reason,):
                flight.reasons = (reason,)
                self._flights.tell()

    async def _read_pod(self, flight: Flight) -> None:
        """The pod as the API has it now: its labels decide who selects it."""
        flight.pod, why = None, POD_IS_GONE
        try:
            found = pod.decode(await self._api.get(PODS, flight.name, flight.namespace))
            record = decode_drain(found.annotations)
            if found.uid == flight.uid:
                flight.pod = found
                flight.labels_before = record.labels if record is not None and record.labels else None
                # Of a pod whose end began by label, the gate asks too: it was in the slices before, and is no more.
                flight.seen = tuple(sorted({*flight.seen, *(record.seen if record is not None else ())}))
        except Malformed as error:
            why = str(error)
        except ApiError as error:
            if not error.is_not_found:
                raise
        flight.is_read = True
        if flight.pod is None:
            self._dirty(flight, (why,))

    async def _workload(self, flight: Flight) -> Workload | None:
        """The pod's topmost owner; None where it is of a kind we do not know, or cannot be read: one pod whose owner
        nobody lets us see must not keep all the others waiting."""
        now = asyncio.get_running_loop().time()
        if flight.pod is not None and now - flight.workload_read_at >= WORKLOAD_SECONDS:
            flight.workload_read_at = now
            try:
                flight.workload = _replacing(await owners.of(self._api, flight.pod))
            except (KubeError, Malformed) as error:
                flight.workload = None
                self._log(f"{flight.name}: its owner cannot be read: {error}")
        return flight.workload


def _replacing(chain: tuple[Workload, ...]) -> Workload | None:
    """Who says how the pod is replaced: the topmost owner that is there to stay, unless the nearest is not."""
    staying = [owner for owner in chain if not owner.is_ending]
    return chain[0] if chain and chain[0].is_ending else staying[-1] if staying else None


def _question(flight: Flight, lists: Lists, subject: Pod) -> source.Question:
    """About the Services that were asked about: one that the pod is to stay in says nothing about the others."""
    services, slices = lists.services, lists.slices
    if flight.services:
        services = tuple(one for one in services if str(one) in flight.services)
        slices = tuple(one for one in slices if f"{one.namespace}/{one.service}" in flight.services)
    return source.Question(flight.mode, subject, services, slices, flight.seen, labels_before=flight.labels_before)


def _as_before(subject: Pod, labels: dict[str, str] | None) -> Pod:
    """The pod with the labels its clients knew it by."""
    return subject if labels is None else msgspec.structs.replace(subject, labels=labels)


def _is_newer(cached: str, listed: str) -> bool:
    """Whether the watch has passed the list; resourceVersions are comparable numbers (KEP-5504)."""
    if not (cached.isdigit() and listed.isdigit()):
        return True
    return int(cached) > int(listed)
