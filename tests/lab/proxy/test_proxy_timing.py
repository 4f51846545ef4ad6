"""When a node's kernel learns of a change: the real kube-proxy's timing, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.kube.api import ENDPOINTSLICES
from tidegate.lab.proxy.runner import BoundedFrequencyRunner, Periods
from tidegate.vtime import run

from .proxy_world import World, endpoint, story

POD_1 = "127.17.1.1:8080"


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_a_cut_on_a_quiet_node_is_in_the_kernel_within_50_ms(tmp_path):
    async def tell(world: World) -> None:
        cut_at = _now()
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(0.5)
        for node in ("node-1", "node-2"):
            at, endpoints = world.commits(node)[-1]
            assert endpoints == [POD_1]
            assert 0.008 <= at - cut_at <= 0.050

    story(tmp_path, tell)


def test_a_fence_written_just_after_the_cut_waits_the_full_period(tmp_path):
    async def tell(world: World) -> None:
        cut_at = _now()
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(0.020)
        world.write_fence(2)
        await asyncio.sleep(2)
        (cut, fence) = world.commits(service="fence")[-2:]
        assert cut[1] == ["198.18.0.1:8080"]
        assert fence[1] == ["198.18.0.2:8080"]
        assert 1.0 <= fence[0] - cut_at <= 1.1

    story(tmp_path, tell)


def test_a_second_change_waits_from_the_completion_of_the_last_sync(tmp_path):
    async def tell(world: World) -> None:
        world.write(endpoint("127.17.1.1"))
        await asyncio.sleep(0.4)
        world.write(endpoint("127.17.1.2"))
        await asyncio.sleep(2)
        first, second = (at for at, _ in world.commits()[-2:])
        assert 1.008 <= second - first <= 1.035

    story(tmp_path, tell)


def test_changes_within_one_period_are_one_commit(tmp_path):
    async def tell(world: World) -> None:
        before = len(world.commits())
        world.write(endpoint("127.17.1.1"))
        for last in range(3, 20):
            await asyncio.sleep(0.050)
            world.write(endpoint(f"127.17.1.{last}"))
        await asyncio.sleep(5)
        assert len(world.commits()) == before + 2
        assert await world.endpoints() == ["127.17.1.19:8080"]

    story(tmp_path, tell)


def test_a_change_that_means_nothing_to_the_kernel_makes_no_sync(tmp_path):
    async def tell(world: World) -> None:
        before = len(world.commits())
        annotated = dict(world.api.objects["endpointslices", "default", "web-1"])
        annotated["metadata"] = {**annotated["metadata"], "annotations": {"seen": "now"}}
        world.api.put(ENDPOINTSLICES, annotated)
        await asyncio.sleep(3)
        assert len(world.commits()) == before

    story(tmp_path, tell)


def test_a_failed_sync_is_repeated_after_30_s_or_at_the_next_change():
    async def tell() -> None:
        ran: list[float] = []

        async def sync() -> bool:
            ran.append(_now())
            return len(ran) > 2

        runner = BoundedFrequencyRunner(sync, Periods())
        serving = asyncio.create_task(runner.run())
        runner.request()
        await asyncio.sleep(5)
        runner.request()
        await asyncio.sleep(100)
        serving.cancel()
        assert ran == pytest.approx([0, 5, 35])

    run(tell())


def test_a_proxy_syncs_once_an_hour_unasked():
    async def tell() -> None:
        ran: list[float] = []

        async def sync() -> bool:
            ran.append(_now())
            return True

        serving = asyncio.create_task(BoundedFrequencyRunner(sync, Periods()).run())
        await asyncio.sleep(7_300)
        serving.cancel()
        assert ran == pytest.approx([3_600, 7_200])

    run(tell())


def test_the_same_seed_gives_the_same_commits_at_the_same_instants(tmp_path):
    def commits(name: str, seed: int) -> str:
        async def tell(world: World) -> None:
            for last in range(3, 8):
                world.write(endpoint(f"127.17.1.{last}"))
                await asyncio.sleep(0.3)

        (tmp_path / name).mkdir()
        story(tmp_path / name, tell, seed)
        return (tmp_path / name / "kernel.jsonl").read_text()

    assert commits("a", 1) == commits("b", 1) != commits("c", 2)
