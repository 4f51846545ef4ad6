"""An operator is killed in the middle, and pods end while none looks on."""

from __future__ import annotations

import asyncio

import pytest
from operator_stage import NS, Hand, asked, play, seen, until
from stage import deployment, first

from tidegate.client.release.command import changed
from tidegate.kube.api import DEPLOYMENTS, PODS, Selection
from tidegate.kube.errors import ApiError
from tidegate.operator.book import ObjectBook


async def killed_after_the_template(stage, **fields):
    """A release that no operator carries any more, its Deployment's controller at work on the new template."""
    hand = Hand(stage)
    await asked(stage, images={"echo": "tidegate/echo:v2"}, **fields)
    while (await stage.api.get(DEPLOYMENTS, "echo", NS))["metadata"]["generation"] == 1:
        await asyncio.sleep(0.02)
    await hand.kill()


async def rolled_out(stage, count):
    while True:
        pods = (await stage.api.list(PODS, Selection(NS))).items
        if len(pods) == count and all("v2" in one["spec"]["containers"][0]["image"] for one in pods):
            return
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("code", [0, 429])
def test_a_pod_that_ends_by_itself_between_two_operators_halts_the_release(code):
    async def story(stage):
        old = await first(stage)
        await killed_after_the_template(stage)
        await stage.delete(old, grace=0)
        await rolled_out(stage, 3)
        hand = Hand(stage, "operator-b", port=18082)
        if code:
            count = 0

            async def weather(request):
                nonlocal count
                count += 1
                if "/leases/" not in request.path and count % 3:
                    raise ApiError(code, "TooManyRequests", "weather")

            hand.wire.fault = weather
            await asyncio.sleep(30)
            hand.wire.fault = None
        halted = await until(stage, "halted")
        assert f"pod/{old} ended bypassed" in halted["status"]["reason"], "as its node's agent wrote it down"
        book = ObjectBook(stage.client, NS, "echo")
        entry = await book.read()
        await book.ask(entry, changed(entry, "resume"))
        done = await until(stage, "done")
        assert [one.split()[0] for one in done["status"]["unverified"]] == [f"pod/{old}"]
        await hand.leave()

    play(story)


def test_pods_that_ended_through_their_gates_between_two_operators_are_verified():
    async def story(stage):
        await killed_after_the_template(stage)
        assert len((await seen(stage))["status"]["leaving"]) == 3
        await rolled_out(stage, 3)
        hand = Hand(stage, "operator-b", port=18082)
        done = await until(stage, "done")
        assert "unverified" not in done["status"] and "leaving" not in done["status"]
        await hand.leave()

    play(story)


def test_operators_killed_after_each_of_their_writes_call_no_proof_unknown():
    async def story(stage):
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        for number in range(60):
            hand = Hand(stage, f"operator-{number}", kill_at=3 + number, port=18081 + number % 2)
            dying = asyncio.create_task(hand.wire.killed.wait())
            await asyncio.wait([dying], timeout=20)
            dying.cancel()
            await hand.kill()
            if (await seen(stage)).get("status", {}).get("phase") in ("done", "halted"):
                break
        status = (await seen(stage))["status"]
        assert (status["phase"], status.get("unverified")) == ("done", None), status["reason"]

    play(story, deployment(replicas=2, gate=False), limit=4000)
