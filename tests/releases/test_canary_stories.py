"""canary, told on a whole virtual lab: clients on every node, a Prometheus that answers what the story says."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
from judges import PROMETHEUS, prometheus
from scene import play
from stage import NS, deployment
from troupe import AUTOSCALER, BAD, SPECS, V2, V3, ask_for, at_rest, at_work, engine, loaded, requests, resting, serving

from tidegate.kube.api import DEPLOYMENTS, HORIZONTALPODAUTOSCALERS, Patch
from tidegate.release.spec import Analysis, Canary, CanaryStep, Spec

SUCCESS = Analysis(
    "success-rate",
    "prometheus",
    url=f"http://{PROMETHEUS}:9090",
    query='rate{version="v2"}',
    success=">= 0.99",
    interval_seconds=2.0,
)


def canary(*steps, images=V2, **options):
    made = tuple(CanaryStep(weight, pause) for weight, pause in steps)
    return Spec(
        "echo", "canary", images=images, progress_seconds=60, canary=Canary(service="echo", steps=made, **options)
    )


async def replicas(stage):
    found = (await stage.api.list(DEPLOYMENTS)).items
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found if one["metadata"]["namespace"] == NS}


def test_good_to_good_step_by_step_with_an_analysis_loses_nothing():
    async def story(stage):
        spec = canary((34, 3.0), (67, 1.0), analysis=(SUCCESS,))
        async with prometheus() as metrics, requests(stage) as seen, engine(stage, spec) as (made, book):
            status = await at_rest(made, book)
            await asyncio.sleep(3)
        assert seen.lost == [] and seen.sent > 1000, seen.lost[:3]
        assert await replicas(stage) == {"echo": 0, "echo-r2": 3}
        assert await serving(stage) == {"v2"} and seen.versions == {"v1", "v2"}
        assert len(metrics.queries) == 7, "once before, three times at each step"
        assert {stage.result(name)["result"] for name in made.endings.of_round} == {"verified"}
        return [note.text for note in status.notes]

    print("\n".join(play(story, limit=900)))


def test_a_bad_canary_is_aborted_by_its_analysis_and_nothing_is_lost():
    async def story(stage):
        spec = canary((34, 3.0), (67, 1.0), analysis=(SUCCESS,))
        async with prometheus() as metrics, requests(stage) as seen, engine(stage, spec) as (made, book):
            metrics.value = "0.31"
            status = await at_rest(made, book, ("aborted",))
            await asyncio.sleep(3)
        assert status.cause.startswith("prometheus success-rate failed 1 of 1 at 34 %: 0.31 is not >= 0.99")
        assert seen.lost == [] and await serving(stage) == {"v1"}
        assert await replicas(stage) == {"echo": 3}
        return [note.text for note in status.notes]

    print("\n".join(play(story, limit=900)))


def test_a_prometheus_that_cannot_be_reached_pauses_the_release_before_a_pod_is_made():
    async def story(stage):
        spec = canary((34, 1.0), analysis=(SUCCESS,))
        async with requests(stage) as seen, engine(stage, spec) as (made, book):
            status = await resting(made, book, "paused")
            assert "cannot be asked" in status.reason and status.reason.endswith("traffic stays where it is")
            assert await replicas(stage) == {"echo": 3} and await serving(stage) == {"v1"}
            async with prometheus():
                await ask_for(book)  # resumed
                await at_rest(made, book)
        assert seen.lost == []
        assert await replicas(stage) == {"echo": 0, "echo-r2": 3}

    play(story, limit=900)


def test_no_data_is_no_success_the_share_stays_and_goes_on_when_there_is_some():
    async def story(stage):
        spec = canary((34, 0.0), analysis=(SUCCESS,))
        async with prometheus() as metrics, requests(stage) as seen, engine(stage, spec) as (made, book):
            metrics.value = None
            status = await resting(made, book, "paused")
            assert "no sample" in status.reason and "34 % on r2" in status.reason
            assert await replicas(stage) == {"echo": 2, "echo-r2": 1} and await serving(stage) == {"v1", "v2"}
            metrics.value = "NaN"
            await ask_for(book)
            status = await resting(made, book, "paused")
            assert status.step == 0
            metrics.value = "1"
            await ask_for(book)
            await at_rest(made, book)
        assert seen.lost == []

    play(story, limit=900)


def test_superseded_mid_way_the_second_revision_is_drained_and_the_third_released():
    async def story(stage):
        spec = canary((34, None), (67, 0.0))
        async with requests(stage) as seen, engine(stage, spec) as (made, book):
            await resting(made, book, "paused")
            assert await serving(stage) == {"v1", "v2"}
            await ask_for(book, images=V3)
            await resting(made, book, "paused")
            assert await replicas(stage) == {"echo": 2, "echo-r3": 1} and await serving(stage) == {"v1", "v3"}
            await ask_for(book, promoted=1)
            await at_rest(made, book)
            await asyncio.sleep(3)
        assert seen.lost == [] and await serving(stage) == {"v3"}
        assert {stage.result(name)["result"] for name in made.endings.of_round} == {"verified"}

    play(story, limit=900)


@pytest.mark.parametrize("to", (1, 7))
def test_scaled_mid_way_by_somebody_who_knows_of_no_release(to):
    async def story(stage):
        spec = canary((34, None), (67, 0.0))
        async with requests(stage) as seen, engine(stage, spec) as (made, book):
            await resting(made, book, "paused")
            assert await replicas(stage) == {"echo": 2, "echo-r2": 1}
            await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"replicas": to}}), NS)
            await ask_for(book, promoted=1)
            await at_rest(made, book)
            await asyncio.sleep(3)
        assert seen.lost == []
        assert await replicas(stage) == {"echo": 0, "echo-r2": to}

    play(story, limit=900)


def test_an_image_that_never_comes_up_halts_with_all_traffic_on_the_old_pods():
    async def story(stage):
        spec = canary((34, 1.0), images=BAD)
        async with (
            requests(stage) as seen,
            engine(stage, msgspec.structs.replace(spec, progress_seconds=20)) as (
                made,
                book,
            ),
        ):
            status = await resting(made, book, "halted")
            assert "nowhere/echo:v9" in status.reason and status.reason.endswith("traffic stays on r1")
            assert await serving(stage) == {"v1"} and (await replicas(stage))["echo"] == 3
            await ask_for(book, images=V2)
            await at_rest(made, book)
        assert seen.lost == []
        assert await replicas(stage) == {"echo": 0, "echo-r3": 3}

    play(story, limit=900)


def test_aborted_by_a_person_and_released_again():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, canary((34, None))) as (made, book):
            await resting(made, book, "paused")
            await ask_for(book, wish="abort")
            await at_rest(made, book, ("aborted",))
            assert await replicas(stage) == {"echo": 3} and await serving(stage) == {"v1"}
            await ask_for(book, wish="", promoted=1)
            await resting(made, book, "paused")
            await ask_for(book, promoted=2)
            await at_rest(made, book)
        assert seen.lost == []

    play(story, limit=900)


def test_an_engine_that_is_killed_is_followed_by_one_that_goes_on():
    async def story(stage):
        async with requests(stage) as seen:
            async with engine(stage, SPECS["canary"]) as (made, book):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(9):
                        await made.run()
            async with at_work(stage, "echo", "engine-2", 2) as other:
                await at_rest(other, book)
            await asyncio.sleep(3)
        assert seen.lost == [] and await serving(stage) == {"v2"}

    play(story, limit=900)


def test_pods_without_a_gate_are_replaced_by_gated_twins_before_they_go():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, canary((34, 1.0))) as (made, book):
            status = await at_rest(made, book)
        assert seen.lost == [], (seen.lost[:3], status.notes[-4:])
        assert await replicas(stage) == {"echo": 0, "echo-r2": 3}

    play(story, deployment(gate=False, grace=30), limit=900)


def test_an_autoscaler_keeps_the_old_pods_and_goes_with_the_traffic_at_the_end():
    async def story(stage):
        await stage.api.create(HORIZONTALPODAUTOSCALERS, AUTOSCALER, NS)
        async with requests(stage, pause=0.1) as seen, engine(stage, canary((25, None), (50, None))) as (made, book):
            await resting(made, book, "paused")
            assert await replicas(stage) == {"echo": 3, "echo-r2": 1}
            await loaded(stage, 600)
            assert await replicas(stage) == {"echo": 6, "echo-r2": 1}
            await ask_for(book, promoted=1)
            await resting(made, book, "paused")
            assert await replicas(stage) == {"echo": 6, "echo-r2": 6}
            await ask_for(book, promoted=2)
            await at_rest(made, book)
            found = await stage.api.get(HORIZONTALPODAUTOSCALERS, "echo", NS)
            assert found["spec"]["scaleTargetRef"]["name"] == "echo-r2"
            assert await replicas(stage) == {"echo": 0, "echo-r2": 6}
            await loaded(stage, 900)
            assert await replicas(stage) == {"echo": 0, "echo-r2": 9}
        assert seen.lost == []

    play(story, limit=1200)


def test_a_rollback_goes_straight_back_to_the_deployment_of_before():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, canary((34, 0.0))) as (made, book):
            await at_rest(made, book)
            assert await replicas(stage) == {"echo": 0, "echo-r2": 3}
            await ask_for(book, rollback_to="r1", canary=canary((34, None)).canary)
            await at_rest(made, book)
            await asyncio.sleep(3)
        assert seen.lost == [] and await serving(stage) == {"v1"}
        assert await replicas(stage) == {"echo": 3}

    play(story, limit=900)


def test_a_node_that_is_drained_midway_takes_nothing_with_it():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, canary((34, None), (67, 0.0))) as (made, book):
            await resting(made, book, "paused")
            pods = await stage.pods()
            for one in [pod["metadata"]["name"] for pod in pods if pod["spec"]["nodeName"] == "node-1"]:
                await stage.delete(one)
            await ask_for(book, promoted=1)
            await at_rest(made, book)
            await asyncio.sleep(3)
        assert seen.lost == [] and await serving(stage) == {"v2"}

    play(story, limit=900)
