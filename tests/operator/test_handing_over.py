"""A leader that is asked to stop: what it saw is written before it goes."""

from __future__ import annotations

import asyncio

from operator_stage import Hand, asked, play, until
from stage import NS, deployment

from tidegate.kube.api import DRAINS, PODS, Selection


async def named(stage):
    """Every pod, those that are on their way out too."""
    return {pod["metadata"]["name"] for pod in (await stage.client.list(PODS, Selection(NS))).items}


def test_a_pod_that_was_gone_when_its_leader_was_asked_to_stop_has_its_record():
    async def story(stage):
        hand = Hand(stage)

        async def slow(request):
            if "ledger" in request.path:
                await asyncio.sleep(0.5)

        hand.wire.fault = slow
        before = await named(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "progressing")
        while not (gone := before - await named(stage)):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # the news of it
        began = stage.now
        await hand.leave()
        assert stage.now - began < 2.5
        assert {one["spec"]["pod"] for one in (await stage.client.list(DRAINS)).items} >= gone

    play(story, deployment())
    for seed in (1, 2, 3):
        play(story, deployment(), seed=seed)


def test_a_ledger_that_takes_nothing_keeps_no_leader():
    async def story(stage):
        hand = Hand(stage)

        async def fault(request):
            if "/drains" in request.path:
                await asyncio.Event().wait()

        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "progressing")
        hand.wire.fault = fault
        await until(stage, "done")
        began = stage.now
        await hand.leave()
        assert 1.0 < stage.now - began < 3.0  # it was waited for, and no longer
        assert not (await stage.client.list(DRAINS)).items

    play(story, deployment())
