"""One node's kube-proxy.

One informer per resource, as the real one: events of one resource come in resourceVersion order and a sync takes
everything pending at once, in one transaction. That is the order the fence relies on, kept here on purpose; proxies
that do not give it are ``shapes``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tidegate import vtime
from tidegate.kube.api import ENDPOINTSLICES, NODES, SERVICES, Api, Selection
from tidegate.kube.reflector import Key, Reflector, Subscriber, key_of
from tidegate.lab.config import LabConfig
from tidegate.lab.faults import Faults
from tidegate.lab.journal import Journal
from tidegate.lab.kernel.client import KernelError, UnboundError
from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.lab.network.network import NodeNetwork
from tidegate.lab.proxy import rules
from tidegate.lab.proxy.health import HealthPorts, Name, Proxying
from tidegate.lab.proxy.healthz import Healthz, Told
from tidegate.lab.proxy.runner import BoundedFrequencyRunner, Periods
from tidegate.lab.proxy.shapes import SHAPES
from tidegate.lab.proxy.stream import stream
from tidegate.lab.proxy.unbound import Unbound

JsonObject = dict[str, Any]

_PIECE_SECONDS = (0.001, 0.010)
"""Of one Service, where a proxy applies one after another."""

_SYNC_SECONDS_PER_SERVICE = 0.0002
"""1,000 more Services of 5 endpoints made it 164-213 ms."""

_UNHEALTHY_SECONDS = 60.0
"""A sync that has been due this long makes a proxy unhealthy: twice syncPeriod (proxy_health.go)."""


def _no_log(line: str) -> None:
    del line


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one node syncs: drawn once per node, jittered per sync.

    Slice change -> kernel on a real node with one Service: p50 8.5-12 ms (nftables), 27 ms (iptables), max 29-32.
    """

    seconds: float
    least: float
    most: float

    @classmethod
    def draw(cls, rng: random.Random, bounds: tuple[float, float]) -> Pace:
        least, most = bounds
        return cls(rng.uniform(least, most * 0.7), least, most)

    def sync_seconds(self, services: int, rng: random.Random) -> float:
        """How long one sync takes; the kernel changes at its end."""
        jittered = min(self.seconds * rng.uniform(0.9, 1.5), self.most)
        return max(jittered, self.least) + services * _SYNC_SECONDS_PER_SERVICE


@dataclass(slots=True)
class Proxy:
    """The proxy of node ``node_name``; ``run`` keeps it alive through the faults of its node.

    ``rng`` is the node's own: it decides how long syncs take. ``log`` takes one line, ``unbound`` the
    addresses that nobody could listen on, ``journal`` the end of every sync.
    """

    api: Api
    node_name: str
    config: LabConfig
    network: NodeNetwork
    rng: random.Random
    faults: Faults
    log: Callable[[str], None] = _no_log
    unbound: Unbound | None = None
    journal: Journal | None = None
    applied: dict[Name, tuple[ServiceEntry, ...]] = field(default_factory=dict)
    """What the kernel has, where Services are applied one by one: a killed proxy leaves it there."""

    @property
    def address(self) -> str:
        """The node's."""
        return self.config.addressing.node(self.config.node_names.index(self.node_name) + 1)

    async def run(self) -> None:
        """Run one incarnation after another, for ever. A killed one leaves the kernel as it is."""
        pace = Pace.draw(self.rng, SHAPES[self.config.proxy].sync_seconds)
        while True:
            await self.faults.revived(self.node_name)
            incarnation = self.faults.of(self.node_name).incarnation
            async with vtime.Nursery() as life:
                life.start(_Incarnation(self, pace).run(), name=f"proxy {self.node_name}")
                await self.faults.killed(self.node_name, incarnation)
                self.log(f"proxy {self.node_name}: killed")
                life.cancel()


