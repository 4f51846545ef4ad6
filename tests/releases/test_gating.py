"""The gate put into what runs: somebody is at work on it for as long as it is half done, and no rollout comes of it."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
from scene import Mortal, play
from stage import NS, deployment
from troupe import SPECS, at_work, engine

from tidegate import vtime
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import plan_release
from tidegate.client.release.gate import GATING, free_gatings, gate_in_place, revision_of
from tidegate.client.release.ground import Failed
from tidegate.engine.act import instant
from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.lab import assembly
from tidegate.release.template import is_gated


class Slow:
    """An API that takes its time over everything."""

    def __init__(self, exchange, seconds):
        self.exchange, self.seconds = exchange, seconds

    async def __call__(self, request):
        if ("watch", "1") not in request.query and ("watch", "true") not in request.query:
            await asyncio.sleep(self.seconds)
        return await self.exchange(request)


def slow(stage, seconds):
    return KubeClient(Slow(stage.lab.lab.exchange, seconds), "lab")


async def lapses(stage, book):
    """When nobody's lease stood though somebody is at work; for ever."""
    found = []
    try:
        while True:
            status = (await book.read()).status
            if status.holder and status.lease_until < instant(vtime.now()):
                found.append((stage.now, status.lease_until, status.reason))
            await asyncio.sleep(0.5)
    except asyncio.CancelledError:
        return found


@pytest.mark.parametrize("strategy", ["rolling", "bluegreen"])
@pytest.mark.parametrize("count", [3, 6])
def test_its_lease_stands_for_as_long_as_an_engine_puts_the_gate_or_labels_in_place(strategy, count):
    async def story(stage):
        book = ConfigMapBook(stage.client, NS, "echo")
        await book.begin(SPECS[strategy])
        client = slow(stage, 1.5 if strategy == "rolling" else 0.9)
        looking = asyncio.create_task(lapses(stage, book))
        async with at_work(stage, "echo", client=client) as made:
            began = stage.now
            running = asyncio.create_task(made.run(1000))
            while stage.now - began < 1000 and not await is_over(stage, strategy):
                await asyncio.sleep(0.5)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        looking.cancel()
        assert await looking == []
        assert await is_over(stage, strategy)

    play(story, deployment(count, gate=False), limit=1200)


async def is_over(stage, strategy):
    """Whether all of it is gated (rolling), or labelled."""
    made = await stage.api.get(DEPLOYMENTS, "echo", NS)
    if made["spec"].get("paused"):
        return False
    if strategy == "rolling":
        return is_gated(made["spec"]["template"])
    return "tidegate.dev/revision" in made["spec"]["template"]["metadata"]["labels"] and all(
        "tidegate.dev/revision" in one["metadata"]["labels"] for one in await stage.pods()
    )


async def halfway(stage, count):
    """Whoever puts the gate into it is killed right after so many writes: the mark, the ReplicaSet, the Deployment."""
    mortal = Mortal(stage.lab.lab.exchange, count)

    async def gating():
        while not mortal.died.is_set():
            found = await stage.api.get(DEPLOYMENTS, "echo", NS)
            with contextlib.suppress(ApiError):  # its controller wrote meanwhile
                await gate_in_place(KubeClient(mortal, "lab"), found, (await own(stage))[0])

    dying = asyncio.create_task(gating())
    await mortal.died.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)


async def own(stage):
    return (await stage.api.list(REPLICASETS, Selection(NS))).items


def has_mark(obj):
    return GATING in (obj["metadata"].get("annotations") or {})


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_what_was_left_half_gated_is_freed_without_a_rollout(writes):
    async def story(stage):
        before = sorted(one["metadata"]["name"] for one in await stage.pods())
        await halfway(stage, writes)
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert has_mark(found) and found["spec"]["paused"]
        assert await free_gatings(stage.client) == (f"{NS}/echo",)
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert not found["spec"].get("paused") and not has_mark(found)
        await asyncio.sleep(20)
        assert sorted(one["metadata"]["name"] for one in await stage.pods()) == before
        assert len(await own(stage)) == 1, "another ReplicaSet would be a rollout"
        made = (await own(stage))[0]["spec"]["template"]
        assert is_gated(made) == is_gated(found["spec"]["template"])
        assert await free_gatings(stage.client) == ()

    play(story, deployment(gate=False), limit=600)


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_deployment_that_its_user_paused_stays_paused(writes):
    async def story(stage):
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"paused": True}}), NS)
        await asyncio.sleep(1)
        await halfway(stage, writes)
        await asyncio.sleep(1)
        await gate_in_place(stage.client, await stage.api.get(DEPLOYMENTS, "echo", NS), (await own(stage))[0])
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert found["spec"]["paused"] and is_gated(found["spec"]["template"]) and not has_mark(found)

    play(story, deployment(gate=False), limit=600)


async def gate(stage, client):
    """As an engine does it, turn after turn."""
    while True:
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        if is_gated(found["spec"]["template"]) and not has_mark(found):
            return
        with contextlib.suppress(ApiError):  # its controller wrote meanwhile
            await gate_in_place(client, found, (await own(stage))[0])
        await asyncio.sleep(0.2)


