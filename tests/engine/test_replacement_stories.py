"""Replacement before removal: the owner makes another pod while ours still serves, and only then is it cut."""

from __future__ import annotations

import asyncio

import pytest
from stage import NS, deployment, first, play
from under_load import Floor, Load, ready_endpoints, reserved

from tidegate.client import VerbOptions, cut_pod, drain_pod, plan_pod
from tidegate.kube.api import DEPLOYMENTS, NODES, PODDISRUPTIONBUDGETS, PODS, SERVICES, Patch
from tidegate.kube.errors import ApiError
from tidegate.model.names import Ending

OPTIONS = VerbOptions(seed=0)
ONE = deployment(replicas=1, gate=False)
FOUR = deployment(replicas=4, gate=False)


@pytest.mark.parametrize("manifest", [ONE, FOUR], ids=["1 replica", "4 replicas"])
def test_a_pod_is_drained_under_load_without_a_lost_request_and_capacity_never_dips(manifest):
    async def story(stage):
        name, floor = await first(stage), Floor(stage)
        replicas = manifest["spec"]["replicas"]
        watching = asyncio.create_task(floor.watch())
        async with Load(stage).running():
            result = await drain_pod(stage.client, NS, name, OPTIONS)
        watching.cancel()
        assert result.result is Ending.VERIFIED, result
        assert floor.least == replicas
        with pytest.raises(ApiError):
            await stage.api.get(PODS, name, NS)
        assert len(await stage.pods()) == replicas
        assert await reserved(stage) == {}

    play(story, manifest)


async def cordoned(stage, is_cordoned=True):
    for obj in (await stage.api.list(NODES)).items:
        await stage.api.patch(NODES, obj["metadata"]["name"], Patch({"spec": {"unschedulable": is_cordoned}}))


async def labels_of(stage, name):
    return (await stage.api.get(PODS, name, NS))["metadata"]["labels"]


