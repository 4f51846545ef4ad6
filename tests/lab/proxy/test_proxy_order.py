"""The promise the fence stands on: a node that shows epoch E shows nothing that was cut before E was written."""

from __future__ import annotations

import asyncio
import random

import pytest

from tidegate.lab.journal import read

from .proxy_world import World, endpoint, story

TRIALS = 12


async def disturb(world: World, rng: random.Random) -> None:
    """Faults at random instants on node-1; node-2 stays whole."""
    while True:
        await asyncio.sleep(rng.uniform(0, 4))
        kind = rng.choice(("proxy-freeze", "proxy-lag", "proxy-kill", "proxy-restart", "clear"))
        world.fault(kind, round(rng.uniform(0.1, 3), 3))


@pytest.mark.parametrize("seed", range(8))
def test_a_commit_that_shows_the_fence_shows_no_endpoint_cut_before_it(tmp_path, seed):
    cut_before: dict[int, str] = {}

    async def tell(world: World) -> None:
        rng = random.Random(seed)
        disturbing = asyncio.create_task(disturb(world, rng))
        for epoch in range(2, 2 + TRIALS):
            ip = f"127.17.2.{epoch}"
            world.write(endpoint("127.17.1.1"), endpoint(ip))
            await asyncio.sleep(rng.choice((0, 0.005, 0.05, 0.5, 2)))
            world.write(endpoint("127.17.1.1"))
            cut_before[epoch] = f"{ip}:8080"
            await asyncio.sleep(rng.choice((0, 0.02, 0.3)))
            world.write_fence(epoch)
            await asyncio.sleep(rng.choice((0, 0.1, 1.5)))
        disturbing.cancel()
        for node in world.config.node_names:
            world.fault("proxy-restart", node=node)
            world.fault("clear", node=node)
        await asyncio.sleep(5)
        for node in world.config.node_names:
            assert await world.endpoints(node) == ["127.17.1.1:8080"]
            assert await world.endpoints(node, "fence") == [f"198.18.0.{1 + TRIALS}:8080"]

    story(tmp_path, tell, seed)
    shown: dict[str, int] = {}
    for entry in read(tmp_path / "kernel.jsonl"):
        if entry["event"] != "table-committed" or "default/fence:80" not in entry["services"]:
            continue
        (fence,) = entry["services"]["default/fence:80"]
        epoch = int(fence.split(":")[0].rpartition(".")[2])
        routed = entry["services"]["default/web:80"]
        assert not [ip for before, ip in cut_before.items() if before <= epoch and ip in routed], entry
        assert epoch >= shown.get(entry["node"], 0), "a proxy that lists anew lists what is"
        shown[entry["node"]] = epoch
    assert shown == {"node-1": 1 + TRIALS, "node-2": 1 + TRIALS}
