"""Random faults over seeds: whatever breaks, no pod is called ``verified`` that is, or will be, routed to.

``TIDEGATE_CHAOS_SEEDS=FIRST-LAST pytest tests/agent/test_chaos.py`` runs others; a failure names its seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import pytest
from stage import NS, deployment, play

from tidegate.kube.api import PODS, Selection

FIRST, LAST = (int(part) for part in os.environ.get("TIDEGATE_CHAOS_SEEDS", "0-3").split("-"))
NODES = ("node-1", "node-2", "node-3")


class Chaos:
    """Breaks one thing after another."""

    def __init__(self, stage, rng, switch):
        self.stage, self.rng, self.switch = stage, rng, switch
        self.lost = []

    async def delete(self):
        names = sorted(pod["metadata"]["name"] for pod in await self.stage.pods())
        for name in self.rng.sample(names, min(len(names), self.rng.randint(1, 3))):
            await self.stage.delete(name)

    async def proxy(self):
        kind = self.rng.choice(["proxy-freeze", "proxy-lag", "proxy-kill", "proxy-restart", "clear"])
        self.stage.fault(kind, self.rng.choice(NODES), round(self.rng.uniform(0.3, 9), 2))

    async def process(self):
        node = self.rng.choice(NODES)
        victims = [f"tidegate-agent-{node}/agent", f"tidegate-agent-{node}/holder", "tidegate-coordinator/coordinator"]
        with contextlib.suppress(AssertionError):
            self.stage.kill(self.rng.choice(victims))

    async def api(self):
        self.switch(True)
        await asyncio.sleep(self.rng.uniform(0.1, 4))
        self.switch(False)

    async def request(self, address, node, milliseconds):
        try:
            reader, writer = await asyncio.open_connection(*address, local_addr=(f"127.16.0.{10 + node}", 0))
            writer.write(f"GET /sleep?ms={milliseconds} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
        except OSError as error:
            answer = repr(error).encode()
        if not answer.startswith(b"HTTP/1.1 200"):
            self.lost.append((self.stage.now, answer[:40]))


async def ended(stage):
    """Until no pod is terminating any more."""
    for _ in range(1500):
        pods = (await stage.api.list(PODS, Selection(NS))).items
        if not any("deletionTimestamp" in pod["metadata"] for pod in pods):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("a pod never ended")


@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
def test_no_fault_makes_a_false_verified(seed, switch):
    rng = random.Random(f"chaos/{seed}")

    async def story(stage):
        chaos = Chaos(stage, rng, switch)
        acts = [chaos.delete, chaos.delete, chaos.proxy, chaos.proxy, chaos.process, chaos.api]
        for _ in range(14):
            await rng.choice(acts)()
            await asyncio.sleep(rng.uniform(0, 2.5))
        for node in NODES:
            stage.fault("clear", node)
        await ended(stage)
        await asyncio.sleep(10)  # whatever was on its way arrives
        results = [stage.result(name) for name in stage.annotations]
        return sorted(result["result"] for result in results if result)

    print(seed, play(story, deployment(replicas=5, grace=rng.choice([25, 60])), seed=seed, limit=900))


@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
def test_lagging_and_dying_proxies_alone_lose_no_request(seed, switch):
    rng = random.Random(f"lag/{seed}")

    async def story(stage):
        chaos = Chaos(stage, rng, switch)
        address = await cluster_address(stage)
        clients = asyncio.create_task(steady(chaos, address))
        for _ in range(5):
            await chaos.proxy()
            await asyncio.sleep(rng.uniform(0, 1))
            await chaos.delete()
            await asyncio.sleep(rng.uniform(1, 4))
        for node in NODES:
            stage.fault("clear", node)
        await ended(stage)
        clients.cancel()
        await asyncio.sleep(10)
        results = {(stage.result(name) or {}).get("result") for name in stage.annotations if stage.result(name)}
        assert results == {"verified"}
        assert chaos.lost == []

    play(story, deployment(replicas=5, grace=60), seed=seed, limit=900)


async def cluster_address(stage):
    from tidegate.kube.api import SERVICES

    return (await stage.api.get(SERVICES, "echo", NS))["spec"]["clusterIP"], 8080


async def steady(chaos, address):
    while True:
        await asyncio.sleep(chaos.rng.uniform(0.02, 0.1))
        request = chaos.request(address, chaos.rng.randint(1, 3), chaos.rng.randint(0, 300))
        asyncio.get_running_loop().create_task(request)
