"""rolling, told on a whole virtual lab: one Deployment, clients on every node, an engine that carries the release."""

from __future__ import annotations

import asyncio

from scene import play
from stage import NS, deployment
from troupe import AUTOSCALER, engine, loaded, requests

from tidegate.kube.api import DEPLOYMENTS, HORIZONTALPODAUTOSCALERS
from tidegate.release.spec import Spec

V2 = {"echo": "tidegate/echo:v2"}


async def images(stage):
    found = await stage.api.get(DEPLOYMENTS, "echo", NS)
    return [one["image"] for one in found["spec"]["template"]["spec"]["containers"]]


def test_a_rolling_release_of_gated_pods_loses_nothing():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, Spec("echo", images=V2)) as (made, book):
            status = await made.run(120)
            await asyncio.sleep(2)
        assert (status.phase, seen.lost) == ("done", []), status.reason
        assert seen.sent > 300
        assert {pod["spec"]["containers"][0]["image"] for pod in await stage.pods()} == {"tidegate/echo:v2"}
        assert {stage.result(name)["result"] for name in made.endings.of_round} == {"verified"}
        return [note.text for note in (await book.read()).status.notes]

    print("\n".join(play(story, limit=600)))


def test_the_first_release_of_ungated_pods_drains_each_of_them_first():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, Spec("echo", images=V2)) as (made, book):
            status = await made.run(300)
            await asyncio.sleep(2)
        assert (status.phase, seen.lost) == ("done", []), (status.reason, made.failures)
        assert len(made.endings.of_round) == 6  # three without a gate, then their gated twins
        return [note.text for note in (await book.read()).status.notes]

    print("\n".join(play(story, deployment(gate=False, grace=30), limit=900)))


def test_an_autoscaler_sets_the_number_midway_and_nobody_contests_it():
    """flagger #1798: a release that writes replicas beside the autoscaler (peers S37)."""

    async def story(stage):
        await stage.api.create(HORIZONTALPODAUTOSCALERS, AUTOSCALER, NS)
        async with requests(stage, pause=0.1) as seen, engine(stage, Spec("echo", images=V2)) as (made, _):
            stage.fault("proxy-freeze", "node-2", 45)
            running = asyncio.create_task(made.run(300))
            await asyncio.sleep(3)
            await loaded(stage, 700)
            assert not running.done()
            assert (await stage.api.get(DEPLOYMENTS, "echo", NS))["spec"]["replicas"] == 7
            assert (await running).phase == "done"
            await asyncio.sleep(3)
        obj = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert obj["spec"]["replicas"] == obj["status"]["availableReplicas"] == 7
        writers = {one["manager"] for one in obj["metadata"]["managedFields"] if "f:replicas" in str(one)}
        assert "tidegate" not in writers, writers
        assert seen.lost == []

    play(story, limit=900)


def test_an_image_that_never_comes_up_halts_the_release_and_traffic_stays():
    async def story(stage):
        spec = Spec("echo", images={"echo": "nowhere/echo:v9"}, progress_seconds=30)
        async with requests(stage) as seen, engine(stage, spec) as (made, _):
            status = await made.run(200)
            await asyncio.sleep(2)
        assert status.phase == "halted"
        assert "nowhere/echo" in status.reason and "traffic stays" in status.reason
        assert seen.lost == []

    play(story, limit=600)