class _Incarnation:
    """One proxy process: its copies of the API's objects end with it."""

    def __init__(self, proxy: Proxy, pace: Pace) -> None:
        self._proxy = proxy
        self._pace = pace
        self._place = rules.Place(proxy.node_name)
        self._services: dict[Key, JsonObject] = {}
        self._slices: dict[Key, JsonObject] = {}
        self._lists_missing = 3
        self._shape = SHAPES[proxy.config.proxy]
        self._stream, self._handling = stream(proxy.node_name, proxy.faults, self._shape, proxy.rng)
        self._due_since: float | None = None
        self._synced_at = 0.0
        tells = self._shape.tells_families
        self._healthz = Healthz(proxy.node_name, proxy.faults, self._tell_health, tells_families=tells)
        own = Proxying(proxy.node_name, proxy.address, proxy.faults, self._is_healthy, proxy.network.serve)
        self._health = HealthPorts(own, self._complain)
        self._runner = BoundedFrequencyRunner(self._sync, Periods(min=proxy.config.min_sync_seconds))

    async def run(self) -> None:
        self._proxy.network.begin()
        watched = Selection(labels=rules.WATCHED)
        services = Reflector(self._proxy.api, SERVICES, watched)
        slices = Reflector(self._proxy.api, ENDPOINTSLICES, watched)
        node = Reflector(self._proxy.api, NODES, Selection(fields=f"metadata.name={self._proxy.node_name}"))
        services.subscribe(self._delaying(self._services))
        slices.subscribe(self._delaying(self._slices))
        node.subscribe(lambda old, new: self._stream.push(lambda: self._moved(new), "node"))
        try:
            async with vtime.Nursery() as tasks:
                await self._listen()
                for handling in self._handling:
                    tasks.start(handling())
                tasks.start(self._runner.run())
                for reflector in (services, slices, node):
                    tasks.start(reflector.run())
                    tasks.start(self._announce(reflector))
        finally:
            await self._health.close()
            await self._healthz.close()

    async def _listen(self) -> None:
        """A port that is taken costs its health checks, not the node its routes."""
        try:
            await self._healthz.listen(self._proxy.address, self._proxy.network.serve)
        except OSError as error:
            self._proxy.log(f"proxy {self._proxy.node_name}: healthz: {error.strerror or error}")

    def _tell_health(self) -> Told:
        return Told(self._is_healthy(), self._synced_at)

    def _delaying(self, copies: dict[Key, JsonObject]) -> Subscriber:
        def arrived(old: JsonObject | None, new: JsonObject | None) -> None:
            either = new or old
            about = None if either is None else (id(copies), key_of(either))
            self._stream.push(lambda: self._delivered(copies, old, new), about)

        return arrived

    def _delivered(self, copies: dict[Key, JsonObject], old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None:
            copies[key_of(new)] = new
        elif old is not None:
            copies.pop(key_of(old), None)
        if rules.proxied_part(old) != rules.proxied_part(new):
            self._request_sync()

    def _moved(self, node: JsonObject | None) -> None:
        """The own node's labels say where it stands; its deletion changes nothing (NodeTopologyConfig)."""
        if node is None:
            return
        labels = node["metadata"].get("labels") or {}
        place = rules.Place(self._proxy.node_name, labels.get(rules.ZONE, ""))
        if place != self._place:
            self._place = place
            self._request_sync()

    async def _announce(self, reflector: Reflector) -> None:
        await reflector.synced()
        self._stream.push(self._listed)

    def _listed(self) -> None:
        self._lists_missing -= 1
        self._request_sync()

    def _request_sync(self) -> None:
        """Nothing is synced before the first lists are in: half a picture would cut what is there."""
        if not self._lists_missing:
            if self._due_since is None:
                self._due_since = asyncio.get_running_loop().time()
            self._runner.request()

    def _is_healthy(self) -> bool:
        since = self._due_since
        return since is None or asyncio.get_running_loop().time() - since < _UNHEALTHY_SECONDS

    def _complain(self, service: Name, message: str) -> None:
        found = next((one for key, one in self._services.items() if key == service), None)
        if self._proxy.unbound is not None and found is not None:
            self._proxy.unbound.no_healthcheck(found, message)

    async def _sync(self) -> bool:
        """Take everything pending, work on it, commit it. Returns whether that succeeded.

        A stopped process (SIGSTOP) commits after it continues what it took before.
        """
        proxy = self._proxy
        await proxy.faults.thawed(proxy.node_name)
        due_since, self._due_since = self._due_since, None
        listed = rules.routed if proxy.network.is_real else rules.entries
        entries = listed(self._services.values(), self._slices.values(), self._place)
        checks = rules.health_checks(self._services.values(), self._slices.values(), self._place)
        if not proxy.network.is_real:
            await asyncio.sleep(self._pace.sync_seconds(len(self._services), proxy.rng))
        await proxy.faults.thawed(proxy.node_name)
        try:
            if self._shape.applies_in_pieces:
                await self._apply_in_pieces(_by_service(entries))
            else:
                await proxy.network.commit(proxy.node_name, entries)
        except UnboundError as error:
            if proxy.unbound is not None:
                proxy.unbound.tell(self._services.values(), error.unbound)
        except (KernelError, OSError) as error:
            proxy.log(f"proxy {proxy.node_name}: sync failed: {error}")
            self._due_since = due_since if due_since is not None else self._due_since
            return False
        await self._health.sync(checks)
        self._synced_at = vtime.now().timestamp()
        if proxy.journal is not None:
            proxy.journal.record("proxy-synced", node=proxy.node_name)
        return True

    async def _apply_in_pieces(self, wanted: dict[Name, tuple[ServiceEntry, ...]]) -> None:
        """One Service after another, in no order; where caches are read meanwhile, each as it is when its turn comes,
        and applied when all were read."""
        proxy, rng = self._proxy, self._proxy.rng
        names = sorted({*wanted, *proxy.applied})
        if self._shape.reads_while_it_changes:
            rng.shuffle(names)
            for name in names:
                await asyncio.sleep(rng.uniform(*_PIECE_SECONDS))
                now = _by_service(rules.entries(self._services.values(), self._slices.values(), self._place))
                wanted[name] = now.get(name, ())
        rng.shuffle(names)
        for name in names:
            entries = wanted.get(name, ())
            if proxy.applied.get(name, ()) == entries:
                continue
            await asyncio.sleep(rng.uniform(*_PIECE_SECONDS))
            await proxy.faults.thawed(proxy.node_name)
            proxy.applied[name] = entries
            whole = [one for found in sorted(proxy.applied) for one in proxy.applied[found]]
            await proxy.network.commit(proxy.node_name, whole)


def _by_service(entries: Iterable[ServiceEntry]) -> dict[Name, tuple[ServiceEntry, ...]]:
    found: dict[Name, tuple[ServiceEntry, ...]] = {}
    for entry in entries:
        name = (entry.namespace, entry.name)
        found[name] = (*found.get(name, ()), entry)
    return found
