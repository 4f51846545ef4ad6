"""bluegreen, told on a whole virtual lab: two Deployments behind one Service, clients on every node, engines that carry
the release, die, and are followed by others."""

from __future__ import annotations

import asyncio
import collections
import json

import msgspec
import pytest
from scene import NODES, Mortal, play
from scene import ask as ask_once
from stage import NS, deployment
from troupe import AUTOSCALER, at_work, engine, loaded, requests

from tidegate.client.options import Identity
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import plan_release
from tidegate.client.release.ground import Ground
from tidegate.client.release.run import Engine
from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, HORIZONTALPODAUTOSCALERS, SERVICES, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.release.bluegreen import is_flipped
from tidegate.release.spec import BlueGreen, Spec

WAYS_HOME = 3.0
"""Seconds within which a rollback is to be reported done."""


def spec_of(tag="v2", **fields):
    return Spec("echo", "bluegreen", images={"echo": f"tidegate/echo:{tag}"}, bluegreen=BlueGreen("echo", **fields))


async def ask(book, **fields):
    entry = await book.read()
    return await book.ask(entry, msgspec.structs.replace(entry.spec, **fields))


async def selected(stage, service="echo"):
    return (await stage.api.get(SERVICES, service, NS))["spec"]["selector"].get("tidegate.dev/revision")


async def counts(stage):
    found = (await stage.api.list(DEPLOYMENTS)).items
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found if one["metadata"]["namespace"] == NS}


async def until(stage, holds, within=60.0):
    """Seconds until ``await holds()``."""
    began = stage.now
    while not await holds():
        assert stage.now - began < within, "it never came to that"
        await asyncio.sleep(0.05)
    return stage.now - began


def flipped(book, revision):
    """Whether the release reports that everybody routes to ``revision`` alone."""

    async def holds():
        status = (await book.read()).status
        name = status.stable if status.phase in ("aborting", "aborted") else status.revision
        return name == revision and is_flipped(status)

    return holds


def test_the_first_release_and_the_second_lose_nothing():
    async def story(stage):
        async with requests(stage) as seen:
            before = {pod["metadata"]["uid"] for pod in await stage.pods()}
            async with engine(stage, spec_of("v2")) as (made, book):
                assert (await made.run(120)).phase == "done"
            warm = {pod["metadata"]["uid"] for pod in await stage.pods()}
            assert before <= warm  # labelled in place: none was restarted
            assert (await selected(stage), await counts(stage)) == ("r2", {"echo": 3, "echo-r2": 3})
            async with engine(stage, spec_of("v3")) as (made, book):
                assert (await made.run(120)).phase == "done"
                assert (await selected(stage), await counts(stage)) == ("r3", {"echo": 0, "echo-r2": 3, "echo-r3": 3})
                await ask(book, retire=("r2",))
                assert (await made.run(120)).phase == "done"
            await asyncio.sleep(2)
        assert await counts(stage) == {"echo": 0, "echo-r3": 3}
        assert {stage.result(name)["result"] for name in made.endings.of_round} == {"verified"}
        assert [one["metadata"]["name"] for one in (await stage.api.list(SERVICES)).items if "release" in str(one)] == [
            "echo"
        ]
        assert (seen.lost, seen.sent > 500) == ([], True)

    play(story, limit=600)


def test_a_preview_shows_the_new_revision_until_somebody_promotes_it():
    async def story(stage):
        async with requests(stage) as seen:
            async with engine(stage, spec_of(preview="echo-next", promote="manual")) as (made, book):
                status = await made.run(120)
                assert status.phase == "paused" and "svc/echo-next" in status.reason
                assert (await selected(stage), await selected(stage, "echo-next")) == ("r1", "r2")
                await asyncio.sleep(2)
                async with requests(stage, "echo-next") as tried:
                    await asyncio.sleep(2)
                assert tried.versions == {"v2"} and not tried.lost
                assert seen.versions == {"v1"}
                await ask(book, promoted=1)
                assert (await made.run(120)).phase == "done"
                await asyncio.sleep(1)
                seen.versions.clear()
                await asyncio.sleep(2)
        assert (seen.lost, seen.versions) == ([], {"v2"})

    play(story, limit=600)


