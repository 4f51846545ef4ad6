"""Asks the observers that are no nodes, as ``canvass`` asks nodes: each replica once for all drains in flight.

Replicas come from the slices of their own Service, by the watch and by a list of their own in the last look. One that
appears in the middle of a drain has to let go too, for it may have started from old lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tidegate import vtime
from tidegate.agent.canvass import Reading
from tidegate.drain.acknowledgement import LETTING_GO, Verdict
from tidegate.engine.flights import Flight, Key
from tidegate.kube.api import ENDPOINTSLICES, Api, JsonObject, Selection
from tidegate.kube.errors import KubeError
from tidegate.model import endpointslice
from tidegate.model.decode import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import SERVICE_LABEL, EndpointSlice
from tidegate.model.epoch import Epoch, earliest
from tidegate.observers.arrival import Arrival, Sought
from tidegate.observers.behavioural import Behavioural, Live
from tidegate.observers.config import Configured
from tidegate.observers.coordinator import NodeView
from tidegate.observers.external import Expecting, Listed, Question, Replica, Selective, Services
from tidegate.observers.standing import Standing

POLL_SECONDS = 0.5
"""Proxies have no long poll. Half a second costs a replica two small answers a second, while a drain is in flight."""
NOBODY = "(no replica)"
_LETTING_GO = frozenset(verdict.value for verdict in LETTING_GO)


@dataclass(frozen=True, slots=True)
class Asked:
    """One replica of one observer."""

    configured: Configured
    replica: Replica

    @property
    def name(self) -> str:
        """As it is called wherever observers are named: ``traefik/web-abc``. No node's name has a slash."""
        return f"{self.configured.name}/{self.replica.name}"


@dataclass(frozen=True)
class ExternalReading(Reading):
    """Also, which Services it was asked about: one that is asked by name tells nothing of others."""

    services: frozenset[str] = frozenset()


@dataclass(slots=True)
class Book:
    """How every replica stands towards one drain. Another epoch or question empties it."""

    about: tuple[object, ...] = ()
    standings: dict[str, Standing | Arrival] = field(default_factory=dict)
    taken: dict[str, tuple[Reading | None, NodeView]] = field(default_factory=dict)


