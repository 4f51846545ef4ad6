"""Label mode in a whole virtual cluster: cut, verified, tombstoned, verified again, deleted."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from stage import NS, deployment, first, node_of, other_node, play

from tidegate.client import VerbOptions, carry_out, drain_pod, plan_pod, status_of
from tidegate.client.restore import restore_pod
from tidegate.kube.api import PODDISRUPTIONBUDGETS, PODS, SERVICES, Patch
from tidegate.kube.errors import ApiError
from tidegate.model.names import RESERVATIONS, TOMBSTONE, Ending

OPTIONS = VerbOptions(seed=0, replace=False)
"""What a drain does from the cut on; replacement before removal has stories of its own."""
UNGATED = deployment(gate=False)


async def labels_of(stage, name):
    return (await stage.api.get(PODS, name, NS))["metadata"].get("labels") or {}


async def reserved(stage):
    service = await stage.api.get(SERVICES, "echo", NS)
    return json.loads((service["metadata"].get("annotations") or {}).get(RESERVATIONS, "{}"))


def test_a_pod_is_drained_in_two_rounds_and_deleted_verified():
    async def story(stage):
        name, states = await first(stage), []
        result = await drain_pod(stage.client, NS, name, OPTIONS, lambda drain: states.append(drain.state.name))
        assert result.result is Ending.VERIFIED
        assert states.count("FENCED") == 2
        assert 2 <= result.seconds < 2.6
        with pytest.raises(ApiError):
            await stage.api.get(PODS, name, NS)
        assert await reserved(stage) == {}

    play(story, UNGATED)


def test_a_frozen_node_is_waited_for_and_named_when_the_deadline_comes():
    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        stage.fault("proxy-freeze", straggler, 40)
        result = await drain_pod(stage.client, NS, name, VerbOptions(replace=False, timeout_seconds=10, seed=0))
        assert result.result is Ending.TIMED_OUT
        assert result.stragglers == (straggler,)
        assert (await labels_of(stage, name))["app"] == "tidegate-cut", "hold: it stays cut"
        # A run again goes on from there, and may be done by somebody else.
        stage.fault("clear", straggler)
        again = await drain_pod(stage.client, NS, name, VerbOptions(replace=False, seed=1))
        assert again.result is Ending.VERIFIED
        with pytest.raises(ApiError):
            await stage.api.get(PODS, name, NS)

    play(story, UNGATED)


@pytest.mark.parametrize("after", [0.01, 0.3, 1.06, 1.08, 1.1, 1.5, 2.1])
def test_a_drain_killed_anywhere_is_continued_by_the_next(after):
    async def story(stage):
        name = await first(stage)
        running = asyncio.create_task(drain_pod(stage.client, NS, name, OPTIONS))
        await asyncio.sleep(after)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        try:
            result = await drain_pod(stage.client, NS, name, VerbOptions(replace=False, seed=1))
        except ApiError as error:
            assert error.is_not_found and after > 2
        else:
            assert result.result in (Ending.VERIFIED, Ending.REFUSED)
        if after < 2:
            assert result.result is Ending.VERIFIED

    play(story, UNGATED)


def test_a_pod_whose_labels_are_given_back_is_cut_again_and_starts_over():
    async def story(stage):
        name, states = await first(stage), []
        stage.fault("proxy-freeze", await other_node(stage, name), 6)
        running = asyncio.create_task(
            drain_pod(stage.client, NS, name, OPTIONS, lambda drain: states.append(drain.state.name))
        )
        await asyncio.sleep(2)
        assert states[-1] == "FENCED"
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "echo"}}}), NS)
        result = await running
        assert result.result is Ending.VERIFIED
        assert states.count("CLEAN") == 3, "the first round twice"

    play(story, UNGATED)


def test_a_second_service_that_starts_to_select_the_pod_starts_it_over():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 5)
        running = asyncio.create_task(
            drain_pod(stage.client, NS, name, VerbOptions(replace=False, timeout_seconds=12, seed=0))
        )
        await asyncio.sleep(2)
        service = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "sneaky", "namespace": NS},
            "spec": {"selector": {"app": "tidegate-cut"}, "ports": [{"name": "http", "port": 81, "targetPort": 8080}]},
        }  # fmt: skip
        await stage.api.create(SERVICES, service)
        result = await running
        assert result.result is Ending.TIMED_OUT
        assert "sneaky" in result.reason

    play(story, UNGATED)


def test_the_floor_refuses_and_changes_nothing():
    async def story(stage):
        name = await first(stage)
        before = await stage.api.get(PODS, name, NS)
        result = await drain_pod(stage.client, NS, name, VerbOptions(replace=False, floor=3, seed=0))
        assert result.result is Ending.REFUSED
        assert "would keep 2 other ready endpoints" in result.reason
        assert await stage.api.get(PODS, name, NS) == before
        assert await reserved(stage) == {}

    play(story, UNGATED)


def test_force_overrides_a_floor_and_the_result_says_so():
    async def story(stage):
        result = await drain_pod(
            stage.client, NS, await first(stage), VerbOptions(replace=False, floor=3, force=True, seed=0)
        )
        assert result.result is Ending.FORCED
        assert "the floor is 3" in result.reason

    play(story, UNGATED)


def test_two_drains_at_once_count_against_each_others_floor():
    manifest = deployment(replicas=2, gate=False)

    async def story(stage):
        names = sorted(pod["metadata"]["name"] for pod in await stage.pods())
        plans = [await plan_pod(stage.client, (NS, name), "drain", OPTIONS, True) for name in names]
        assert not any(plan.refused(OPTIONS) for plan in plans), "each alone would be fine"
        results = await asyncio.gather(*(carry_out(stage.client, plan, OPTIONS) for plan in plans))
        assert sorted(result.result.value for result in results) == ["refused", "verified"]

    play(story, manifest)


def test_a_disruption_budget_that_allows_nothing_refuses():
    async def story(stage):
        budget = {
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "all", "namespace": NS},
            "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "echo"}}},
        }  # fmt: skip
        await stage.api.create(PODDISRUPTIONBUDGETS, budget)
        await asyncio.sleep(0.5)
        result = await drain_pod(stage.client, NS, await first(stage), OPTIONS)
        assert result.result is Ending.REFUSED
        assert "PodDisruptionBudget all" in result.reason

    play(story, UNGATED)


def test_a_pod_that_is_being_deleted_is_refused():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 4)
        await stage.delete(name)
        result = await drain_pod(stage.client, NS, name, OPTIONS)
        assert result.result is Ending.REFUSED
        await stage.gone(name)

    play(story)


def test_an_unknown_pod_is_an_error_and_leaves_nothing():
    async def story(stage):
        with pytest.raises(ApiError) as caught:
            await drain_pod(stage.client, NS, "nope", OPTIONS)
        assert caught.value.is_not_found

    play(story, UNGATED)


def test_a_pod_deleted_by_somebody_else_in_the_middle_is_bypassed():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 6)
        running = asyncio.create_task(drain_pod(stage.client, NS, name, OPTIONS))
        await asyncio.sleep(2)
        await stage.delete(name)
        result = await running
        assert result.result is Ending.BYPASSED

    play(story, UNGATED)


def test_restore_gives_the_labels_back_at_the_deadline():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 60)
        before = await labels_of(stage, name)
        options = VerbOptions(replace=False, timeout_seconds=5, on_deadline="restore", seed=0)
        result = await drain_pod(stage.client, NS, name, options)
        assert result.result is Ending.TIMED_OUT and f"`tidegate restore pod/{name} -n {NS}`" in result.reason
        # Its traffic, that is: with its owner's label too there would be one too many, and one that serves would go.
        kept = {"pod-template-hash": "tidegate-isolated", "tidegate.dev/held": "isolated"}
        assert await labels_of(stage, name) == before | kept
        await asyncio.sleep(5)
        assert len(await stage.pods()) == 4
        stage.fault("clear", await other_node(stage, name))
        assert (await restore_pod(stage.client, (NS, name), OPTIONS)).result is Ending.VERIFIED
        assert await labels_of(stage, name) == before

    play(story, UNGATED)


def test_proceed_deletes_at_the_deadline_and_does_not_call_it_verified():
    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        stage.fault("proxy-freeze", straggler, 60)
        options = VerbOptions(replace=False, timeout_seconds=5, on_deadline="proceed", seed=0)
        result = await drain_pod(stage.client, NS, name, options)
        assert (result.result, result.stragglers) == (Ending.TIMED_OUT, (straggler,))
        with pytest.raises(ApiError):
            await stage.api.get(PODS, name, NS)

    play(story, UNGATED)


def test_a_connection_in_flight_is_waited_for_by_the_hour_if_need_be():
    async def story(stage):
        name = await first(stage)
        pod = await stage.api.get(PODS, name, NS)
        reader, writer = await asyncio.open_connection(pod["status"]["podIP"], 8080)
        writer.write(b"GET /sleep?ms=100000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(0.1)
        result = await drain_pod(stage.client, NS, name, OPTIONS)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        assert result.result is Ending.VERIFIED
        assert result.seconds > 99

    play(story, UNGATED)


def test_a_cluster_without_tidegate_gets_the_settle_time_and_assumed():
    async def story(stage):
        began = stage.now
        result = await drain_pod(
            stage.client, NS, await first(stage), VerbOptions(replace=False, settle_seconds=9, seed=0)
        )
        assert result.result is Ending.ASSUMED
        assert "9 s of settle time" in result.reason
        assert result.epoch is None
        assert stage.now - began > 18, "both rounds settle"

    play(story, UNGATED, addons=())


def test_a_gated_pod_drained_by_labels_still_ends_verified():
    async def story(stage):
        name = await first(stage)
        result = await drain_pod(stage.client, NS, name, OPTIONS)
        assert result.result is Ending.VERIFIED
        assert stage.result(name)["result"] == "verified"

    play(story)


def test_a_dry_plan_changes_nothing():
    async def story(stage):
        name = await first(stage)
        before = await stage.api.get(PODS, name, NS)
        plan = await plan_pod(stage.client, (NS, name), "drain", OPTIONS, True)
        assert plan.cut.labels == {"app": "tidegate-cut"}
        assert any("makes a replacement" in line for line in plan.consequences)
        assert await stage.api.get(PODS, name, NS) == before

    play(story, UNGATED)


def test_the_status_of_a_service_names_the_straggler():
    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        stage.fault("proxy-freeze", straggler, 8)
        await stage.delete(name)
        await asyncio.sleep(3)
        document = (await status_of(stage.client, "svc", NS, "echo")).document
        [drain] = document["drains"]
        assert drain["pod"] == name
        assert [one["node"] for one in drain["stragglers"]] == [straggler]
        entry = next(one for one in document["services"][0]["endpoints"] if one["pod"] == name)
        assert (entry["terminating"], entry["routed"]) == (True, False)
        pod = (await status_of(stage.client, "pod", NS, name)).document
        routed = {node["node"]: bool(node["routes"]) for node in pod["nodes"]}
        assert routed == {node: node == straggler for node in routed}
        await stage.gone(name)

    play(story)


def test_the_status_says_which_node_cannot_be_asked_and_that_nobody_coordinates():
    async def story(stage):
        document = (await status_of(stage.client, "svc", NS, "echo")).document
        assert all("there is no agent" in node["problem"] for node in document["nodes"])
        assert "no coordinator" in document["problems"][0]

    play(story, UNGATED, addons=())


def test_a_tombstoned_pod_is_never_taken_back_by_its_replica_set():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await node_of(stage, name), 1)
        running = asyncio.create_task(drain_pod(stage.client, NS, name, OPTIONS))
        while TOMBSTONE not in (labels := await labels_of(stage, name)):
            await asyncio.sleep(0.01)
        assert set(labels.values()) - {labels[TOMBSTONE]} == {"tidegate-tombstone"}
        assert (await running).result is Ending.VERIFIED

    play(story, UNGATED)