def test_after_an_abort_everybody_is_back_within_three_seconds_and_the_new_one_is_gone():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of()) as (made, book):
            assert (await made.run(120)).phase == "done"
            await ask(book, wish="abort")
            running = asyncio.create_task(made.run(120))
            seconds = await until(stage, flipped(book, "r1"))
            seen.versions.clear()
            assert (await running).phase == "aborted"
            await asyncio.sleep(1)
        assert (await selected(stage), await counts(stage)) == ("r1", {"echo": 3})
        assert seconds < WAYS_HOME
        assert (seen.lost, seen.versions) == ([], {"v1"})

    play(story, limit=600)


def test_a_rollback_to_the_warm_revision_is_reported_within_three_seconds():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of()) as (made, book):
            assert (await made.run(120)).phase == "done"
            await ask(book, rollback_to="r1")
            began = stage.now
            assert (await made.run(120)).phase == "done"
            seconds = stage.now - began
            seen.versions.clear()
            await asyncio.sleep(1)
        assert (await selected(stage), await counts(stage)) == ("r1", {"echo": 3, "echo-r2": 3})
        assert seconds < WAYS_HOME
        assert (seen.lost, seen.versions) == ([], {"v1"})

    play(story, limit=600)


def test_a_rollback_to_a_revision_that_is_gone_makes_it_anew_of_what_is_remembered():
    async def story(stage):
        async with requests(stage) as seen:
            for tag in ("v2", "v3"):
                async with engine(stage, spec_of(tag, keep_seconds=0)) as (made, book):
                    assert (await made.run(120)).phase == "done"
            assert await counts(stage) == {"echo": 0, "echo-r3": 3}
            async with engine(stage, spec_of("v3", keep_seconds=0)) as (made, book):
                await ask(book, rollback_to="r2")
                assert (await made.run(120)).phase == "done"
            seen.versions.clear()
            await asyncio.sleep(1)
        assert (seen.lost, seen.versions) == ([], {"v2"})
        assert await counts(stage) == {"echo": 0, "echo-r4": 3}

    play(story, limit=900)


def test_an_image_that_never_comes_up_halts_before_the_flip_and_an_abort_cleans_up():
    async def story(stage):
        spec = msgspec.structs.replace(spec_of(), images={"echo": "nowhere/echo:v9"}, progress_seconds=20)
        async with requests(stage) as seen, engine(stage, spec) as (made, book):
            status = await made.run(200)
            assert status.phase == "halted" and "nowhere/echo" in status.reason and "stays on r1" in status.reason
            assert await selected(stage) == "r1"
            await ask(book, wish="abort")
            assert (await made.run(120)).phase == "aborted"
        assert (await selected(stage), await counts(stage)) == ("r1", {"echo": 3})
        assert (seen.lost, seen.versions) == ([], {"v1"})

    play(story, limit=600)


@pytest.mark.parametrize("moment", ["created", "flipped"])
def test_a_third_revision_asked_for_mid_way_gets_the_traffic_from_whoever_has_it(moment):
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of("v2")) as (made, book):
            running = asyncio.create_task(made.run(120))
            await until(stage, lambda: there(stage, "echo-r2") if moment == "created" else is_selected(stage, "r2"))
            await ask(book, images={"echo": "tidegate/echo:v3"})
            await running
            status = await made.run(120)
            assert (status.phase, status.revision) == ("done", "r3"), status.reason
            await asyncio.sleep(1)
        assert await counts(stage) == {"echo": 3, "echo-r3": 3}
        assert seen.lost == []

    play(story, limit=900)


async def there(stage, name):
    try:
        return bool(await stage.api.get(DEPLOYMENTS, name, NS))
    except ApiError:
        return False


async def is_selected(stage, revision):
    return await selected(stage) == revision


def test_while_a_node_is_frozen_the_flip_is_not_done_and_the_node_is_named():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of(promote="manual")) as (made, book):
            assert (await made.run(120)).phase == "paused"
            stage.fault("proxy-freeze", "node-2", 20)
            await ask(book, promoted=1)
            running = asyncio.create_task(made.run(120))
            await asyncio.sleep(15)
            status = (await book.read()).status
            assert not is_flipped(status) and status.phase == "progressing"
            assert "node-2" in status.reason and "node-1" not in status.reason
            assert (await running).phase == "done"
            seen.versions.clear()
            await asyncio.sleep(1)
        assert (seen.lost, seen.versions) == ([], {"v2"})

    play(story, limit=600)


