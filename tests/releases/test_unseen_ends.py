"""Pods that end while no engine looks on: written down beforehand, and asked for by whoever comes next."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from scene import play
from stage import NS, deployment, first, node_of, other_node
from test_hard_places import second
from test_killed_midway import killed
from troupe import SPECS, V2, V3, ask_for, at_rest, at_work, engine

from tidegate.client.isolate import isolate_pod
from tidegate.client.options import Identity, VerbOptions
from tidegate.client.release.book import ConfigMapBook
from tidegate.kube.api import PODS, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.release.leaving import KEPT, listed
from tidegate.release.plan import Act, Step, go
from tidegate.release.record import Status
from tidegate.release.scene import Edition, Member, Scene
from tidegate.release.spec import Spec


def scene(count):
    """A rolling release of ``count`` pods that is about to begin."""
    pods = tuple(Member(f"web-{i}", is_ready=True) for i in range(count))
    old = Edition("old", "web", "old", count, pods, is_base=True)
    return Scene(1000.0, Spec("web", images=V2), Status(), "new", count, count, 1, (old,), template="old", generation=1)


async def begun(stage, spec, is_begun):
    """An engine that is killed as soon as ``is_begun(turn)``, right after it has made its steps."""
    async with engine(stage, spec) as (made, book):
        made.leave = killed
        while True:
            turns = []
            made.heard = turns.append
            try:
                await made.turn()
            except ApiError as error:
                assert error.is_conflict or error.code == 422, error
            if turns and is_begun(turns[0]):
                return book
            await asyncio.sleep(0.1)


def makes(act):
    return lambda turn: any(step.act.name == act for step in turn.decision.steps)


async def quiet(stage, count=3):
    """Until the Deployment's controller has nothing more to do."""
    for _ in range(1200):
        found = (await stage.api.list(PODS, Selection(NS))).items
        if len(found) == count and await images(stage) == {"v2"}:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the rollout never came to its end")


async def lost_unseen(stage):
    """A pod ends by itself in the midst of a release, while no engine looks on; the release's book."""
    old = await first(stage)
    book = await begun(stage, SPECS["rolling"], makes("SET_TEMPLATE"))
    await stage.delete(old, grace=0)
    await quiet(stage)
    return book


async def taken_up(stage, book, **options):
    """Another engine brings it to its end."""
    async with at_work(stage, "echo", "engine-2") as made:
        return await at_rest(made, book, **options)


async def images(stage):
    return {pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in await stage.pods()}


def test_a_pod_that_ended_by_itself_while_no_engine_looked_on_halts_by_its_name():
    async def story(stage):
        old = await first(stage)
        book = await begun(stage, SPECS["rolling"], makes("SET_TEMPLATE"))
        assert old in (await book.read()).status.leaving
        await stage.delete(old, grace=0)
        await quiet(stage)
        async with at_work(stage, "echo", "engine-2") as made:
            status = await made.run(60)
            assert status.phase == "halted", status.reason
            assert f"pod/{old} ended unknown" in status.reason
            assert "`tidegate release resume" in status.reason
            assert len(status.unverified) == 1
            await ask_for(book, paused=False)
            status = await at_rest(made, book)
            assert [one.split()[0] for one in status.unverified] == [f"pod/{old}"]
            assert not status.leaving

    play(story, limit=600)


def test_pods_whose_nodes_have_a_record_of_a_proof_are_verified_whoever_looked_on():
    async def story(stage):
        book = await begun(stage, SPECS["rolling"], makes("SET_TEMPLATE"))
        await quiet(stage)
        status = await taken_up(stage, book, within=60)
        assert (status.unverified, status.leaving) == ((), {})

    play(story, limit=600)


def test_a_pod_whose_node_has_a_record_of_no_proof_halts_with_what_that_says():
    async def story(stage):
        old = await first(stage)
        await begun(stage, SPECS["rolling"], makes("SET_TEMPLATE"))
        stage.fault("proxy-freeze", await other_node(stage, old), 120)
        await quiet(stage)
        async with at_work(stage, "echo", "engine-2") as made:
            status = await made.run(60)
            assert status.phase == "halted", status.reason
            assert "ended timed-out" in status.reason

    play(story, deployment(grace=20), limit=600)


@pytest.mark.parametrize("strategy", ["bluegreen", "canary", "rainbow"])
def test_revisions_that_are_shrunk_are_written_down_before_it(strategy):
    async def story(stage):
        old = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in await stage.pods()}

        def shrinks(turn):
            return any(
                step.act.name == "SCALE" and len(turn.sight.scene.edition(step.subject).staying) > step.count
                for step in turn.decision.steps
                if turn.sight.scene.edition(step.subject)
            )

        book = await begun(stage, SPECS[strategy], shrinks)
        noted = (await book.read()).status.leaving
        assert noted and {name: one.uid for name, one in noted.items()}.items() <= old.items()
        there = {one["metadata"]["name"] for one in await all_of(stage)}
        lost = min(name for name in noted if name in there)
        await stage.delete(lost, grace=0)
        await asyncio.sleep(20)
        async with at_work(stage, "echo", "engine-2") as made:
            status = await made.run(60)
            assert status.phase == "halted" and f"pod/{lost} ended unknown" in status.reason, status.reason

    play(story, limit=600)


async def all_of(stage):
    return (await stage.api.list(PODS, Selection(NS))).items


