"""One node's kube-proxy.

One informer per resource, as the real one: events of one resource come in resourceVersion order and a sync takes
everything pending at once, in one transaction. That is the order the fence relies on, kept here on purpose.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tidegate import vtime
from tidegate.kube.api import ENDPOINTSLICES, NODES, SERVICES, Api, Selection
from tidegate.kube.reflector import Key, Reflector, Subscriber, key_of
from tidegate.lab.config import LabConfig
from tidegate.lab.faults import Faults
from tidegate.lab.kernel.client import KernelClient, KernelError, UnboundError
from tidegate.lab.proxy import rules
from tidegate.lab.proxy.health import HealthPorts, Name, Proxying
from tidegate.lab.proxy.runner import BoundedFrequencyRunner, Periods
from tidegate.lab.proxy.stream import DelayedStream
from tidegate.lab.proxy.unbound import Unbound

JsonObject = dict[str, Any]

_SYNC_SECONDS_MIN = 0.008
_SYNC_SECONDS_MAX = 0.030
"""Slice change -> kernel on a real node with one Service: p50 8.5-12 ms (nftables), 27 ms (iptables), max 29-32."""

_SYNC_SECONDS_PER_SERVICE = 0.0002
"""1,000 more Services of 5 endpoints made it 164-213 ms."""

_UNHEALTHY_SECONDS = 60.0
"""A sync that has been due this long makes a proxy unhealthy: twice syncPeriod (proxy_health.go)."""


def _no_log(line: str) -> None:
    del line


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one node syncs: drawn once per node, jittered per sync."""

    seconds: float

    @classmethod
    def draw(cls, rng: random.Random) -> Pace:
        return cls(rng.uniform(_SYNC_SECONDS_MIN, _SYNC_SECONDS_MAX * 0.7))

    def sync_seconds(self, services: int, rng: random.Random) -> float:
        """How long one sync takes; the kernel changes at its end."""
        jittered = min(self.seconds * rng.uniform(0.9, 1.5), _SYNC_SECONDS_MAX)
        return max(jittered, _SYNC_SECONDS_MIN) + services * _SYNC_SECONDS_PER_SERVICE


@dataclass(slots=True)
class Proxy:
    """The proxy of node ``node_name``; ``run`` keeps it alive through the faults of its node.

    ``rng`` is the node's own: it decides how long syncs take. ``log`` takes one line, ``unbound`` the
    addresses that nobody could listen on.
    """

    api: Api
    node_name: str
    config: LabConfig
    kernel: KernelClient
    rng: random.Random
    faults: Faults
    log: Callable[[str], None] = _no_log
    unbound: Unbound | None = None

    @property
    def address(self) -> str:
        """The node's."""
        return self.config.addressing.node(self.config.node_names.index(self.node_name) + 1)

    async def run(self) -> None:
        """Run one incarnation after another, for ever. A killed one leaves the kernel as it is."""
        pace = Pace.draw(self.rng)
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
        self._stream = DelayedStream(proxy.node_name, proxy.faults)
        self._due_since: float | None = None
        own = Proxying(proxy.node_name, proxy.address, proxy.faults, self._is_healthy)
        self._health = HealthPorts(own, self._complain)
        self._runner = BoundedFrequencyRunner(self._sync, Periods(min=proxy.config.min_sync_seconds))

    async def run(self) -> None:
        watched = Selection(labels=rules.WATCHED)
        services = Reflector(self._proxy.api, SERVICES, watched)
        slices = Reflector(self._proxy.api, ENDPOINTSLICES, watched)
        node = Reflector(self._proxy.api, NODES, Selection(fields=f"metadata.name={self._proxy.node_name}"))
        services.subscribe(self._delaying(self._services))
        slices.subscribe(self._delaying(self._slices))
        node.subscribe(lambda old, new: self._stream.push(lambda: self._moved(new)))
        try:
            async with vtime.Nursery() as tasks:
                tasks.start(self._stream.run())
                tasks.start(self._runner.run())
                for reflector in (services, slices, node):
                    tasks.start(reflector.run())
                    tasks.start(self._announce(reflector))
        finally:
            await self._health.close()

    def _delaying(self, copies: dict[Key, JsonObject]) -> Subscriber:
        def arrived(old: JsonObject | None, new: JsonObject | None) -> None:
            self._stream.push(lambda: self._delivered(copies, old, new))

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
        entries = rules.entries(self._services.values(), self._slices.values(), self._place)
        checks = rules.health_checks(self._services.values(), self._slices.values(), self._place)
        await asyncio.sleep(self._pace.sync_seconds(len(self._services), proxy.rng))
        await proxy.faults.thawed(proxy.node_name)
        try:
            await proxy.kernel.commit(proxy.node_name, entries)
        except UnboundError as error:
            if proxy.unbound is not None:
                proxy.unbound.tell(self._services.values(), error.unbound)
        except (KernelError, OSError) as error:
            proxy.log(f"proxy {proxy.node_name}: sync failed: {error}")
            self._due_since = due_since if due_since is not None else self._due_since
            return False
        await self._health.sync(checks)
        return True