def test_a_half_gated_deployment_that_somebody_resumed_is_paused_before_anything_else_changes():
    async def story(stage):
        before = sorted(one["metadata"]["name"] for one in await stage.pods())
        await halfway(stage, 1)
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"paused": None}}), NS)
        await asyncio.sleep(1)
        await gate(stage, slow(stage, 0.5))
        await asyncio.sleep(20)
        assert sorted(one["metadata"]["name"] for one in await stage.pods()) == before
        assert len(await own(stage)) == 1, "another ReplicaSet would be a rollout of pods without a gate"
        assert not (await stage.api.get(DEPLOYMENTS, "echo", NS))["spec"].get("paused")

    play(story, deployment(gate=False), limit=600)


class LateSets:
    """The API as controllers have it whose watch of ReplicaSets is behind: each kind has a watch of its own."""

    def __init__(self, api, seconds):
        self._api, self._seconds = api, seconds

    def __getattr__(self, name):
        return getattr(self._api, name)

    async def watch(self, resource, *args, **kwargs):
        async for event in self._api.watch(resource, *args, **kwargs):
            if resource is REPLICASETS:
                await asyncio.sleep(self._seconds)
            yield event


def test_it_is_resumed_once_the_controllers_know_of_the_replicaset_too(monkeypatch):
    run = assembly.run_controllers
    monkeypatch.setattr(assembly, "run_controllers", lambda api, config: run(LateSets(api, 1.5), config))

    async def story(stage):
        await asyncio.sleep(10)
        before = sorted(one["metadata"]["name"] for one in await stage.pods())
        await gate(stage, stage.client)
        await asyncio.sleep(20)
        assert sorted(one["metadata"]["name"] for one in await stage.pods()) == before
        assert len(await own(stage)) == 1, "another ReplicaSet would be a rollout of pods without a gate"

    play(story, deployment(gate=False), limit=600)


def with_a_hook_of_its_own():
    made = deployment(gate=False)
    made["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"exec": {"command": ["quit"]}}}
    return made


def without_hooks():
    template = deployment(gate=False)["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "tidegate/echo:v2"
    return template


@pytest.mark.parametrize("strategy", list(SPECS))
def test_pods_that_run_and_cannot_have_a_gate_refuse_a_release_that_would_drain_them(strategy):
    async def story(stage):
        spec = msgspec.structs.replace(SPECS[strategy], images={}, template=without_hooks())
        book = ConfigMapBook(stage.client, NS, "echo")
        plan = await plan_release(stage.client, book, NS, spec)
        assert any("hook of its own" in one and "--ungated proceed" in one for one in plan.refusals), plan.refusals
        agreed = msgspec.structs.replace(spec, ungated="proceed")
        assert (await plan_release(stage.client, book, NS, agreed)).refusals == ()
        async with engine(stage, spec) as (made, _):
            status = await made.run(20)
            assert "hook of its own" in status.reason
            found = await stage.api.get(DEPLOYMENTS, "echo", NS)
            assert not found["spec"].get("paused") and not has_mark(found)

    play(story, with_a_hook_of_its_own(), limit=600)


def test_what_cannot_have_a_gate_is_not_paused_for_one_and_what_was_is_resumed():
    async def story(stage):
        found, made = await stage.api.get(DEPLOYMENTS, "echo", NS), (await own(stage))[0]
        with pytest.raises(Failed, match="hook of its own"):
            await gate_in_place(stage.client, found, made)
        assert await stage.api.get(DEPLOYMENTS, "echo", NS) == found
        paused = {"metadata": {"annotations": {GATING: revision_of(made)}}, "spec": {"paused": True}}
        await stage.api.patch(DEPLOYMENTS, "echo", Patch(paused), NS)
        await asyncio.sleep(1)
        await gate_in_place(stage.client, await stage.api.get(DEPLOYMENTS, "echo", NS), made)
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert not found["spec"].get("paused") and not has_mark(found)
        assert [one["spec"] for one in await own(stage)] == [made["spec"]]

    play(story, with_a_hook_of_its_own(), limit=600)


def test_all_that_were_freed_are_named_though_another_hand_wrote_in_between():
    async def story(stage):
        other = deployment(1, gate=False)
        other["metadata"]["name"] = "other"
        other["spec"]["selector"]["matchLabels"] = other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
        await stage.api.create(DEPLOYMENTS, other)
        await asyncio.sleep(5)
        for name in ("echo", "other"):
            half = {"metadata": {"annotations": {GATING: "nothing"}}, "spec": {"paused": True}}
            await stage.api.patch(DEPLOYMENTS, name, Patch(half), NS)
        await asyncio.sleep(2)
        resumed = []

        async def writing(request):
            if request.method == "PATCH" and "/deployments/" in request.path:
                resumed.append(request.path)
                if len(resumed) == 2:
                    raise ApiError(409, "Conflict", "the object has been modified")
            return await stage.lab.lab.exchange(request)

        assert sorted(await free_gatings(KubeClient(writing, "lab"))) == [f"{NS}/echo", f"{NS}/other"]

    play(story, deployment(1, gate=False), limit=600)
