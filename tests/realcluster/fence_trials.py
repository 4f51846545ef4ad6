"""Cuts against a real kube-proxy that is stopped, continued and killed: what the fence says, held against the rules.

Each worker has a Service with one endpoint that comes and goes. It adds it, removes it, writes an epoch, waits until
the node shows that epoch, and begins again; all workers at once, so that cuts, adds and epochs of many fall into one
sync. One sampler reads the kernel without end. A *violation*: a reading with fence >= the epoch of a cut and a route
to what was cut. A *lie of absence*: a reading after a cut without the route, and a later one with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from dataclasses import dataclass, field

from tests.realcluster.fake_kubelet import NODE
from tests.realcluster.real_node import POD_PORT, KubeProxy

from tidegate.agent.fencing import Fencing
from tidegate.drain.acknowledgement import Verdict, acknowledge
from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Api, JsonObject
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.kernel import Reading, Tables
from tidegate.vtime import Nursery

WORKERS = 24
SEEN_SECONDS_MAX = 20.0
FAMILIES = {"IPv4": "10.244.77.{}", "IPv6": "fd00:10:244:77::{}"}


@dataclass
class Trial:
    """One cut. ``epoch`` once it was written after the cut; ``before`` is the last one written until then, which proves
    nothing: ``is_early`` once a reading showed it beside the route."""

    endpoint: Endpoint
    before: Epoch
    is_early: bool = False
    epoch: Epoch | None = None
    sent_at: float = 0.0
    seen_at: float = 0.0
    was_absent: bool = False
    is_lie: bool = False
    over: bool = False


@dataclass
class Trials:
    """All of one mode, and what came of them."""

    api: Api
    tables: Tables
    written: Epoch
    fencing: Fencing
    rng: random.Random
    prefix: str
    done: list[Trial] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    unreadable: dict[str, int] = field(default_factory=dict)
    readings: int = 0
    _open: dict[int, Trial] = field(default_factory=dict)
    _read: asyncio.Event = field(default_factory=asyncio.Event)
    _frozen: asyncio.Event = field(default_factory=asyncio.Event)
    _fence_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_over: bool = False

    async def run(self, proxy: KubeProxy, seconds: float, count: int) -> None:
        """At least so long and at least so many."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        faults = asyncio.create_task(self._faults(proxy))
        async with Nursery() as nursery:
            sampler = nursery.start(self._sample())
            workers = [nursery.start(self._work(number)) for number in range(WORKERS)]
            while loop.time() - began < seconds or len(self.done) < count:
                await asyncio.sleep(0.1)
            faults.cancel()
            await asyncio.gather(faults, return_exceptions=True)
            if proxy.process is None:
                proxy.start()
            proxy.tell(signal.SIGCONT)
            self._is_over = True
            await asyncio.gather(*workers)
            sampler.cancel()

    # --- what is done to it ---

    async def _faults(self, proxy: KubeProxy) -> None:
        """Stopped for a moment again and again, and now and then killed."""
        for turn in range(1, 10_000):
            await asyncio.sleep(self.rng.uniform(0.6, 1.2))
            if turn % 5:
                proxy.tell(signal.SIGSTOP)
                told, self._frozen = self._frozen, asyncio.Event()
                told.set()
                await asyncio.sleep(self.rng.uniform(0.1, 0.9))
                proxy.tell(signal.SIGCONT)
            else:
                proxy.kill()
                await asyncio.sleep(self.rng.uniform(0.0, 0.3))
                proxy.start()

    async def _work(self, number: int) -> None:
        family = ("IPv4", "IPv6")[number % 2]
        name = f"{self.prefix}-{number}"
        endpoint = Endpoint(FAMILIES[family].format(number + 1), POD_PORT)
        await self.api.create(SERVICES, _service(name, family), "default")
        slice_ = await self.api.create(ENDPOINTSLICES, _slice(name, family, ()), "default")
        while not self._is_over:
            slice_ = await self._put(slice_, (endpoint.address,))
            if self.rng.random() < 0.6:
                await asyncio.sleep(self.rng.choice((0.0, 0.03, 0.3, 0.9, 1.3)) * self.rng.random())
            else:  # the add reaches a kube-proxy that may not sync yet, the cut one that stands still
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._frozen.wait(), 1.0)
            slice_ = await self._put(slice_, ())
            trial = Trial(endpoint, self.written)
            self._open[number] = trial
            if self.rng.random() < 0.5:
                await asyncio.sleep(self.rng.uniform(0.0, 0.3))
            async with self._fence_lock:
                write = await self.fencing.write()
            trial.sent_at, trial.epoch = write.sent_at, write.epoch
            self.written = write.epoch
            await self._until_seen(trial)
            await asyncio.sleep(self.rng.uniform(0.0, 0.1))
            trial.over = True
            del self._open[number]
            self.done.append(trial)
        await self.api.delete(SERVICES, name, "default")
        await self.api.delete(ENDPOINTSLICES, slice_["metadata"]["name"], "default")

    async def _put(self, slice_: JsonObject, addresses: tuple[str, ...]) -> JsonObject:
        endpoints = [{"addresses": [one], "conditions": {"ready": True}} for one in addresses]
        return await self.api.replace(ENDPOINTSLICES, slice_ | {"endpoints": endpoints})

    async def _until_seen(self, trial: Trial) -> None:
        async with asyncio.timeout(SEEN_SECONDS_MAX):
            while not trial.seen_at:
                await self._read.wait()

    # --- what is seen ---

    async def _sample(self) -> None:
        asked = tuple(
            Endpoint(FAMILIES[family].format(number + 1), POD_PORT)
            for number in range(WORKERS)
            for family in (("IPv4", "IPv6")[number % 2],)
        )
        loop = asyncio.get_running_loop()
        generation = -1
        while True:
            before = list(self._open.values())
            found = await self.tables.read_after(generation, 0.05, asked)
            generation = found.generation
            self.readings += 1
            for why in found.facts.unreadable:
                self.unreadable[str(why)] = self.unreadable.get(str(why), 0) + 1
            for trial in before:
                if not trial.over:
                    self._judge(trial, found, loop.time())
            told, self._read = self._read, asyncio.Event()
            told.set()

    def _judge(self, trial: Trial, found: Reading, now: float) -> None:
        """Of a cut that stood from before the reading to after it."""
        if found.facts.unreadable:
            return
        is_routed = bool(found.facts.routes_to(trial.endpoint))
        trial.is_lie = trial.is_lie or (trial.was_absent and is_routed)
        trial.was_absent = trial.was_absent or not is_routed
        shown = [one for one in found.facts.fence if one.install == trial.before.install]
        reaches_before = bool(shown) and all(one.reaches(trial.before) for one in shown)
        trial.is_early = trial.is_early or (reaches_before and is_routed)
        if trial.epoch is None:
            return
        if shown and all(one.reaches(trial.epoch) for one in shown):
            trial.seen_at = trial.seen_at or now
            if is_routed:
                self.violations.append(f"{trial.endpoint} at {trial.epoch}: {found.facts.routes_to(trial.endpoint)}")
            elif trial.seen_at == now:
                said = acknowledge(found.facts, (trial.endpoint,), trial.epoch)
                assert said.verdict is Verdict.CONFIRMED and found.facts.source == NODE, said


def _service(name: str, family: str) -> JsonObject:
    spec = {"ipFamilyPolicy": "SingleStack", "ipFamilies": [family], "ports": [{"port": 80, "targetPort": POD_PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _slice(name: str, family: str, addresses: tuple[str, ...]) -> JsonObject:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-tests", "labels": {"kubernetes.io/service-name": name}},
        "addressType": family,
        "endpoints": [{"addresses": [one], "conditions": {"ready": True}} for one in addresses],
        "ports": [{"name": "", "port": POD_PORT, "protocol": "TCP"}],
    }