def test_pods_of_a_release_at_rest_are_nobody_s_to_ask_for():
    """Evicted, or scaled away, between two releases."""

    async def story(stage):
        async with engine(stage, SPECS["rolling"]) as (made, book):
            await at_rest(made, book)
            assert not (await book.read()).status.leaving
        await stage.delete(await first(stage), grace=0)
        await stage.ready(3)
        await ask_for(book, images=V3)
        assert (await taken_up(stage, book)).unverified == ()

    play(story, limit=600)


def test_what_a_release_before_left_to_end_is_not_the_next_one_s():
    async def story(stage):
        book = await lost_unseen(stage)
        await ask_for(book, images=V3)
        assert (await taken_up(stage, book)).unverified == ()

    play(story, limit=600)


def test_a_pod_that_somebody_isolated_meanwhile_has_not_ended():
    async def story(stage):
        old = await first(stage)

        book = await begun(stage, SPECS["rolling"], makes("SET_TEMPLATE"))
        await isolate_pod(stage.client, (NS, old), VerbOptions(identity=Identity("somebody", "else")))
        await asyncio.sleep(60)
        assert (await taken_up(stage, book)).unverified == ()

    play(story, limit=600)


def test_a_node_that_is_silent_for_a_moment_is_asked_again_and_for_long_it_is_named():
    async def story(stage):
        old = await first(stage)
        node = await node_of(stage, old)
        book = await begun(stage, SPECS["rolling"], makes("SET_TEMPLATE"))
        await quiet(stage)
        exchange, silent_until = stage.lab.lab.exchange, [stage.now + 8]

        async def deaf(request):
            if "/proxy/v1/ledger" in request.path and stage.now < silent_until[0]:
                raise ApiError(503, "ServiceUnavailable", f"the agent of {node} does not answer")
            return await exchange(request)

        async with at_work(stage, "echo", "engine-2", client=KubeClient(deaf, "lab")) as made:
            status = await at_rest(made, book, within=60)
            assert status.unverified == ()

    play(story, limit=600)


def test_a_node_that_stays_silent_is_named_and_it_halts():
    async def story(stage):
        await begun(stage, SPECS["rolling"], makes("SET_TEMPLATE"))
        await quiet(stage)
        exchange = stage.lab.lab.exchange

        async def deaf(request):
            if "/proxy/v1/ledger" in request.path:
                raise ApiError(503, "ServiceUnavailable", "it does not answer")
            return await exchange(request)

        async with at_work(stage, "echo", "engine-2", client=KubeClient(deaf, "lab")) as made:
            began = stage.now
            status = await made.run(120)
            assert status.phase == "halted" and "cannot be asked (it does not answer)" in status.reason, status.reason
            assert stage.now - began > 15
            assert len(status.unverified) == 3

    play(story, limit=600)


def test_a_release_that_lets_pods_go_unverified_goes_on_and_tells_of_them():
    async def story(stage):
        old = await first(stage)
        spec = msgspec.structs.replace(SPECS["rolling"], on_unverified="proceed")
        book = await begun(stage, spec, makes("SET_TEMPLATE"))
        await stage.delete(old, grace=0)
        await quiet(stage)
        async with at_work(stage, "echo", "engine-2") as made:
            status = await at_rest(made, book)
            assert [one.split()[0] for one in status.unverified] == [f"pod/{old}"]

    play(story, limit=600)


def test_the_status_is_not_written_more_often_for_it():
    async def story(stage):
        async with engine(stage, Spec("echo", images=V2)) as (made, book):
            writes = []
            remember = book.remember

            async def counted(entry, status):
                writes.append(status)
                return await remember(entry, status)

            book.remember = counted
            await at_rest(made, ConfigMapBook(stage.client, NS, "echo"))
        bare = [msgspec.structs.replace(one, leaving={}, lease_until="", holder="") for one in writes]
        again = [one for one, two in pairwise(bare) if one == two]
        assert len(again) <= 6, "one for each pod that is gone, and the lease"

    play(story, limit=600)


def test_of_very_many_pods_some_are_written_down_and_the_rest_is_said():
    found = scene(KEPT + 100)
    pods = tuple(replace(one, uid=f"uid-{one.name}") for one in found.editions[0].members)
    found = replace(found, editions=(replace(found.editions[0], members=pods),))
    set_template = go(found, Step(Act.SET_TEMPLATE, "web", "because"))
    told = listed(found, set_template, lambda uid: True).status
    assert len(told.leaving) == KEPT
    assert told.notes[-1].text.startswith("100 more pods are to end")
    later = replace(found, status=told)
    assert (
        listed(later, go(later, Step(Act.SET_TEMPLATE, "web", "because")), lambda uid: True).status.notes == told.notes
    )


def test_of_pods_that_were_never_ready_nobody_can_have_lost_a_request():
    found = scene(2)
    first_, second = (replace(one, uid=f"uid-{one.name}") for one in found.editions[0].members)
    pods = (first_, replace(second, is_ready=False))
    found = replace(found, editions=(replace(found.editions[0], members=pods),))
    told = listed(found, go(found, Step(Act.SET_TEMPLATE, "web", "because")), lambda uid: False).status
    assert list(told.leaving) == [first_.name]


def test_how_pods_of_another_workload_end_is_not_the_release_s_affair():
    async def story(stage):
        await second(stage)
        async with engine(stage, SPECS["rolling"]) as (made, book):
            running = asyncio.create_task(at_rest(made, book))
            await asyncio.sleep(1)
            other = min(name for name in [one["metadata"]["name"] for one in await stage.pods()] if "other" in name)
            await stage.delete(other, grace=0)
            status = await running
            assert status.unverified == ()

    play(story, limit=600)