def test_pods_asked_for_mid_way_are_made_in_both_revisions():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of(promote="manual")) as (made, book):
            assert (await made.run(120)).phase == "paused"
            await stage.scale(5)
            running = asyncio.create_task(made.run(120))
            await asyncio.sleep(5)
            assert (await running).phase == "paused"
            assert (await made.run(120)).phase == "paused"
            await ask(book, promoted=1)
            assert (await made.run(120)).phase == "done"
            assert await counts(stage) == {"echo": 5, "echo-r2": 5}
            await stage.api.patch(DEPLOYMENTS, "echo-r2", Patch({"spec": {"replicas": 6}}), NS)
            assert (await made.run(120)).phase == "done"
            assert await counts(stage) == {"echo": 6, "echo-r2": 6}  # the way back has room for all
        assert seen.lost == []

    play(story, limit=600)


def test_an_autoscaler_goes_with_the_traffic_and_comes_back_with_it():
    async def target(stage):
        return (await stage.api.get(HORIZONTALPODAUTOSCALERS, "echo", NS))["spec"]["scaleTargetRef"]["name"]

    async def story(stage):
        await stage.api.create(HORIZONTALPODAUTOSCALERS, AUTOSCALER, NS)
        async with requests(stage, pause=0.1) as seen, engine(stage, spec_of(promote="manual")) as (made, book):
            assert (await made.run(120)).phase == "paused"
            await loaded(stage, 900)
            assert await counts(stage) == {"echo": 9, "echo-r2": 3}
            await made.run(120)
            assert await counts(stage) == {"echo": 9, "echo-r2": 9}
            await ask(book, promoted=1)
            assert (await made.run(120)).phase == "done"
            assert await target(stage) == "echo-r2"
            await loaded(stage, 1100)
            assert await counts(stage) == {"echo": 9, "echo-r2": 11}
            assert (await made.run(120)).phase == "done"
            assert await counts(stage) == {"echo": 11, "echo-r2": 11}  # the way back has room for the load of now
            await ask(book, wish="abort")
            assert (await made.run(120)).phase == "aborted"
            assert (await target(stage), await counts(stage)) == ("echo", {"echo": 11})
        assert seen.lost == []

    play(story, limit=900)


def test_a_rollout_in_place_is_refused_while_another_deployment_has_the_pods():
    async def story(stage):
        async with engine(stage, spec_of()) as (made, book):
            assert (await made.run(120)).phase == "done"
            plan = await plan_release(stage.client, book, NS, Spec("echo", images={"echo": "tidegate/echo:v3"}))
        [why] = plan.refusals
        assert "r2 has pods, in deployment/echo-r2" in why and "--to r1" in why

    play(story, limit=600)


def test_a_deployment_that_has_the_name_already_is_left_alone_and_named():
    async def story(stage):
        other = deployment(replicas=1)
        other["metadata"]["name"] = "echo-r2"
        labels = {"app": "other"}
        other["spec"]["selector"]["matchLabels"] = other["spec"]["template"]["metadata"]["labels"] = labels
        await stage.api.create(DEPLOYMENTS, other)
        async with engine(stage, spec_of()) as (made, _book):
            status = await made.run(20)
        assert "deployment/echo-r2 is there already, and is not of this release" in status.reason
        assert await counts(stage) == {"echo": 3, "echo-r2": 1}

    play(story, limit=600)


def test_a_deployment_that_somebody_has_paused_stays_paused():
    async def story(stage):
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"paused": True}}), NS)
        async with engine(stage, spec_of()) as (made, _book):
            status = await made.run(10)
            assert "deployment/echo is paused" in status.reason
            workload = await stage.api.get(DEPLOYMENTS, "echo", NS)
            assert workload["spec"]["paused"] and "tidegate.dev/prepare" not in str(workload)
            await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"paused": None}}), NS)
            assert (await made.run(120)).phase == "done"

    play(story, limit=600)


def test_pods_without_a_gate_that_nobody_sends_to_end_as_they_are_and_verified():
    async def story(stage):
        old = {one["metadata"]["name"] for one in await stage.pods()}
        async with requests(stage) as seen, engine(stage, spec_of(keep_seconds=5)) as (made, _book):
            status = await made.run(300)
            assert status.phase == "done", (status.reason, made.failures)
            await asyncio.sleep(2)
        assert await counts(stage) == {"echo": 0, "echo-r2": 3}
        assert seen.lost == []
        assert set(made.endings.of_round) == old, "no twin was made, and ended"
        assert {stage.result(name)["result"] for name in old} == {"verified"}
        assert len(stage.names) == 6

    play(story, deployment(gate=False, grace=30), limit=900)


