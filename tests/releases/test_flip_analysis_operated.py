"""Analyses on both sides of a flip (blue/green, rainbow), by the operator; and what an object may not ask of it."""

from __future__ import annotations

import asyncio

import pytest
from judges import PROMETHEUS, prometheus
from operator_stage import NS, Hand, asked, condition, play, seen, until
from stage import deployment

from tidegate.kube.api import DEPLOYMENTS, SERVICES
from tidegate.kube.errors import ApiError

IMAGES = {"echo": "tidegate/echo:v2"}
RATE = {
    "name": "rate",
    "kind": "prometheus",
    "url": f"http://{PROMETHEUS}:9090",
    "query": "q",
    "success": ">= 0.99",
    "intervalSeconds": 2,
}


def wanted(when, **fields):
    analysis = [{**RATE, "when": when}]
    return {
        "strategy": "bluegreen",
        "images": IMAGES,
        "bluegreen": {"service": "echo", "preview": "echo-next", "keepSeconds": 0, "analysis": analysis, **fields},
    }


def rainbow(when):
    section = {"service": "echo", "idleSeconds": 1, "retireSeconds": 1, "analysis": [{**RATE, "when": when}]}
    return {"strategy": "rainbow", "images": IMAGES, "rainbow": section}


OF = {"bluegreen": wanted, "rainbow": rainbow}


async def flipped_to(stage):
    return (await stage.api.get(SERVICES, "echo", NS))["spec"]["selector"].get("tidegate.dev/revision")


async def counts(stage):
    found = (await stage.api.list(DEPLOYMENTS)).items
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found if one["metadata"]["namespace"] == NS}


@pytest.mark.parametrize("strategy", sorted(OF))
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_fails_is_back_on_blue_with_the_reason_in_its_conditions(strategy, when):
    async def story(stage):
        hand = Hand(stage)
        async with prometheus() as metrics:
            metrics.value = "0.5"
            await asked(stage, **OF[strategy](when))
            aborted = await until(stage, "aborted", 240)
        why = f"prometheus rate failed 1 of 1 {when} the flip: 0.5 is not >= 0.99; r1 has all "
        assert aborted["status"]["reason"].startswith(why)
        assert aborted["status"]["reason"] == condition(aborted, "Complete")["message"]
        assert (await flipped_to(stage), await counts(stage)) == ("r1", {"echo": 2})
        assert "a bug" not in "".join(hand.lines)
        await hand.leave()

    play(story, deployment(replicas=2))


@pytest.mark.parametrize("strategy", sorted(OF))
@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_cannot_be_asked_holds_and_goes_on_by_itself_when_it_can(strategy, when):
    async def story(stage):
        hand = Hand(stage)
        async with prometheus() as metrics:
            metrics.value = None
            await asked(stage, **OF[strategy](when))
            paused = await until(stage, "paused", 240)
            assert "no sample" in paused["status"]["reason"]
            assert await flipped_to(stage) == ("r1" if when == "before" else "r2")
            routed = condition(paused, "Routed")["status"]
            assert routed == ("Unknown" if when == "before" else "True"), "the preview is no traffic"
            await asyncio.sleep(120)
            assert await counts(stage) == {"echo": 2, "echo-r2": 2}
            metrics.value = "1"
            await until(stage, "done", 240)
        assert (await flipped_to(stage), await counts(stage)) == ("r2", {"echo": 0, "echo-r2": 2})
        await hand.leave()

    play(story, deployment(replicas=2))


def test_killed_at_any_write_the_next_operator_is_back_on_blue():
    async def story(stage, kill_at):
        first = Hand(stage, kill_at=kill_at)
        async with prometheus() as metrics:
            metrics.value = "0"
            await asked(stage, **wanted("after"))
            over = asyncio.create_task(until(stage, "aborted", 400))
            dying = asyncio.create_task(first.wire.killed.wait())
            await asyncio.wait((over, dying), return_when=asyncio.FIRST_COMPLETED)
            was_killed = dying.done()
            dying.cancel()
            await first.kill()
            second = Hand(stage, "operator-b", port=18082)
            await over
        assert (await flipped_to(stage), await counts(stage)) == ("r1", {"echo": 2})
        assert "a bug" not in "".join(second.lines)
        await second.leave()
        return was_killed

    kill_at = 1
    while play(lambda stage, number=kill_at: story(stage, number), deployment(replicas=2)):
        kill_at += 5
    assert kill_at > 9


@pytest.mark.parametrize("strategy", sorted(OF))
def test_an_operator_runs_no_command_that_an_object_names(strategy):
    async def story(stage):
        hand = Hand(stage)
        analysis = [{"name": "a", "kind": "command", "command": ["touch", "/x"], "when": "before"}]
        asking = OF[strategy]("before")
        asking[strategy]["analysis"] = analysis
        await asked(stage, **asking)
        for _ in range(100):
            found = condition(await seen(stage), "Accepted") if (await seen(stage)).get("status") else None
            if found is not None:
                break
            await asyncio.sleep(0.1)
        assert (found["status"], found["reason"]) == ("False", "Invalid")
        assert found["message"].startswith(f"$.spec.{strategy}.analysis[0].kind: command is of the command line")
        await hand.leave()

    play(story, deployment(replicas=1))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"when": "later"}, r"spec.bluegreen.analysis\[0\].when"),
        ({"url": ""}, r"spec.bluegreen.analysis\[0\]"),
        ({"count": 0}, r"spec.bluegreen.analysis\[0\].count"),
    ],
)
def test_the_definition_refuses_one_that_is_wrong_with_the_field_s_path(change, place):
    async def story(stage):
        analysis = [{**RATE, "when": "after", **change}]
        with pytest.raises(ApiError, match=place):
            await asked(stage, **wanted("after", analysis=analysis))

    play(story, deployment(replicas=1))


def test_the_definition_refuses_two_of_one_name():
    async def story(stage):
        analysis = [{**RATE, "when": "before"}, {**RATE, "when": "after"}]
        with pytest.raises(ApiError, match=r"spec.bluegreen.analysis\[1\]: Duplicate value"):
            await asked(stage, **wanted("after", analysis=analysis))

    play(story, deployment(replicas=1))
