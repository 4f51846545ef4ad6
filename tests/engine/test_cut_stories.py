"""A cut: the first half of a drain. No new connection can arrive, the pod lives on."""

from __future__ import annotations

import asyncio
import contextlib

from stage import NS, deployment, first, play

from tidegate.client import VerbOptions, cut_pod, drain_pod
from tidegate.client.options import Identity
from tidegate.kube.api import PODS
from tidegate.model import pod
from tidegate.model.names import Ending, decode_drain

OPTIONS = VerbOptions(timeout_seconds=60, seed=0, identity=Identity("ann@desk", "one"))
UNGATED = deployment(gate=False)


async def seen(stage, name):
    return pod.decode(await stage.api.get(PODS, name, NS))


def test_a_cut_pod_is_out_of_its_service_verified_and_lives():
    async def story(stage):
        name = await first(stage)
        result = await cut_pod(stage.client, NS, name, OPTIONS)
        assert result.result is Ending.VERIFIED
        await asyncio.sleep(5)
        kept = await seen(stage, name)
        assert kept.labels["app"] == "tidegate-cut"
        record = decode_drain(kept.annotations)
        assert (record.verb, record.by, record.state, record.is_at_rest) == ("cut", "ann@desk", "UNROUTED", True)
        assert record.labels["app"] == "echo"

    play(story, UNGATED)


def test_a_cut_pod_is_drained_from_where_it_stands():
    async def story(stage):
        name = await first(stage)
        await cut_pod(stage.client, NS, name, OPTIONS)
        result = await drain_pod(stage.client, NS, name, VerbOptions(seed=1))
        assert result.result is Ending.VERIFIED

    play(story, UNGATED)


def test_of_two_who_cut_at_once_one_wins_and_the_other_is_told_who_and_when():
    async def story(stage):
        name = await first(stage)
        other = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("bob@sofa", "two"))
        results = await asyncio.gather(cut_pod(stage.client, NS, name, OPTIONS), cut_pod(stage.client, NS, name, other))
        assert sorted(one.result.value for one in results) == ["refused", "verified"]
        record = decode_drain((await seen(stage, name)).annotations)
        loser = next(one for one in results if one.result is Ending.REFUSED)
        assert record.token in loser.reason and record.at in loser.reason and record.by in loser.reason

    play(story, UNGATED)


def test_who_comes_while_another_is_at_work_is_refused_and_after_a_kill_goes_on():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", "node-2", 40)
        running = asyncio.create_task(cut_pod(stage.client, NS, name, OPTIONS))
        await asyncio.sleep(3)
        bob = VerbOptions(timeout_seconds=60, seed=1, identity=Identity("bob@sofa", "two"))
        refused = await cut_pod(stage.client, NS, name, bob)
        assert refused.result is Ending.REFUSED and "being cut by ann@desk" in refused.reason
        # Interrupted: the lease is given back at once, and the next run goes on.
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        stage.fault("clear", "node-2")
        assert (await cut_pod(stage.client, NS, name, bob)).result is Ending.VERIFIED

    play(story, UNGATED)
