"""A Release is deleted while labels are put in place: native objects go on, and nothing is left half (S33)."""

from __future__ import annotations

import asyncio
import json

import pytest
from operator_stage import NS, Hand, asked, deleted, play, until
from stage import deployment, is_ready

from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, EVENTS, REPLICASETS, SERVICES, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.model.names import PREPARED

STRATEGIES = {
    "bluegreen": {"service": "echo"},
    "rainbow": {"service": "echo"},
}
WRITES = range(1, 9)
"""Pause, the ReplicaSet's template, three pods, the Deployment's template, resume, the ReplicaSet's annotation."""


async def labelling(stage, strategy, writes):
    """A release whose operator is killed right after so many writes to the Deployment, its ReplicaSet and its pods."""
    hand = Hand(stage)
    count, exchange = 0, hand.wire.exchange

    async def counted(request):
        nonlocal count
        answer = await exchange(request)
        if request.method == "PATCH" and any(
            f"/{one}/" in request.path for one in ("deployments", "replicasets", "pods")
        ):
            count += 1
            if count == writes:
                hand.wire.is_cut = True
                await asyncio.Event().wait()
        return answer

    hand.wire.exchange = counted
    await asked(stage, images={"echo": "tidegate/echo:v2"}, strategy=strategy, **{strategy: STRATEGIES[strategy]})
    while not hand.wire.is_cut:
        await asyncio.sleep(0.05)
    await hand.kill()


async def listed(stage):
    """Names of the pods that the Service's slices have as ready."""
    slices = (await stage.api.list(ENDPOINTSLICES, Selection(NS, "kubernetes.io/service-name=echo"))).items
    ends = [one for obj in slices for one in obj.get("endpoints") or () if one["conditions"].get("ready")]
    return sorted(one["targetRef"]["name"] for one in ends)


async def is_whole(stage, before):
    """Nothing holds the Deployment, no rollout has begun, and the Service has every pod."""
    found = await stage.api.get(DEPLOYMENTS, "echo", NS)
    assert not found["spec"].get("paused")
    assert "revisionHistoryLimit" not in found["spec"] or found["spec"]["revisionHistoryLimit"] == 10
    own = (await stage.api.list(REPLICASETS, Selection(NS))).items
    for one in (found, *own):
        assert PREPARED not in (one["metadata"].get("annotations") or {}), one["kind"]
    assert len(own) == 1, "another ReplicaSet would be a rollout"
    pods = await stage.pods()
    assert sorted(one["metadata"]["name"] for one in pods) == before
    assert all(one["metadata"].get("ownerReferences") and is_ready(one) for one in pods)
    assert await listed(stage) == before
    services = [one["metadata"]["name"] for one in (await stage.api.list(SERVICES, Selection(NS))).items]
    assert services == ["echo"]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("writes", WRITES)
def test_deleted_while_labels_are_put_in_place_no_rollout_begins_and_the_next_release_goes_through(strategy, writes):
    async def story(stage):
        before = sorted(one["metadata"]["name"] for one in await stage.pods())
        await labelling(stage, strategy, writes)
        second = Hand(stage, "operator-b", port=18082)
        assert await deleted(stage) < 60
        await asyncio.sleep(20)
        await is_whole(stage, before)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        await second.leave()

    play(story, deployment(gate=False), limit=1500)


@pytest.mark.parametrize("writes", [2, 6])
def test_what_may_not_be_labelled_to_its_end_is_told_and_the_finalizer_goes(writes):
    async def story(stage):
        await labelling(stage, "bluegreen", writes)
        second = Hand(stage, "operator-b", port=18082)

        async def forbidden(request):
            if request.method == "PATCH" and request.path.split("/")[-2] in ("deployments", "replicasets", "pods"):
                raise ApiError(403, "Forbidden", "may not patch that")

        second.wire.fault = forbidden
        assert await deleted(stage) < 60
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert found["spec"]["paused"], "resumed as it is, it would roll out"
        events = (await stage.api.list(EVENTS, Selection(NS))).items
        told = [one["message"] for one in events if one["reason"] == "LeftBehind"]
        assert any("half of it with its label" in one for one in told), told
        await second.leave()

    play(story, deployment(gate=False), limit=900)


def test_a_deployment_that_prepare_has_paused_is_left_to_it():
    """Its record is the same; the verb has a way on, and a way back."""

    async def story(stage):
        hand = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        record = {"token": "t", "phase": "preparing", "key": "traffic.tidegate.dev/echo", "value": "on"}
        for kind in (SERVICES, DEPLOYMENTS):
            found = await stage.api.get(kind, "echo", NS)
            steps = [{"op": "add", "path": "/metadata/annotations", "value": {PREPARED: json.dumps(record)}}]
            if kind is DEPLOYMENTS:
                steps.append({"op": "add", "path": "/spec/paused", "value": True})
                steps[0]["value"] |= found["metadata"].get("annotations") or {}
            await stage.client.patch(kind, "echo", Patch(steps, "json"), NS)
        assert await deleted(stage) < 10
        found = await stage.api.get(DEPLOYMENTS, "echo", NS)
        assert found["spec"]["paused"] and PREPARED in found["metadata"]["annotations"]
        await hand.leave()

    play(story, deployment(), limit=900)