def test_a_selector_changed_by_hand_is_left_so_until_somebody_says_what_is_wanted():
    async def story(stage):
        async with requests(stage) as seen, engine(stage, spec_of()) as (made, book):
            assert (await made.run(120)).phase == "done"
            hand = Patch({"spec": {"selector": {"tidegate.dev/revision": "r1"}}})
            await stage.api.patch(SERVICES, "echo", hand, NS)
            status = await made.run(120)
            assert status.phase == "halted" and "by another hand" in status.reason
            await asyncio.sleep(3)
            assert await selected(stage) == "r1"
            await ask(book, wish="abort")
            assert (await made.run(120)).phase == "aborted"
        assert (await counts(stage), seen.lost) == ({"echo": 3}, [])

    play(story, limit=600)


async def _mortal(stage, spec, last):
    """A release whose first engine dies after ``last`` writes: how the second leaves it."""
    way = Mortal(stage.lab.lab.exchange, last)
    book = ConfigMapBook(stage.client, NS, "echo")
    await book.begin(spec)
    doomed = Engine(
        ConfigMapBook(KubeClient(way, "lab"), NS, "echo"),
        Ground(KubeClient(way, "lab"), Identity("tester@here", "doomed", lambda holder: holder != "doomed"), seed=2),
    )
    running = asyncio.create_task(doomed.run(120))
    dying = asyncio.create_task(way.died.wait())
    await asyncio.wait({running, dying}, return_when=asyncio.FIRST_COMPLETED)
    is_over = not way.died.is_set()
    while not running.done():  # what it would do on its way out goes nowhere: it is dead
        running.cancel()
        await asyncio.sleep(0)
    dying.cancel()
    async with at_work(stage, "echo", holder="heir") as heir:
        heir._ground = Ground(stage.client, Identity("tester@here", "heir", lambda holder: False), seed=3)
        status = await heir.run(200)
    return status, is_over


def test_an_engine_killed_after_any_write_is_followed_by_one_that_ends_the_same():
    def dies(last):
        async def story(stage):
            async with requests(stage, pause=0.1) as seen:
                status, is_over = await _mortal(stage, spec_of(keep_seconds=2), last)
                await asyncio.sleep(2)
            assert (status.phase, status.revision) == ("done", "r2"), (last, status.reason)
            assert await counts(stage) == {"echo": 0, "echo-r2": 3}, last
            assert (await selected(stage), seen.lost) == ("r2", []), last
            workload = await stage.api.get(DEPLOYMENTS, "echo", NS)
            assert not workload["spec"].get("paused") and "tidegate.dev/prepare" not in str(workload["metadata"])
            return is_over

        return play(story, limit=900)

    last = 1
    while not dies(last):
        last += 1
    assert last > 15


MANY, CONNECTIONS = 250, 10_000


async def answered(stage, number, sources):
    """Versions that answered ``number`` new connections, from every node in turn."""
    found = collections.Counter()

    async def some(source):
        for _ in range(number // len(sources)):
            reader, writer = await ask_once(stage, source=source)
            found[json.loads((await reader.read()).partition(b"\r\n\r\n")[2])["version"]] += 1
            writer.close()

    async with asyncio.timeout(600):
        await asyncio.gather(*(some(source) for source in sources))
    return dict(found)


def test_of_250_endpoints_not_one_of_10_000_connections_reaches_the_old_ones_once_the_flip_is_done():
    async def story(stage):
        async with requests(stage, pause=0.5) as seen, engine(stage, spec_of()) as (made, book):
            running = asyncio.create_task(made.run(600))
            await until(stage, flipped(book, "r2"), within=600)
            slices = (await stage.api.list(ENDPOINTSLICES)).items
            own = [one for one in slices if one["metadata"]["labels"].get("kubernetes.io/service-name") == "echo"]
            assert len(own) > 2 and sum(len(one["endpoints"]) for one in own) == MANY
            assert await answered(stage, CONNECTIONS, sorted(NODES)) == {"v2": CONNECTIONS // 3 * 3}
            assert (await running).phase == "done"
            await ask(book, rollback_to="r1")
            running = asyncio.create_task(made.run(600))
            seconds = await until(stage, flipped(book, "r1"), within=600)
            assert await answered(stage, CONNECTIONS, sorted(NODES)) == {"v1": CONNECTIONS // 3 * 3}
            assert (await running).phase == "done"
        assert seen.lost == []
        assert seconds < WAYS_HOME

    play(story, deployment(replicas=MANY), limit=3600, nodes=6)
