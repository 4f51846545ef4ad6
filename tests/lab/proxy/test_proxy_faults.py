"""What a node's faults do to its proxy, and what they leave alone."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.lab.faults import Fault, FaultError, NodeFaults, step

from .proxy_world import World, endpoint, story

POD_1, POD_2 = "127.17.1.1:8080", "127.17.1.2:8080"


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_a_frozen_proxy_keeps_routing_until_it_thaws(tmp_path):
    async def tell(world: World) -> None:
        world.fault("proxy-freeze", 20)
        frozen_at = _now()
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(19.9)
        assert await world.endpoints("node-1") == [POD_1, POD_2]
        assert await world.endpoints("node-2") == [POD_1]
        await asyncio.sleep(1)
        at, endpoints = world.commits("node-1")[-1]
        assert endpoints == [POD_1]
        assert 20.0 <= at - frozen_at <= 20.1

    story(tmp_path, tell)


def test_a_lagging_proxy_is_late_and_keeps_the_order(tmp_path):
    async def tell(world: World) -> None:
        world.fault("proxy-lag", 8)
        cut_at = _now()
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(0.1)
        world.write_fence(2)
        await asyncio.sleep(12)
        cut = next(at for at, endpoints in world.commits("node-1") if at > cut_at and endpoints == [POD_1])
        fence = next(at for at, shown in world.commits("node-1", "fence") if shown == ["198.18.0.2:8080"])
        assert 8.0 <= cut - cut_at <= 8.1
        assert cut < fence <= cut + 1.1

    story(tmp_path, tell)


def test_a_lag_that_is_cleared_delivers_at_once_what_it_held_back(tmp_path):
    async def tell(world: World) -> None:
        world.fault("proxy-lag", 60)
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(5)
        assert await world.endpoints() == [POD_1, POD_2]
        world.fault("clear")
        await asyncio.sleep(0.1)
        assert await world.endpoints() == [POD_1]

    story(tmp_path, tell)


def test_a_killed_proxy_leaves_its_rules_and_its_successor_lists_again(tmp_path):
    async def tell(world: World) -> None:
        world.fault("proxy-kill", 5)
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(4.9)
        assert await world.endpoints() == [POD_1, POD_2]
        assert [fault.kind for fault in world.faults.active()] == ["proxy-kill"]
        await asyncio.sleep(0.3)
        assert await world.endpoints() == [POD_1]
        assert world.faults.active() == ()

    story(tmp_path, tell)


def test_a_proxy_killed_for_good_comes_back_on_restart(tmp_path):
    async def tell(world: World) -> None:
        world.fault("proxy-kill")
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(1_000)
        assert await world.endpoints() == [POD_1, POD_2]
        world.fault("proxy-restart")
        await asyncio.sleep(0.2)
        assert await world.endpoints() == [POD_1]

    story(tmp_path, tell)


def test_faults_say_what_is_left_of_them(tmp_path):
    async def tell(world: World) -> None:
        world.fault("proxy-freeze", 20, node="node-2")
        world.fault("proxy-lag", 8)
        await asyncio.sleep(5)
        lag, freeze = world.faults.active()
        assert lag == Fault("proxy-lag", "node-1", 8)
        assert freeze == Fault("proxy-freeze", "node-2", pytest.approx(15))
        with pytest.raises(FaultError, match=r"no node 'node-9'; nodes: node-1, node-2"):
            world.fault("proxy-lag", 1, node="node-9")

    story(tmp_path, tell)


def test_a_bad_fault_changes_nothing_and_says_what_would_be_accepted():
    with pytest.raises(FaultError, match="unknown fault 'proxy-explode'; known: proxy-freeze"):
        step(NodeFaults(), Fault("proxy-explode", "node-1"), 0)
    with pytest.raises(FaultError, match="finite"):
        step(NodeFaults(), Fault("proxy-lag", "node-1", float("nan")), 0)


def test_a_restarted_proxy_is_no_longer_frozen_but_its_network_still_lags():
    faults = step(step(NodeFaults(), Fault("proxy-freeze", "n", 60), 0), Fault("proxy-lag", "n", 3), 0)
    faults = step(faults, Fault("proxy-restart", "n"), 1)
    assert not faults.is_frozen(1)
    assert faults.lag_seconds == 3
    assert faults.incarnation == 2
