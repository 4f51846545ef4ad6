"""Random sequences of additions, cuts, restarts, freezes and lags, and the epochs written in between.

Each worker has a Service with one endpoint that comes and goes. It adds it, takes it away, has an epoch written,
waits until the nodes show it, has a second one written, waits for that, and lets the cut stand a little longer: a late
route would then be there to be seen. All workers at once, so that cuts, adds and epochs of many fall into one sync.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from tidegate import vtime
from tidegate.agent.fencing import Fencing
from tidegate.drain.fence import FenceWrite
from tidegate.kube.api import ENDPOINTSLICES, NAMESPACES, SERVICES, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.lab.faults import FaultKind
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.rehearse.fence.ground import Ground
from tidegate.rehearse.fence.judge import Cut

NAMESPACES_OF_WORKERS = ("apps", "web")
"""Before and after the fence's own in every order by name: a list is handled in some order."""
PORT = 8080
STANDS_SECONDS = (0.0, 0.01, 0.06, 0.3, 1.5, 5.0)
"""How long an endpoint is there, at most: shorter than a sync, as long, and long enough to be routed."""
SHOWN_SECONDS_MAX = 60.0
FAULTS: tuple[tuple[FaultKind, tuple[float, float]], ...] = (
    ("proxy-freeze", (0.1, 3.0)),
    ("proxy-freeze", (0.1, 1.0)),
    ("proxy-lag", (0.3, 4.0)),
    ("proxy-kill", (0.05, 1.5)),
    ("proxy-restart", (0.0, 0.0)),
    ("clear", (0.0, 0.0)),
)
PAUSE_SECONDS = (0.2, 2.0)


@dataclass(slots=True)
class Sequences:
    """``count`` cuts by ``workers`` workers on one ground. ``cuts`` is what was done, for the judge."""

    ground: Ground
    fencing: Fencing
    rng: random.Random
    count: int
    workers: int = 8
    cuts: list[Cut] = field(default_factory=list)
    hurts: int = 0
    _written: int = 0
    _begun: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def prepare(self) -> None:
        """Namespaces, and the fence."""
        for name in (SYSTEM_NAMESPACE, *NAMESPACES_OF_WORKERS):
            await self._ensure(name)
        self._written = (await self.fencing.write()).epoch.number

    async def run(self) -> None:
        """Play all of them, then end every fault."""
        async with vtime.Nursery() as nursery:
            hurting = [nursery.start(self._hurt(node)) for node in self.ground.nodes]
            workers = [nursery.start(self._work(number)) for number in range(self.workers)]
            await asyncio.gather(*workers)
            for task in hurting:
                task.cancel()
        for node in self.ground.nodes:
            self.ground.hurt("clear", node, 0.0)

    async def _ensure(self, namespace: str) -> None:
        try:
            await self.ground.api.create(
                NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            )
        except ApiError as error:
            if not error.is_conflict:
                raise

    async def _hurt(self, node: str) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(*PAUSE_SECONDS))
            kind, (least, most) = self.rng.choice(FAULTS)
            self.ground.hurt(kind, node, self.rng.uniform(least, most))
            self.hurts += 1

    async def _work(self, number: int) -> None:
        namespace = NAMESPACES_OF_WORKERS[number % len(NAMESPACES_OF_WORKERS)]
        name, address = f"fenced-{number}", self.ground.address(number)
        await self.ground.api.create(SERVICES, _service(name), namespace)
        slice_ = await self.ground.api.create(ENDPOINTSLICES, _slice(name), namespace)
        while self._begun < self.count:
            self._begun += 1
            for _ in range(self.rng.choice((1, 1, 1, 2, 3))):  # now and then it comes and goes more than once
                slice_ = await self._put(slice_, namespace, (address,))
                await asyncio.sleep(self.rng.choice(STANDS_SECONDS) * self.rng.random())
                before = self._written
                slice_ = await self._put(slice_, namespace, ())
                cut = Cut(f"{address}:{PORT}", vtime.now().timestamp(), before)
                if self.rng.random() < 0.3:
                    await asyncio.sleep(self.rng.uniform(0.0, 0.1))
            await self._prove(cut)
            await asyncio.sleep(self.rng.uniform(0.0, 1.2))
            cut.until = vtime.now().timestamp()
            self.cuts.append(cut)

    async def _prove(self, cut: Cut) -> None:
        """Both epochs, each waited for on every node; a node that stands still too long leaves the cut unproven."""
        await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.2)) * self.rng.random())
        first = await self._write()
        cut.first = first.epoch.number
        try:
            async with asyncio.timeout(SHOWN_SECONDS_MAX):
                for node in self.ground.nodes:
                    await self.ground.shown(node, first.epoch)
                second = await self._write()
                cut.second = second.epoch.number
                for node in self.ground.nodes:
                    await self.ground.shown(node, second.epoch)
        except TimeoutError:
            return

    async def _write(self) -> FenceWrite:
        async with self._turn:
            write = await self.fencing.write()
        self._written = write.epoch.number
        return write

    async def _put(self, slice_: JsonObject, namespace: str, addresses: tuple[str, ...]) -> JsonObject:
        endpoints = [{"addresses": [one], "conditions": {"ready": True}} for one in addresses]
        return await self.ground.api.replace(ENDPOINTSLICES, slice_ | {"endpoints": endpoints})


def _service(name: str) -> JsonObject:
    ports = [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}}


def _slice(name: str) -> JsonObject:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
    }
