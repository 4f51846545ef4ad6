"""Isolated: out of its owner's hands, with its traffic or without."""

from __future__ import annotations

import asyncio

import pytest
from stage import NS, deployment, first, play

from tidegate.client import VerbOptions, cut_pod, drain_pod
from tidegate.client.isolate import isolate_pod
from tidegate.client.options import Identity
from tidegate.kube.api import ENDPOINTSLICES, PODS, Selection
from tidegate.kube.errors import ApiError
from tidegate.model import pod
from tidegate.model.names import HELD, Ending, decode_drain

OPTIONS = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"), reason="odd answers")
UNGATED = deployment(gate=False)
HASH = "pod-template-hash"


async def seen(stage, name):
    return pod.decode(await stage.api.get(PODS, name, NS))


async def listed(stage, service="echo"):
    """Names of the pods that the Service's slices call ready."""
    chosen = Selection(NS, f"kubernetes.io/service-name={service}")
    slices = (await stage.api.list(ENDPOINTSLICES, chosen)).items
    ends = [one for each in slices for one in each.get("endpoints") or ()]
    return sorted(one["targetRef"]["name"] for one in ends if one["conditions"].get("ready"))


def test_an_isolated_pod_serves_on_beside_its_replacement_and_its_record_says_for_whom():
    async def story(stage):
        name = await first(stage)
        result = await isolate_pod(stage.client, (NS, name), True, OPTIONS)
        assert result.result is Ending.VERIFIED, result
        kept = await seen(stage, name)
        assert kept.owner is None and kept.labels[HASH] == "tidegate-isolated" and kept.labels[HELD] == "isolated"
        record = decode_drain(kept.annotations)
        assert (record.verb, record.state, record.by, record.reason) == (
            "isolate",
            "ISOLATED",
            "ann@desk",
            "odd answers",
        )
        assert record.is_at_rest and record.until and record.labels["app"] == "echo" and record.owner
        pods = {one["metadata"]["name"] for one in await stage.pods()}
        (newest,) = pods - {name} - set(stage.before)
        assert result.reason.endswith(f"has let go of it, pod/{newest} took its place")
        await stage.ready(4)
        assert await listed(stage) == sorted(pods)

    async def remembering(stage):
        stage.before = {one["metadata"]["name"] for one in await stage.pods()}
        await story(stage)

    play(remembering, UNGATED)


def test_isolated_then_cut_then_drained():
    async def story(stage):
        name = await first(stage)
        assert (await isolate_pod(stage.client, (NS, name), True, OPTIONS)).result is Ending.VERIFIED
        await stage.ready(4)
        assert (await cut_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        assert name not in await listed(stage)
        kept = await seen(stage, name)
        assert kept.labels[HELD] == "cut" and kept.labels["app"] == "tidegate-cut"
        assert (await drain_pod(stage.client, NS, name, OPTIONS)).result is Ending.VERIFIED
        with pytest.raises(ApiError):
            await seen(stage, name)
        assert len(await stage.pods()) == 3

    play(story, UNGATED)


def test_isolated_with_its_traffic_off_it_is_let_go_and_cut_in_one_write():
    async def story(stage):
        name = await first(stage)
        result = await isolate_pod(stage.client, (NS, name), False, OPTIONS)
        assert result.result is Ending.VERIFIED, result
        kept = await seen(stage, name)
        assert kept.owner is None and kept.labels[HELD] == "cut"
        record = decode_drain(kept.annotations)
        assert (record.verb, record.state) == ("isolate", "UNROUTED")
        assert name not in await listed(stage) and len(await stage.pods()) == 4

    play(story, UNGATED)


def test_isolating_again_changes_nothing_and_a_cut_pod_is_not_isolated():
    async def story(stage):
        one, other = sorted(each["metadata"]["name"] for each in await stage.pods())[:2]
        await isolate_pod(stage.client, (NS, one), True, OPTIONS)
        before = (await seen(stage, one)).labels
        assert (await isolate_pod(stage.client, (NS, one), True, OPTIONS)).result is Ending.VERIFIED
        assert (await seen(stage, one)).labels == before
        await stage.ready(4)
        await cut_pod(stage.client, NS, other, OPTIONS)
        refused = await isolate_pod(stage.client, (NS, other), True, OPTIONS)
        assert refused.result is Ending.REFUSED and "is cut by ann@desk" in refused.reason

    play(story, UNGATED)


def test_of_two_who_isolate_at_once_one_wins_and_the_other_is_told_who_and_when():
    async def story(stage):
        name = await first(stage)
        bob = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("bob@sofa", "two"))
        both = (isolate_pod(stage.client, (NS, name), True, one) for one in (OPTIONS, bob))
        results = await asyncio.gather(*both)
        assert sorted(one.result.value for one in results) == ["refused", "verified"]
        record = decode_drain((await seen(stage, name)).annotations)
        loser = next(one for one in results if one.result is Ending.REFUSED)
        assert record.token in loser.reason and record.at in loser.reason and record.by in loser.reason

    play(story, UNGATED)


def test_what_does_not_come_in_time_is_named_and_the_next_run_goes_on():
    async def story(stage):
        name = await first(stage)
        result = await isolate_pod(stage.client, (NS, name), True, VerbOptions(timeout_seconds=0, seed=0))
        assert result.result is Ending.TIMED_OUT
        assert (
            result.reason.startswith("it stays isolated: ReplicaSet ") and "has not let go of it yet" in result.reason
        )
        assert (await isolate_pod(stage.client, (NS, name), True, OPTIONS)).result is Ending.VERIFIED

    play(story, UNGATED)
