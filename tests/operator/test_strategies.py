"""Blue/green, canary and rainbow by the operator: to their end, killed on the way, and deleted on the way."""

from __future__ import annotations

import asyncio

import pytest
from operator_stage import NS, Hand, asked, deleted, play, seen, until
from stage import deployment, is_ready

from tidegate.kube.api import DEPLOYMENTS, SERVICES, Selection

IMAGES = {"echo": "tidegate/echo:v2"}
ASKED = {
    "bluegreen": {"bluegreen": {"service": "echo", "keepSeconds": 5}},
    "canary": {"canary": {"service": "echo", "steps": [{"weight": 50, "pauseSeconds": 1}]}},
    "rainbow": {"rainbow": {"service": "echo", "idleSeconds": 2, "retireSeconds": 5}},
}


def wanted(strategy):
    return {"strategy": strategy, "images": IMAGES, **ASKED[strategy]}


async def serving(stage):
    """Ready pods that the Service selects now, and their images."""
    selector = (await stage.api.get(SERVICES, "echo", NS))["spec"]["selector"]
    return [
        one["spec"]["containers"][0]["image"]
        for one in await stage.pods()
        if is_ready(one) and selector.items() <= one["metadata"]["labels"].items()
    ]


@pytest.mark.parametrize("strategy", sorted(ASKED))
def test_a_release_comes_to_its_end_and_rests(strategy):
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, **wanted(strategy))
        done = await until(stage, "done", 240)
        assert set(await serving(stage)) == {"tidegate/echo:v2"}
        assert done["status"]["ready"].startswith("2/") or strategy == "canary", done["status"]["ready"]
        await asyncio.sleep(120)
        writes = len(hand.wire.writes)
        await asyncio.sleep(120)
        assert len(hand.wire.writes) == writes, "at rest nothing is written"
        assert "a bug" not in "".join(hand.lines)
        await hand.leave()

    play(story, deployment(replicas=2))


@pytest.mark.parametrize("strategy", sorted(ASKED))
def test_killed_at_any_write_the_next_operator_brings_it_to_the_same_end(strategy):
    async def story(stage, kill_at):
        first = Hand(stage, kill_at=kill_at)
        await asked(stage, **wanted(strategy))
        over = asyncio.create_task(until(stage, "done", 400))
        dying = asyncio.create_task(first.wire.killed.wait())
        await asyncio.wait((over, dying), return_when=asyncio.FIRST_COMPLETED)
        was_killed = dying.done()
        dying.cancel()
        await first.kill()
        second = Hand(stage, "operator-b", port=18082)
        await over
        assert set(await serving(stage)) == {"tidegate/echo:v2"}
        assert "a bug" not in "".join(second.lines)
        await second.leave()
        return was_killed

    kill_at = 1
    while play(lambda stage, number=kill_at: story(stage, number), deployment(replicas=2)):
        kill_at += 5  # each strategy's own tests kill its engine after every one
    assert kill_at > 9


@pytest.mark.parametrize("after", [1.0, 4.0, 12.0])
@pytest.mark.parametrize("strategy", sorted(ASKED))
def test_deleted_mid_way_what_serves_goes_on_serving_and_nothing_is_held(strategy, after):
    async def story(stage):
        hand = Hand(stage)
        await asked(stage, **wanted(strategy))
        await asyncio.sleep(after)
        assert await deleted(stage) < 10
        for _ in range(60):
            assert len(await serving(stage)) >= 2, "never fewer than there were"
            await asyncio.sleep(1)
        deployments = (await stage.api.list(DEPLOYMENTS, Selection(NS))).items
        assert not [one["metadata"]["name"] for one in deployments if one["spec"].get("paused")]
        services = [one["metadata"]["name"] for one in (await stage.api.list(SERVICES, Selection(NS))).items]
        assert services == ["echo"], "our own are gone"
        await hand.leave()

    play(story, deployment(replicas=2))


def test_a_canary_that_waits_for_its_pause_is_promoted_by_its_spec():
    async def story(stage):
        hand = Hand(stage)
        steps = [{"weight": 50, "pauseSeconds": None}]
        await asked(stage, strategy="canary", images=IMAGES, canary={"service": "echo", "steps": steps})
        for _ in range(600):
            if ((await seen(stage)).get("status") or {}).get("phase") == "paused":
                break
            await asyncio.sleep(0.1)
        assert set(await serving(stage)) == {"tidegate/echo:v1", "tidegate/echo:v2"}
        await asked(stage, promoted=1)
        await until(stage, "done", 240)
        await hand.leave()

    play(story, deployment(replicas=2))
