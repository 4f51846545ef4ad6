"""A Release that is deleted mid-way: native objects go on, nothing is stranded, nothing is dropped (S33)."""

from __future__ import annotations

import asyncio

import pytest
from operator_stage import NS, Hand, asked, deleted, play, seen, until
from stage import deployment

from tidegate.kube.api import DEPLOYMENTS, RELEASES, REPLICASETS, SERVICES, Selection
from tidegate.kube.errors import ApiError
from tidegate.model.names import HELD


async def rolled_out(stage, image, replicas=3):
    """Until the Deployment controller has brought every pod to ``image`` by itself."""
    for _ in range(1200):
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        status = found.get("status") or {}
        is_done = status.get("updatedReplicas") == status.get("availableReplicas") == status.get("replicas") == replicas
        if is_done and found["spec"]["template"]["spec"]["containers"][0]["image"] == image:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(found["status"])


async def paused_by_us(stage):
    """A release is at rest, and with it the Deployment that it has paused."""
    await asked(stage, images={"echo": "tidegate/echo:v2"})
    await asyncio.sleep(0.2)
    await asked(stage, paused=True)
    await until(stage, "paused")
    assert (await stage.api.get(DEPLOYMENTS, "echo", NS))["spec"].get("paused")


@pytest.mark.parametrize("after", [0.05, 0.3, 0.6, 1.0])
def test_deleted_mid_way_a_rolling_release_is_ended_by_the_deployment_controller_and_its_gates(after):
    async def story(stage):
        hand = Hand(stage)
        old = [one["metadata"]["name"] for one in await stage.pods()]
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(after)
        begun = (await stage.api.get(DEPLOYMENTS, "echo", NS))["metadata"]["generation"] > 1
        assert await deleted(stage) < 5
        if begun:
            await rolled_out(stage, "tidegate/echo:v2")
            for name in old:
                await stage.gone(name)
            assert {(stage.result(name) or {}).get("result") for name in old} == {"verified"}
        assert (await stage.api.get(SERVICES, "echo", NS))["spec"]["selector"] == {"app": "echo"}
        await hand.leave()

    play(story)


def test_a_deployment_that_we_paused_rolls_on_when_its_release_is_deleted():
    async def story(stage):
        hand = Hand(stage)
        await paused_by_us(stage)
        await deleted(stage)
        assert not (await rolled_out(stage, "tidegate/echo:v2"))["spec"].get("paused")
        await hand.leave()

    play(story)


def test_the_finalizer_goes_although_nothing_may_be_written_to_the_deployment():
    async def story(stage):
        hand = Hand(stage)
        await paused_by_us(stage)

        async def forbidden(request):
            if request.method == "PATCH" and "/deployments/" in request.path:
                raise ApiError(403, "Forbidden", "may not patch deployments")

        hand.wire.fault = forbidden
        assert await deleted(stage) < 10
        await hand.leave()

    play(story)


def test_an_invalid_release_can_be_deleted():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        await asked(stage, strategy="canary", canary={"steps": []})
        await asyncio.sleep(2)
        assert await deleted(stage) < 5
        await hand.leave()

    play(story, deployment(replicas=1), is_strict=False)


def test_a_release_that_is_deleted_while_no_operator_runs_goes_when_one_comes():
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(0.3)
        await hand.kill()
        await stage.client.delete(RELEASES, "echo", NS)
        await asyncio.sleep(5)
        assert (await seen(stage))["metadata"]["deletionTimestamp"]
        again = Hand(stage, "operator-b", port=18082)
        with pytest.raises(ApiError):
            for _ in range(300):
                await seen(stage)
                await asyncio.sleep(0.1)
        await rolled_out(stage, "tidegate/echo:v2")
        await again.leave()

    play(story)


async def held(stage):
    """Pods that a verb holds: out of their Services or let go by their owner."""
    return [one["metadata"]["name"] for one in await stage.pods() if HELD in (one["metadata"].get("labels") or {})]


@pytest.mark.parametrize("after", [0.5, 1.5, 3.5])
def test_deleted_while_a_pod_without_a_gate_is_drained_by_label_that_pod_comes_to_its_end(after):
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(after)
        begun = await held(stage)
        assert await deleted(stage) < 30
        assert await held(stage) == [], "nobody is left behind"
        assert len(await stage.pods()) == 2
        assert {(stage.result(name) or {}).get("result") for name in begun} <= {"verified"}
        await hand.leave()

    play(story, deployment(replicas=2, gate=False))


def test_at_its_end_a_release_waits_for_the_last_pod_that_is_drained_by_label():
    async def story(stage):
        hand = Hand(stage)
        old = [one["metadata"]["name"] for one in await stage.pods()]
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        await asyncio.sleep(30)
        assert await held(stage) == []
        assert {(stage.result(name) or {}).get("result") for name in old} == {"verified"}
        await hand.leave()

    play(story, deployment(replicas=2, gate=False))


@pytest.mark.parametrize("writes", [1, 2, 3, 4, 5])
def test_deleted_while_the_gate_is_put_in_place_no_rollout_begins(writes):
    """Killed after so many writes of the release, and deleted: a ReplicaSet with the gate is not left alone with it."""

    async def story(stage):
        before = sorted(one["metadata"]["name"] for one in await stage.pods())
        hand = Hand(stage)
        hand.wire.kill_at = None
        count = 0
        exchange = hand.wire.exchange

        async def counted(request):
            nonlocal count
            answer = await exchange(request)
            if request.method == "PATCH" and "/apis/apps/v1/" in request.path:
                count += 1
                if count == writes:
                    hand.wire.is_cut = True
                    await asyncio.Event().wait()
            return answer

        hand.wire.exchange = counted
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        while not hand.wire.is_cut:
            await asyncio.sleep(0.05)
            if count >= 3 and (await seen(stage)).get("status", {}).get("notes"):
                break
        await hand.kill()
        second = Hand(stage, "operator-b", port=18082)
        await deleted(stage, within=400)
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert not found["spec"].get("paused")
        assert "tidegate.dev/gating" not in found["metadata"].get("annotations", {})
        if found["spec"]["template"]["spec"]["containers"][0]["image"].endswith("v1"):
            await asyncio.sleep(20)
            own = (await stage.client.list(REPLICASETS, Selection(NS))).items
            assert len(own) == 1, "another ReplicaSet would be a rollout"
            left = sorted(one["metadata"]["name"] for one in await stage.pods())
            assert len(left) == len(before)
        await second.leave()

    play(story, deployment(gate=False), limit=1500)