class Externals:
    """``names`` are the replicas there are; ``changed`` is called when one says something else. ``services`` are the
    raw Services, by namespace and name."""

    def __init__(
        self,
        configured: tuple[Configured, ...],
        install: str,
        changed: Callable[[str], None],
        services: Mapping[tuple[str, str], JsonObject] | None = None,
    ) -> None:
        self.configured = configured
        self._service_objects: Mapping[tuple[str, str], JsonObject] = {} if services is None else services
        self._asked_services: tuple[str, ...] = ()
        self.readings: dict[str, ExternalReading] = {}
        self.latest: Epoch | None = None
        """The last epoch written, as far as the coordinator knows."""
        self._install = install
        self._changed = changed
        self._asked: dict[str, Asked] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._added: tuple[Endpoint, ...] = ()
        self._added_readings: dict[str, ExternalReading] = {}
        """Answers to the question about added pods, of those who are asked for them apart."""
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._books: dict[Key, Book] = {}
        self._slices: dict[tuple[str, str], EndpointSlice] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._asked)

    def names_for(self, flight: Flight) -> tuple[str, ...]:
        """The replicas that a drain waits for: all but those that say its pod is no concern of theirs."""
        services = self._objects_of(services_of(flight))

        def concerns(asked: Asked) -> bool:
            observer = asked.configured.observer
            if asked.replica.name == NOBODY or not isinstance(observer, Selective):
                return True
            return observer.concerns(asked.replica, services)

        return tuple(name for name, asked in self._asked.items() if concerns(asked))

    def _objects_of(self, names: Iterable[str]) -> Services:
        return {name: self._service_objects.get(_key_of(name)) for name in names}

    @property
    def covers(self) -> tuple[str, ...]:
        """Which routers (``observers.discovery``) are asked."""
        return tuple(one for configured in self.configured for one in configured.observer.covers)

    def covers_for(self, flight: Flight) -> tuple[str, ...]:
        """The same, about one drain's pod. One that chooses its pods answers for those it is asked about: a target
        group of another Service says nothing about this one's load balancer."""
        asked = {self._asked[name].configured.name for name in self.names_for(flight)}
        return tuple(
            router
            for one in self.configured
            if one.name in asked or not isinstance(one.observer, Selective)
            for router in one.observer.covers
        )

    # --- who there is ---

    def saw_slice(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """A change in the watch of all slices."""
        either = new or old
        assert either is not None
        key = (either["metadata"].get("namespace") or "", either["metadata"]["name"])
        if not self.configured or not (key in self._slices or _service_of(either) in self._services()):
            return
        self._slices.pop(key, None)
        if new is not None and (found := _decoded(new)) is not None:
            self._slices[key] = found
        self.enumerate()

    def meet(self, live: Live) -> frozenset[str]:
        """Tell who dials the live fence where it is. Returns the nodes that observers stand for, as configured."""
        for one in self.configured:
            if isinstance(one.observer, Behavioural):
                one.observer.live = live
        return frozenset(node for one in self.configured for node in getattr(one.observer, "stands_for", ()))

    def floor(self) -> Epoch | None:
        """The earliest epoch that anybody who dials the live fence may still be at; None where nobody is known."""
        found = [one.observer.floor for one in self.configured if isinstance(one.observer, Behavioural)]
        known = tuple(one for one in found if one is not None)
        return earliest(known) if known else None

    @property
    def reads_objects(self) -> bool:
        """Whether the replicas of any observer stand in objects."""
        return any(isinstance(one.observer, Listed) for one in self.configured)

    def saw_objects(self, objects: Mapping[str, list[JsonObject] | None]) -> None:
        """What else was listed (``Suspicion``): some observers find their replicas there."""
        if not self.reads_objects:
            return
        for one in self.configured:
            if isinstance(one.observer, Listed):
                one.observer.see({**objects, "services": list(self._service_objects.values())})
        self.enumerate()

    async def list_now(self, api: Api) -> bool:
        """Enumerate anew by a quorum LIST; False when it could not be had."""
        for service in self._services():
            namespace, _, name = service.partition("/")
            try:
                listed = await api.list(ENDPOINTSLICES, Selection(namespace, labels=f"{SERVICE_LABEL}={name}"))
            except KubeError:
                return False
            for key in [key for key, one in self._slices.items() if f"{one.namespace}/{one.service}" == service]:
                del self._slices[key]
            for slice_ in filter(None, map(_decoded, listed.items)):
                self._slices[slice_.namespace, slice_.name] = slice_
        self.enumerate()
        return True

    def _services(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(service for one in self.configured if (service := one.service)))

    def enumerate(self) -> None:
        """Who is to be asked, by the slices as they are now."""
        found: dict[str, Asked] = {}
        failed: dict[str, str] = {}
        for configured in self.configured:
            try:
                replicas = configured.observer.replicas(self._slices.values())
            except ValueError as error:
                nobody = Asked(configured, Replica(NOBODY, ""))
                found[nobody.name], failed[nobody.name] = nobody, str(error)
                continue
            for replica in replicas:
                asked = Asked(configured, replica)
                found[asked.name] = asked
        for name in [name for name in self._asked if found.get(name) != self._asked[name]]:
            self._stop(name)
            self.readings.pop(name, None)
            self._added_readings.pop(name, None)
        is_news = list(found) != list(self._asked)
        self._asked = found
        for name, why in failed.items():
            self._fail(found[name], asyncio.get_running_loop().time(), why)
        if is_news:
            self._changed("")
        self._follow_all()

    # --- asking ---

    def set_endpoints(
        self, endpoints: Iterable[Endpoint], services: Iterable[str] = (), added: Iterable[Endpoint] = ()
    ) -> None:
        """What all drains in flight want to know, the Services (namespace/name) that they are about, and where pods
        were ``added`` that somebody asks about."""
        wanted, about, joined = tuple(sorted(set(endpoints))), tuple(sorted(set(services))), tuple(sorted(set(added)))
        is_narrower = set(wanted) <= set(self._endpoints) and set(about) <= set(self._asked_services)
        is_wider = not (is_narrower and set(joined) <= set(self._added))
        self._endpoints, self._asked_services, self._added = wanted, about, joined
        if is_wider or not wanted:
            for name in list(self._followers):
                self._stop(name)
        self._follow_all()

    async def ask_all_now(self) -> None:
        """A fresh answer of every replica, asked for after this call began."""
        await asyncio.gather(*(self._ask_all_of(asked) for asked in list(self._asked.values())))

    async def _ask_all_of(self, asked: Asked) -> None:
        """Of an observer that lists what it routes to one answer tells of additions too; others are asked twice."""
        match _additions(asked):
            case "listed":
                await self._ask(asked, (*self._endpoints, *self._added))
            case "asked":
                await self._ask(asked, self._endpoints)
                if self._added:
                    await self._ask(asked, self._added, "routed")
            case _:
                await self._ask(asked, self._endpoints)

    def _follow_all(self) -> None:
        if not self._endpoints:
            return
        for name, asked in self._asked.items():
            if name not in self._followers and asked.replica.name != NOBODY:
                loop = asyncio.get_running_loop()
                self._followers[name] = loop.create_task(self._follow(asked), name=f"ask {name}")

    def _stop(self, name: str) -> None:
        task = self._followers.pop(name, None)
        if task is not None:
            task.cancel()

    async def _follow(self, asked: Asked) -> None:
        while self._endpoints:
            began = asyncio.get_running_loop().time()
            await self._ask_all_of(asked)
            took = asyncio.get_running_loop().time() - began
            poll_seconds = getattr(asked.configured.observer, "poll_seconds", POLL_SECONDS)
            await asyncio.sleep(max(poll_seconds, 4 * took))  # a fifth of its time at most, however large its answer
        self._followers.pop(asked.name, None)

    async def _ask(
        self, asked: Asked, endpoints: tuple[Endpoint, ...], kind: Literal["unrouted", "routed"] = "unrouted"
    ) -> None:
        if not endpoints or asked.replica.name == NOBODY:
            return
        loop, timeout = asyncio.get_running_loop(), asked.configured.timeout_seconds
        sent_at = loop.time()
        try:
            async with asyncio.timeout(timeout):
                question = Question(endpoints, self._install, self.latest, timeout, self._asked_services, kind)
                facts = await asked.configured.observer.ask(asked.replica, question)
        except TimeoutError:
            self._fail(asked, sent_at, f"{asked.replica.address}: no answer within {timeout:g} s", kind)
        except KubeError as error:
            self._fail(asked, sent_at, str(error), kind)
        except Exception as error:  # a third party's observer; what it does not say blocks, by name
            self._fail(asked, sent_at, f"{type(error).__name__}: {error}", kind)
        else:
            about = frozenset(question.services)
            reading = ExternalReading(frozenset(endpoints), sent_at, loop.time(), facts, services=about)
            self._record(asked, reading, kind)

    def _fail(self, asked: Asked, sent_at: float, why: str, kind: str = "unrouted") -> None:
        loop = asyncio.get_running_loop()
        at = vtime.now().timestamp()
        reading = ExternalReading(frozenset(), sent_at, loop.time(), failure=why, failed_at=at)
        self._record(asked, reading, kind)

    def _record(self, asked: Asked, reading: ExternalReading, kind: str) -> None:
        readings = self._added_readings if kind == "routed" else self.readings
        known = readings.get(asked.name)
        if self._asked.get(asked.name) != asked or (known is not None and known.sent_at > reading.sent_at):
            return
        readings[asked.name] = reading
        self._changed(asked.name)

    # --- what it comes to ---

    def keep(self, keys: Iterable[Key]) -> None:
        """Forget all drains but these."""
        kept = frozenset(keys)
        self._books = {key: book for key, book in self._books.items() if key in kept}

    def take(self, flight: Flight, name: str) -> bool:
        """Weigh the latest reading of one replica; True when it says something else than before."""
        if flight.write is None or name not in self.names_for(flight):
            return False
        book = self._books.setdefault(flight.key, Book())
        about = (flight.write, flight.endpoints, flight.services, flight.addition)
        if book.about != about:
            book.about = about
            book.standings.clear()
            book.taken.clear()
        asked = self._asked[name]
        sought = self._sought(asked, flight)
        reading = self._reading_about(asked, sought)
        known = book.taken.get(name)
        if known is not None and known[0] is reading:
            return False
        made = Standing if sought is None else Arrival
        if not isinstance(book.standings.get(name), made):  # whether it has to list them may be known only later
            book.standings[name] = made(asked.configured.terms, flight.write.epoch)
        standing = book.standings[name]
        if reading is not None and asked.replica.name == NOBODY:
            verdict, why = standing.fail(reading.failure)
        elif isinstance(standing, Arrival):
            verdict, why = self._arrived(standing, reading, flight, sought)
        else:
            verdict, why = self._weighed(standing, reading, flight)
        source = f"{asked.configured.kind} {asked.replica.address}".rstrip()
        view = NodeView(name, verdict.value, why, source, vtime.now().timestamp())
        book.taken[name] = (reading, view)
        return known is None or (known[1].verdict, known[1].detail) != (view.verdict, view.detail)

    def _sought(self, asked: Asked, flight: Flight) -> Sought | None:
        """Which added pods it has to send to; None where no drain asks for any, or it cannot be asked for them: then
        its epoch, or its settle time, has to do."""
        addition, observer = flight.addition, asked.configured.observer
        if addition is None or not _additions(asked):
            return None
        expected = None
        if isinstance(observer, Expecting) and asked.replica.name != NOBODY:
            services = self._objects_of((addition.service,))
            expected = observer.expected(asked.replica, addition.service, services, addition.pods)
        if expected is not None:
            return Sought(replace(addition, pods=expected), is_expected=True)
        return Sought(addition) if _additions(asked) == "listed" else None

    def _reading_about(self, asked: Asked, sought: Sought | None) -> ExternalReading | None:
        is_apart = sought is not None and _additions(asked) == "asked" and asked.replica.name != NOBODY
        return (self._added_readings if is_apart else self.readings).get(asked.name)

    def _arrived(
        self, arrival: Arrival, reading: ExternalReading | None, flight: Flight, sought: Sought | None
    ) -> tuple[Verdict, str]:
        assert flight.write is not None and sought is not None
        if reading is None or reading.sent_at < flight.write.sent_at:
            return arrival.unasked()
        if reading.facts is None:
            return arrival.fail(reading.failure)
        addition = sought.addition
        if not (reading.endpoints.issuperset(addition.endpoints) and addition.service in reading.services):
            return arrival.unasked()
        return arrival.take(reading.facts, sought, reading.sent_at, self.latest)

    def _weighed(self, standing: Standing, reading: ExternalReading | None, flight: Flight) -> tuple[Verdict, str]:
        assert flight.write is not None
        if reading is None or reading.sent_at < flight.write.sent_at:
            # Weak evidence from before the epoch is none, and a failure from then may be over.
            return standing.unasked()
        if reading.facts is None:
            return standing.fail(reading.failure)
        services = flight.services or flight.seen
        if not (reading.endpoints.issuperset(flight.endpoints) and reading.services.issuperset(services)):
            return standing.unasked()
        facts = reading.facts.about(flight.services)
        verdict, why = standing.take(facts, flight.endpoints, reading.sent_at, self.latest)
        if verdict is Verdict.CONFIRMED and standing.terms.routes_unread and not self._are_all_tcp(services):
            return Verdict.ASSUMED, f"{why}; and nobody reads whether flows of datagrams go on to the pod"
        return verdict, why

    def _are_all_tcp(self, services: Iterable[str]) -> bool:
        """A flow of UDP keeps its endpoint after the rule is gone (conntrack), and what connects anew does not meet it.
        Of a Service that is not known nobody can say."""
        found = [self._service_objects.get(_key_of(name)) for name in services]
        return all(
            one is not None and all(port.get("protocol", "TCP") == "TCP" for port in one["spec"].get("ports") or ())
            for one in found
        )

    def views(self, flight: Flight) -> tuple[NodeView, ...]:
        """Every replica's answer, up to date; none before there is an epoch."""
        if flight.write is None:
            return ()
        names = self.names_for(flight)
        for name in names:
            self.take(flight, name)
        taken = self._books[flight.key].taken if names else {}
        return tuple(taken[name][1] for name in names)

    def is_behind(self, flight: Flight) -> bool:
        """Whether anybody has not let go, as far as was weighed."""
        book = self._books.get(flight.key, Book())
        return any(
            name not in book.taken or book.taken[name][1].verdict not in _LETTING_GO for name in self.names_for(flight)
        )

    @property
    def wants_epoch(self) -> bool:
        """Whether some standing can only be told by another epoch (``Fencing.DOUBLE``)."""
        standings = (one for book in self._books.values() for one in book.standings.values())
        return any(one.wants_epoch(self.latest) for one in standings)

    def status(self, services: Iterable[str] = ()) -> list[dict[str, object]]:
        """Every replica as ``/v1/status`` lists it: its name, kind, policy, why it does not answer ("" or a sentence),
        and which of ``services`` (namespace/name) have pods that are registered with it and sent to later."""
        asked_about = tuple(services)
        return [
            {
                "name": name,
                "kind": asked.configured.kind,
                "policy": "required" if asked.configured.terms.is_required else "advisory",
                "address": asked.replica.address,
                "problem": reading.failure if (reading := self.readings.get(name)) is not None else "",
                "registers": [one for one in asked_about if self._registers(asked, one)],
            }
            for name, asked in self._asked.items()
        ]

    def _registers(self, asked: Asked, service: str) -> bool:
        observer = asked.configured.observer
        if asked.replica.name == NOBODY or not getattr(observer, "registers_late", False):
            return False
        return isinstance(observer, Selective) and observer.concerns(asked.replica, self._objects_of((service,)))


def services_of(flight: Flight) -> tuple[str, ...]:
    """Those whose routers are concerned (namespace/name)."""
    return (flight.addition.service,) if flight.addition is not None else flight.services or flight.seen


def _additions(asked: Asked) -> str:
    return str(getattr(asked.configured.observer, "additions", ""))


def _key_of(service: str) -> tuple[str, str]:
    namespace, _, name = service.partition("/")
    return namespace, name


def _service_of(obj: JsonObject) -> str:
    metadata = obj["metadata"]
    return f"{metadata.get('namespace')}/{(metadata.get('labels') or {}).get(SERVICE_LABEL)}"


def _decoded(obj: JsonObject) -> EndpointSlice | None:
    try:
        return endpointslice.decode(obj)
    except Malformed:
        return None  # the source blocks every drain on it, by name
