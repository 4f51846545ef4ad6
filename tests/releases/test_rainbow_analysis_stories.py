"""Analyses of rainbow on a whole virtual lab: before new traffic goes to the new revision, and after."""

from __future__ import annotations

import asyncio

import pytest
from judges import PROMETHEUS, prometheus
from scene import Mortal, play
from stage import NS
from troupe import V2, ask_for, at_rest, at_work, engine, requests, serving

from tidegate.client.release.book import ConfigMapBook
from tidegate.kube.api import DEPLOYMENTS
from tidegate.kube.client import KubeClient
from tidegate.release.spec import FlipAnalysis, Rainbow, Spec


def spec_of(when):
    rate = FlipAnalysis(
        "rate", "prometheus", f"http://{PROMETHEUS}:9090", "q", ">= 0.99", interval_seconds=2.0, when=when
    )
    return Spec("echo", "rainbow", images=V2, rainbow=Rainbow("echo", 3, 1.0, 1.0, analysis=(rate,)))


async def counts(stage):
    found = (await stage.api.list(DEPLOYMENTS)).items
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found if one["metadata"]["namespace"] == NS}


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_fails_leaves_new_traffic_with_the_one_before(when):
    async def story(stage):
        async with prometheus() as metrics, requests(stage) as seen, engine(stage, spec_of(when)) as (made, book):
            metrics.value = "0.31"
            status = await at_rest(made, book, ("aborted",))
            await asyncio.sleep(2)
        assert status.reason.startswith(f"prometheus rate failed 1 of 1 {when} the flip: 0.31 is not >= 0.99; r1 has")
        assert seen.versions == ({"v1"} if when == "before" else {"v1", "v2"})
        assert (seen.lost, await serving(stage), await counts(stage)) == ([], {"v1"}, {"echo": 3})

    play(story, limit=600)


def test_a_prometheus_that_goes_away_after_the_flip_keeps_the_one_before_whole():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of("after")) as (made, book):
            async with prometheus():
                running = asyncio.create_task(made.run(120))
                while await serving(stage) != {"v2"}:
                    await asyncio.sleep(0.05)
            status = await running
            assert status.phase == "paused" and "cannot be asked" in status.reason
            assert "r2 has new traffic, r1 is kept for the way back" in status.reason
            assert (await serving(stage), await counts(stage)) == ({"v2"}, {"echo": 3, "echo-r2": 3})
            async with prometheus():
                await ask_for(book)
                await at_rest(made, book)
            await asyncio.sleep(2)
        assert (seen.lost, await counts(stage)) == ([], {"echo": 0, "echo-r2": 3})

    play(story, limit=600)


@pytest.mark.parametrize("is_good", [True, False])
def test_an_engine_killed_after_any_write_is_followed_by_one_that_ends_the_same(is_good):
    def dies(last):
        async def story(stage):
            async with prometheus() as metrics, requests(stage, pause=0.1) as seen:
                metrics.value = "1" if is_good else "0"
                book = ConfigMapBook(stage.client, NS, "echo")
                await book.begin(spec_of("after"))
                way = Mortal(stage.lab.lab.exchange, last)
                async with at_work(stage, "echo", "doomed", client=KubeClient(way, "lab")) as made:
                    made.leave = _killed
                    running = asyncio.create_task(made.run(120))
                    dying = asyncio.create_task(way.died.wait())
                    await asyncio.wait({running, dying}, return_when=asyncio.FIRST_COMPLETED)
                    is_over = not way.died.is_set()
                    for task in (running, dying):
                        task.cancel()
                    await asyncio.gather(running, dying, return_exceptions=True)
                async with at_work(stage, "echo", "heir") as heir:
                    await at_rest(heir, book, ("done" if is_good else "aborted",))
                await asyncio.sleep(3)
            wanted = ({"v2"}, {"echo": 0, "echo-r2": 3}) if is_good else ({"v1"}, {"echo": 3})
            assert (await serving(stage), await counts(stage), seen.lost) == (*wanted, []), last
            return is_over

        return play(story, limit=900)

    last = 1
    while not dies(last):
        last += 1
    assert last > 12


async def _killed():
    """The end of a process that has none."""