def test_a_replacement_that_never_gets_ready_holds_the_pod_in_its_traffic_and_says_why():
    async def story(stage):
        name = await first(stage)
        await cordoned(stage)
        async with Load(stage).running():
            result = await drain_pod(stage.client, NS, name, VerbOptions(seed=0, timeout_seconds=8))
        assert result.result is Ending.TIMED_OUT
        assert "has 3 of 4 ready pods" in result.reason and "is Pending: Unschedulable" in result.reason
        labels = await labels_of(stage, name)
        assert labels["app"] == "echo" and labels["pod-template-hash"] == "tidegate-isolated"
        assert await reserved(stage) == {}
        # Run again once there is room: it goes on from there, and makes no second replacement.
        await cordoned(stage, False)
        assert (await drain_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        assert len(stage.names) == 5

    play(story, FOUR)


def test_restore_gives_the_labels_back_and_the_owner_takes_its_unready_pod_away():
    async def story(stage):
        name = await first(stage)
        before = {one["metadata"]["name"] for one in await stage.pods()}
        labels = await labels_of(stage, name)
        await cordoned(stage)
        async with Load(stage).running():
            options = VerbOptions(seed=0, timeout_seconds=8, on_deadline="restore")
            result = await drain_pod(stage.client, NS, name, options)
            assert result.result is Ending.TIMED_OUT and "labels were given back" in result.reason
            await asyncio.sleep(3)
        assert {one["metadata"]["name"] for one in await stage.pods()} == before
        assert await labels_of(stage, name) == labels

    play(story, FOUR)


@pytest.mark.parametrize(("floor", "ending"), [(3, Ending.VERIFIED), (4, Ending.TIMED_OUT)])
def test_proceed_cuts_without_the_replacement_only_where_the_floor_holds(floor, ending):
    async def story(stage):
        name = await first(stage)
        await cordoned(stage)
        options = VerbOptions(seed=0, timeout_seconds=8, on_deadline="proceed", floor=floor)
        result = await drain_pod(stage.client, NS, name, options)
        assert result.result is ending
        if ending is Ending.TIMED_OUT:
            assert "the floor is 4" in result.reason
            assert (await labels_of(stage, name))["app"] == "echo"

    play(story, FOUR)


def test_labels_given_back_at_the_cuts_deadline_leave_the_pod_with_its_traffic_and_its_replacement_alone():
    async def story(stage):
        name = await first(stage)
        running = asyncio.create_task(
            drain_pod(stage.client, NS, name, VerbOptions(seed=0, timeout_seconds=8, on_deadline="restore"))
        )
        while (await labels_of(stage, name))["app"] != "tidegate-cut":
            await asyncio.sleep(0.01)
        stage.fault("proxy-freeze", "node-2", 20)
        result = await running
        assert result.result is Ending.TIMED_OUT
        await asyncio.sleep(3)
        assert await ready_endpoints(stage) == 5, "nobody was deleted unverified"
        assert (await labels_of(stage, name))["app"] == "echo"
        stage.fault("clear", "node-2")
        assert (await drain_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED

    play(story, FOUR)


def test_an_owner_that_is_scaled_down_meanwhile_wants_no_replacement_and_the_floor_decides():
    async def story(stage):
        name = await first(stage)
        await cordoned(stage)
        running = asyncio.create_task(drain_pod(stage.client, NS, name, OPTIONS))
        await asyncio.sleep(3)
        assert not running.done()
        await stage.scale(3)
        result = await running
        assert result.result is Ending.VERIFIED
        assert len(await stage.pods()) == 3

    play(story, FOUR)


def test_a_pod_whose_revision_is_superseded_meanwhile_is_drained_without_a_replacement_of_that_revision():
    async def story(stage):
        name = await first(stage)
        await cordoned(stage)
        running = asyncio.create_task(drain_pod(stage.client, NS, name, OPTIONS))
        await asyncio.sleep(3)
        await cordoned(stage, False)
        template = {"spec": {"template": {"metadata": {"annotations": {"round": "2"}}}}}
        await stage.api.patch(DEPLOYMENTS, "echo", Patch(template), NS)
        assert (await running).result is Ending.VERIFIED
        await asyncio.sleep(20)
        assert len(await stage.pods()) == 4

    play(story, FOUR)


def test_a_replacement_that_one_node_does_not_route_to_is_waited_for_and_the_node_is_named():
    async def story(stage):
        name, reasons = await first(stage), []
        stage.fault("proxy-freeze", "node-2", 6)
        result = await drain_pod(stage.client, NS, name, OPTIONS, lambda drain: reasons.extend(drain.reasons))
        assert result.result is Ending.VERIFIED
        assert any("is not routed by node-2 yet" in line for line in reasons)

    play(story, FOUR)


def test_without_agents_the_replacement_gets_the_settle_time_and_the_result_is_assumed():
    async def story(stage):
        began = stage.now
        result = await drain_pod(stage.client, NS, await first(stage), VerbOptions(seed=0, settle_seconds=9))
        assert result.result is Ending.ASSUMED
        assert stage.now - began > 27, "the replacement settles, then both rounds"
        assert len(await stage.pods()) == 4

    play(story, FOUR, addons=())


def test_a_pod_that_somebody_else_deletes_while_it_waits_is_theirs():
    async def story(stage):
        name = await first(stage)
        await cordoned(stage)
        running = asyncio.create_task(drain_pod(stage.client, NS, name, OPTIONS))
        await asyncio.sleep(2)
        await stage.delete(name)
        result = await running
        assert result.result is Ending.BYPASSED and "somebody else" in result.reason

    play(story, FOUR)


def test_a_cut_replaces_first_where_it_is_asked_to_and_not_by_itself():
    async def story(stage):
        name, other = sorted(pod["metadata"]["name"] for pod in await stage.pods())[:2]
        floor = Floor(stage)
        watching = asyncio.create_task(floor.watch())
        assert (await cut_pod(stage.client, NS, name, VerbOptions(seed=0, replace=True))).result is Ending.VERIFIED
        assert floor.least == 4
        plan = await plan_pod(stage.client, (NS, other), "cut", OPTIONS, True)
        assert plan.isolation is None
        watching.cancel()

    play(story, FOUR)


def test_where_labels_do_not_allow_it_the_plan_says_that_capacity_dips_and_offers_prepare():
    async def story(stage):
        name = await first(stage)
        hashed = (await labels_of(stage, name))["pod-template-hash"]
        service = {"spec": {"selector": {"app": "echo", "pod-template-hash": hashed}}}
        await stage.api.patch(SERVICES, "echo", Patch(service), NS)
        plan = await plan_pod(stage.client, (NS, name), "drain", OPTIONS, True)
        assert plan.isolation is None
        [line] = [line for line in plan.consequences if "capacity dips by one" in line]
        assert "`tidegate prepare deploy/echo --service echo`" in line

    play(story, FOUR)


@pytest.mark.parametrize("minimum", [4, 5])
def test_a_budget_is_asked_at_the_cut_with_the_replacement_counted(minimum):
    async def story(stage):
        budget = {
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "all", "namespace": NS},
            "spec": {"minAvailable": minimum, "selector": {"matchLabels": {"app": "echo"}}},
        }  # fmt: skip
        await stage.api.create(PODDISRUPTIONBUDGETS, budget)
        await asyncio.sleep(0.5)
        name = await first(stage)
        result = await drain_pod(stage.client, NS, name, VerbOptions(seed=0, timeout_seconds=8))
        assert result.result is (Ending.VERIFIED if minimum == 4 else Ending.TIMED_OUT)
        assert minimum == 4 or "disruption budget all needs 5 healthy pods and has 5 currently" in result.reason

    play(story, FOUR)
