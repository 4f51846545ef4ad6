"""The coordinator: one per cluster, lists the source, writes the fence, asks every node once per batch.

Keepers (agents with a held gate, command lines) long-poll ``POST /v1/acknowledge``; ``GET /v1/status`` shows the
drains in flight and who keeps each waiting. It judges no drain: keepers run the table, it observes for them.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tidegate.agent.callers import Callers
from tidegate.agent.canvass import Canvass
from tidegate.agent.dnsfence import DnsFence
from tidegate.agent.excuses import Excuses
from tidegate.agent.externals import Externals, services_of
from tidegate.agent.fencing import Fencing
from tidegate.agent.lease import Lease
from tidegate.agent.livefence import LiveFence
from tidegate.agent.localhealth import SETTLE_SECONDS, LocalHealth
from tidegate.agent.observer_objects import ObserverObjects, Shift
from tidegate.agent.ports import Doors, Ports, credentials_in
from tidegate.agent.proxies import FRESH_SECONDS, Proxies
from tidegate.agent.stranded import LOOK_SECONDS, Stranded
from tidegate.agent.suspicion import Suspicion
from tidegate.agent.tally import Tally
from tidegate.drain.acknowledgement import LETTING_GO, Verdict
from tidegate.drain.excuse import StandingPolicy
from tidegate.drain.pacing import Pacing
from tidegate.engine.flights import Flight, Flights, Key, TooMany
from tidegate.engine.flights import key_of as flight_key
from tidegate.engine.sourcing import Sourcing
from tidegate.kube.api import NODES, Api, JsonObject
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request, Response, whole
from tidegate.kube.reflector import Reflector, key_of
from tidegate.model import node as nodes
from tidegate.model.decode import Malformed
from tidegate.model.names import COORDINATOR_PORT, SYSTEM_NAMESPACE
from tidegate.model.node import Node
from tidegate.observers import config
from tidegate.observers.asking import AGENT_NAME, COORDINATOR_ASK_PORT
from tidegate.observers.config import Configured
from tidegate.observers.coordinator import (
    ACKNOWLEDGE_PATH,
    SERVICES_MAX,
    STATUS_PATH,
    WAIT_SECONDS_MAX,
    View,
    decode_ask,
    spell,
)
from tidegate.observers.discovery import DNS
from tidegate.observers.external import Bound
from tidegate.vtime import Nursery

if TYPE_CHECKING:
    from tidegate.kube.tls import Credentials
    from tidegate.observers.coordinator import Ask
    from tidegate.vtime import Program

GATHER_SECONDS = 0.002
"""Pods of one rollout step are deleted within a few ms of each other: one epoch serves them."""
GATHER_ANSWERS_SECONDS = 0.02
RETRY_SECONDS = 0.2
TIDY_SECONDS = 5.0
GUARD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """``identity`` is the pod's name, ``address`` where agents reach it, ``install`` the fence's id.

    ``standing``: whether a node that is NotReady and silent holds every drain, or is excepted by name.
    ``load_balancer_settle_seconds``: how long a node's health check port must have answered 503 (``localhealth``).
    """

    identity: str
    host: str
    port: int = COORDINATOR_PORT
    install: str = "main"
    observers: tuple[Configured, ...] = ()
    standing: StandingPolicy = "hold"
    load_balancer_settle_seconds: float = SETTLE_SECONDS
    ask: str = ""
    """How command lines ask it (``asking.ASK_ANNOTATION``)."""
    credentials: Credentials | None = None


class Coordinator:
    """Observes for all drains in flight while it holds the Lease."""

    def __init__(self, api: Api, settings: CoordinatorSettings, log: Callable[[str], None]) -> None:
        self.settings = settings
        self._api = api
        self._log = log
        self.flights = Flights()
        self.lease = Lease(api, settings.identity, f"{settings.host}:{settings.port}", ask=settings.ask)
        self._fencing = Fencing(api, settings.install)
        self._pacing = Pacing()
        self._proxies = Proxies(self._node_spoke, lambda: self._fencing.latest)
        self._nodes = Reflector(api, NODES)
        self._are_nodes_known = False
        self._observers: dict[str, str] = {}
        self._tallies: dict[Key, Tally] = {}
        self._canvass = Canvass(self._node_spoke, log, settings.credentials)
        self._stranded = Stranded(self._canvass.move, log)
        self._excuses = Excuses(settings.standing, log)
        self._local = LocalHealth(
            settings.load_balancer_settle_seconds, lambda: self._observers, lambda: self.flights.tell()
        )
        self._sourcing = Sourcing(api, self.flights, log)
        services = self._sourcing.services
        self._externals = Externals(settings.observers, settings.install, self._external_spoke, services.objects)
        self._dns_fence = DnsFence(api, settings.install, log)
        self._live_fence = LiveFence(api, settings.install, settings.host, self._externals.floor, log)
        self._stood_for = self._externals.meet(self._live_fence)
        self._suspicion = Suspicion(api, services, self.flights.tell, self._nodes)
        self._instance = ""
        self._is_fence_due = True
        self._this_pass: asyncio.Task[bool] | None = None
        self._next_pass: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Observe for ever."""
        loop = asyncio.get_running_loop()
        self._instance = f"{self.settings.identity}/{loop.time():.6f}"
        self._externals.enumerate()
        self._sourcing.slices.subscribe(self._externals.saw_slice)
        self._nodes.subscribe(lambda old, new: self._nodes_changed())
        self.lease.changed = self._lease_changed
        async with Nursery() as nursery:
            nursery.start(self.lease.run(), name="lease")
            nursery.start(self._nodes.run(), name="nodes")
            nursery.start(self._know_nodes(), name="nodes synced")
            nursery.start(self._sourcing.run(), name="source")
            nursery.start(self._write_epochs(), name="fence")
            nursery.start(self._guard_fence(), name="guard of the fence")
            nursery.start(self._follow_flights(), name="flights")
            nursery.start(self._know_proxies(), name="proxies")
            nursery.start(self._suspect(), name="suspicion")
            nursery.start(self._move_udp(), name="stranded flows")
            if any(one.kind == "dns" for one in self.settings.observers):
                nursery.start(self._dns_fence.run(), name="headless fence")
            if any(one.kind == "behavioural" for one in self.settings.observers):
                nursery.start(self._live_fence.run(), name="live fence")

    # --- what is observed ---

    def _lease_changed(self, held: bool) -> None:
        self._log("holding the lease" if held else "standing by")
        self.flights.tell()

    def _nodes_changed(self) -> None:
        if self._are_nodes_known:
            self._observers = self._addresses()
            self._canvass.set_nodes(self._observers)
            self.flights.tell()

    def _node_spoke(self, node: str) -> None:
        """Wake those drains, and only those, for which a node now says something else."""
        reading = self._canvass.readings.get(node)
        for flight in self.flights:
            if self._tally(flight).take(flight, node, reading):
                flight.tell()
        self._want_epoch(any(tally.wants_epoch for tally in self._tallies.values()))

    def _external_spoke(self, name: str) -> None:
        """The same for an observer that is no node; no name: another set of them."""
        if not name:
            self.flights.tell()
        for flight in self.flights:
            if self._externals.take(flight, name):
                flight.tell()
        self._want_epoch(self._externals.wants_epoch)

    def _want_epoch(self, is_wanted: bool) -> None:
        """A second epoch, for whom one does not prove enough."""
        if is_wanted and not self._is_fence_due:
            self._is_fence_due = True
            self.flights.tell()

    def _tally(self, flight: Flight) -> Tally:
        return self._tallies.setdefault(flight.key, Tally(proxies=self._proxies))

    async def _know_nodes(self) -> None:
        await self._nodes.synced()
        self._are_nodes_known = True
        self._nodes_changed()

    def _addresses(self) -> dict[str, str]:
        """Every Node, NotReady ones too: a dead kubelet's kernel goes on forwarding. Who is vouched for is asked as
        well: a word stands in for silence only. Not those that have no agent and for which an observer answers."""
        found: dict[str, str] = {}
        decoded: list[Node] = []
        for (_, name), obj in sorted(self._nodes.objects.items()):
            try:
                node = nodes.decode(obj)
            except Malformed:
                found[name] = ""
                continue
            decoded.append(node)
            found[name] = node.addresses[0] if node.addresses else ""
        self._excuses.set_nodes(decoded)
        return {name: address for name, address in found.items() if name not in self._stood_for}

    async def _follow_flights(self) -> None:
        """Keep the question to the nodes what the drains in flight need."""
        loop = asyncio.get_running_loop()
        while True:
            changed = self.flights.changed
            self.flights.forget_silent(loop.time())
            self._tallies = {key: tally for key, tally in self._tallies.items() if key in self.flights.by_key}
            # Asked from the first moment, not from the epoch on: by then every node's long poll is open.
            self._canvass.set_endpoints(self.flights.endpoints())
            about = {
                name for flight in self.flights for name in (*(flight.services or flight.seen), *services_of(flight))
            }
            self._externals.set_endpoints(self.flights.endpoints(), sorted(about), self.flights.added())
            self._externals.keep(self.flights.by_key)
            self._suspicion.keep(tuple(self.flights.by_key))
            self._excuses.keep(tuple(self.flights.by_key))
            self._stranded.keep(self.flights.by_key)
            self._local.keep(self.flights)
            try:
                async with asyncio.timeout(TIDY_SECONDS):
                    await changed.wait()
                    await asyncio.sleep(GATHER_ANSWERS_SECONDS)  # one wider question for all that begin together
            except TimeoutError:
                continue

    async def _know_proxies(self) -> None:
        """Ask the nodes' kube-proxies what they are, for as long as pods are being drained."""
        while True:
            changed = self.flights.changed
            if len(self.flights) and self._are_nodes_known:
                await self._proxies.look(self._observers)
            try:
                async with asyncio.timeout(FRESH_SECONDS):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _move_udp(self) -> None:
        """For as long as pods are being drained, see whether UDP flows keep them."""
        while True:
            changed = self.flights.changed
            if not len(self.flights):
                await changed.wait()
                continue
            if self.lease.is_held:
                await self._stranded.look(self.flights, self._canvass.readings)
            await asyncio.sleep(LOOK_SECONDS)

    async def _suspect(self) -> None:
        """Look who else may route to pods, for as long as some are being drained."""
        while True:
            changed = self.flights.changed
            if len(self.flights):
                await self._suspicion.list_if_due()
                self._externals.saw_objects(self._suspicion.listed)
            try:
                async with asyncio.timeout(TIDY_SECONDS):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _write_epochs(self) -> None:
        """One write for all that wait, at once unless one was written in the last 100 ms or it costs too much.

        The first is written unasked: it installs the fence, and floors it by the clock, before anybody waits for it.
        """
        loop = asyncio.get_running_loop()
        while True:
            changed = self.flights.changed
            if not self.lease.is_held or not (self._is_fence_due or any(flight.wants_epoch for flight in self.flights)):
                await changed.wait()
                continue
            now = loop.time()
            services = len(self._sourcing.services.objects)
            left = self._pacing.due_at(now + GATHER_SECONDS, services) - now
            await asyncio.sleep(min(left, RETRY_SECONDS))
            if left > RETRY_SECONDS:  # another slice may change meanwhile: then it costs nothing
                continue
            try:
                self._is_fence_due = False
                self._pacing.sent(loop.time(), services)
                write = await self._fencing.write()
                self._externals.latest = write.epoch
                self._dns_fence.show(write.epoch)
                self._live_fence.show(write.epoch)
            except KubeError as error:
                self._is_fence_due = True
                self._log(f"fence not written: {error}")
                if not (isinstance(error, ApiError) and error.is_conflict):
                    await asyncio.sleep(RETRY_SECONDS)
                continue
            covered = self.flights.covered_by(write)
            self._log(f"epoch {write.epoch} for {', '.join(flight.name for flight in covered) or 'nobody'}")

    async def _guard_fence(self) -> None:
        """Level-triggered: a fence that somebody deleted or edited keeps every drain of the cluster waiting, so it is
        written again within a second or two, whether a drain wants an epoch or not."""
        service_key = (SYSTEM_NAMESPACE, self._fencing.service_name)
        services, slices = self._sourcing.services, self._sourcing.slices

        def slice_keys() -> list[tuple[str, str]]:
            return [(SYSTEM_NAMESPACE, name) for name in self._fencing.slice_names]

        def seen(old: JsonObject | None, new: JsonObject | None) -> None:
            either = new or old
            if either is not None and not either["metadata"]["name"].startswith("tidegate-"):
                self._pacing.stirred(asyncio.get_running_loop().time())
            if new is not None and key_of(new) in slice_keys():
                self._fencing.saw(new)

        slices.subscribe(seen)
        while True:
            await asyncio.sleep(GUARD_SECONDS)
            now, sent_at = asyncio.get_running_loop().time(), self._fencing.last_sent_at
            is_settled = sent_at is not None and now - sent_at >= GUARD_SECONDS  # else the watches may not have it yet
            service, shown = services.objects.get(service_key), map(slices.objects.get, slice_keys())
            if self.lease.is_held and is_settled and self._fencing.is_broken(service, shown):
                self._log("the fence was changed by somebody else: it is written again")
                self._is_fence_due = True
                self.flights.tell()

    # --- what is told ---

    async def acknowledge(self, ask: Ask) -> View:
        """The answer to a keeper, once there is another than ``since`` or the wait is over."""
        loop = asyncio.get_running_loop()
        if ask.done:
            self.flights.forget(flight_key(ask))
            return View(instance=self._instance, now=loop.time(), spell="", version="done")
        flight = self.flights.touch(ask, loop.time())
        is_fresh = await self._look_again() if ask.fresh else False
        until = loop.time() + min(ask.wait_seconds, WAIT_SECONDS_MAX)
        flight.waiting += 1
        try:
            while True:
                changed = flight.changed
                view = self._view(flight, is_fresh)
                left = until - loop.time()
                if view.version != ask.since or left <= 0:
                    return view
                try:
                    async with asyncio.timeout(left):
                        await changed.wait()
                        await self._gather(flight)
                except TimeoutError:
                    return self._view(flight, is_fresh)
        finally:
            flight.waiting -= 1
            flight.touched_at = loop.time()

    async def _gather(self, flight: Flight) -> None:
        """While nodes are still missing, tell of several answers at once; the last one is told at once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_ANSWERS_SECONDS
        while flight.write is not None and self._is_behind(flight):
            changed, left = flight.changed, until - loop.time()
            if left < GATHER_SECONDS:
                return
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                return

    def _is_behind(self, flight: Flight) -> bool:
        return self._tally(flight).is_behind(self._observers) or self._externals.is_behind(flight)

    def _view(self, flight: Flight, is_fresh: bool) -> View:
        nodes = tuple(sorted(self._observers)) if self._are_nodes_known else None
        view = View(
            instance=self._instance,
            now=asyncio.get_running_loop().time(),
            spell=f"{self._instance}/{flight.round}/{flight.spell}",
            clean_at=flight.clean_at,
            reasons=flight.reasons,
            epoch=str(flight.write.epoch) if flight.write else "",
            sent_at=flight.write.sent_at if flight.write else None,
            observers=None if nodes is None else (*nodes, *self._externals.names_for(flight), *map(str, flight.lasts)),
            suspected=self._suspects(flight),
            serving=spell(flight.serving),
            exception=flight.exception,
            nodes=(
                *self._excuses.apply(
                    flight,
                    self._stranded.apply(
                        flight, self._tally(flight).views(flight, nodes or (), self._canvass.readings)
                    ),
                ),
                *self._externals.views(flight),
                *(self._local.views(flight) if flight.write is not None else ()),
            ),
            is_fresh=is_fresh,
        )
        return msgspec.structs.replace(view, version=_version(view))

    def _suspects(self, flight: Flight) -> tuple[str, ...]:
        """Who may route to its pod and is not asked; servers of DNS are, where an observer covers them."""
        covers = self._externals.covers_for(flight)
        if flight.addition is not None:
            return self._suspicion.sentences(flight, covers)
        by_dns = () if DNS in covers else flight.suspected
        return (*by_dns, *self._suspicion.sentences(flight, covers))

    async def _look_again(self) -> bool:
        """A new list of slices and nodes, then a new dump of every node, all begun after this call.

        Callers that come while one is under way share the next: it is the one that began after they came.
        """
        if self._next_pass is None:
            self._next_pass = asyncio.get_running_loop().create_task(self._pass_after(self._this_pass))
        return await asyncio.shield(self._next_pass)

    async def _pass_after(self, running: asyncio.Task[bool] | None) -> bool:
        if running is not None:
            await asyncio.wait((running,))
        self._this_pass, self._next_pass = self._next_pass, None
        # At once: no answer leans on another, each says what was true at some instant after this call. One after the
        # other they took most of what a drain took above its floor.
        listed, is_listed, are_asked, is_searched, *_ = await asyncio.gather(
            self._listed_nodes(),
            self._sourcing.list_now(),
            self._ask_externals(),
            self._suspicion.look_again(),
            self._canvass.ask_all_now(),
            self._local.ask_all_now(),
        )
        # A node that the watch has not shown yet was not asked: the next look will.
        is_whole = listed is not None and all(("", name) in self._nodes.objects for name in listed)
        return is_whole and is_listed and are_asked and is_searched

    async def _listed_nodes(self) -> frozenset[str] | None:
        try:
            return frozenset(key_of(obj)[1] for obj in (await self._api.list(NODES)).items)
        except KubeError:
            return None

    async def _ask_externals(self) -> bool:
        """Those there are now: a list first, then each of them."""
        if self._externals.reads_objects:
            await self._suspicion.list_now()
            self._externals.saw_objects(self._suspicion.listed)
        if not await self._externals.list_now(self._api):
            return False
        await self._externals.ask_all_now()
        return True

    def status(self, routers: Iterable[dict[str, object]] = (), services: Iterable[str] = ()) -> bytes:
        """``{"instance", "holding", "drains", "observers", "routers", "nodes"}``: what keeps each drain waiting, by
        name; who is asked beside the nodes; ``routers`` of ``services`` (``Suspicion.of_services``); nodes that stand,
        or are vouched for (``Excuses.status``)."""
        drains = []
        for flight in self.flights:
            view = self._view(flight, False)
            letting_go = {verdict.value for verdict in LETTING_GO}
            found = self._suspicion.of(flight, self._externals.covers_for(flight))
            drains.append(
                {
                    "uid": flight.uid, "namespace": flight.namespace, "pod": flight.name, "mode": flight.mode.value,
                    "epoch": view.epoch, "source": "clean" if flight.clean_at is not None else "dirty",
                    "reasons": list(flight.reasons),
                    "stragglers": [
                        {"node": one.node, "verdict": one.verdict, "detail": one.detail}
                        for one in view.nodes if one.verdict not in letting_go
                    ],
                    "excepted": [
                        {"node": one.node, "detail": one.detail}
                        for one in view.nodes if one.verdict == Verdict.EXCEPTED.value
                    ],
                    "known": [one.sentence for one in found.known],
                    "suspected": list(view.suspected),
                    "seconds": round(asyncio.get_running_loop().time() - flight.began_at, 3),
                }
            )  # fmt: skip
        answer = {
            "instance": self._instance, "holding": self.lease.is_held, "drains": drains,
            "observers": self._externals.status(services), "routers": list(routers),
            "nodes": self._excuses.status(self._canvass.readings),
        }  # fmt: skip
        return msgspec.json.encode(answer)

    async def exchange(self, request: Request) -> Response:
        """The HTTP API."""
        if request.path == "/healthz":
            return whole(200, b"ok", "text/plain")
        if request.path == STATUS_PATH and request.method == "GET":
            services = tuple(request.params("service"))[:SERVICES_MAX]
            routers = await self._suspicion.of_services(services, self._externals.covers) if services else []
            return whole(200, self.status(routers, services))
        if request.path != ACKNOWLEDGE_PATH or request.method != "POST":
            return _refusal(404, f"{request.method} {request.path} is not asked here")
        if not self.lease.is_held:
            return _refusal(503, "standing by: another coordinator holds the lease")
        try:
            return whole(200, msgspec.json.encode(await self.acknowledge(decode_ask(request.body))))
        except TooMany as error:
            return _refusal(429, str(error))
        except ValueError as error:
            return _refusal(400, str(error))


def _refusal(status: int, why: str) -> Response:
    return whole(status, msgspec.json.encode({"error": why}))


def _version(view: View) -> str:
    """Names what the view says; instants of dumps and of the answer are left out, or every one would be news."""
    quiet = tuple(msgspec.structs.replace(one, at=0.0, evidence="") for one in view.nodes)
    told = msgspec.structs.replace(view, now=0.0, is_fresh=False, nodes=quiet)
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


async def main(program: Program) -> int:
    """Coordinate until SIGTERM. Environment: TIDEGATE_SERVER, TIDEGATE_POD, TIDEGATE_NODE_ADDRESS, TIDEGATE_OBSERVERS
    (a file, ``observers.config``; without it nodes are the only observers), TIDEGATE_STANDING (hold, or except),
    TIDEGATE_LOAD_BALANCER_SETTLE (seconds),
    TIDEGATE_TLS_DIR (our certificate; without it ports are plain HTTP), TIDEGATE_TLS_ISSUE (make it, and agents')."""
    file = program.env.get("TIDEGATE_OBSERVERS", "")
    try:
        observers = config.load(Path(file)) if file else ()
    except config.ConfigError as error:
        program.log(str(error))
        return 2
    standing = program.env.get("TIDEGATE_STANDING", "hold")
    if standing not in ("hold", "except"):
        program.log(f"TIDEGATE_STANDING is hold or except, not {standing!r}")
        return 2
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    folder = program.env.get("TIDEGATE_TLS_DIR", "")
    settings = CoordinatorSettings(
        identity=program.env.get("TIDEGATE_POD", "tidegate-coordinator"),
        host=program.env.get("TIDEGATE_NODE_ADDRESS", "127.0.0.1"),
        port=int(program.env.get("TIDEGATE_COORDINATOR_PORT", COORDINATOR_PORT)),
        install=program.env.get("TIDEGATE_INSTALL", "main"),
        observers=observers,
        standing="except" if standing == "except" else "hold",
        load_balancer_settle_seconds=float(program.env.get("TIDEGATE_LOAD_BALANCER_SETTLE", SETTLE_SECONDS)),
        ask=f"{'https' if folder else 'http'}:{COORDINATOR_ASK_PORT}",
        credentials=credentials_in(folder),
    )
    async with open_api(program.env.get("TIDEGATE_SERVER", "")) as api:
        objects = ObserverObjects(api, tuple(one.name for one in observers), program.log)

        def begin(more: tuple[Configured, ...]) -> Coordinator:
            for one in (*observers, *more):
                if isinstance(one.observer, Bound):
                    one.observer.bind(api)
            return Coordinator(api, replace(settings, observers=(*observers, *more)), program.log)

        shift = Shift(objects, begin, program.log)
        doors = Doors(settings.host, settings.port, COORDINATOR_ASK_PORT, (AGENT_NAME,))
        ports = Ports(doors, shift.exchange, Callers(api), program.log, settings.credentials)
        async with Nursery() as nursery:
            if program.env.get("TIDEGATE_TLS_ISSUE"):
                from tidegate.agent.issuer import Issuer  # late: importing cryptography costs 0.07 s

                nursery.start(Issuer(api, folder, settings.install, program.log).keep(), name="certificates")
            nursery.start(objects.run(), name="observer objects")
            await ports.open()
            nursery.start(ports.keep(), name="ports")
            nursery.start(shift.run(), name="coordinator")
            await stop.wait()
            nursery.cancel()
        await ports.close()
    return 0
