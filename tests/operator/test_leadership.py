"""One operator acts. Two actors at once is argo-rollouts #2117."""

from __future__ import annotations

import asyncio

from operator_stage import Hand, asked, play, seen, until
from stage import deployment

from tidegate.kube.api import LEASES
from tidegate.kube.errors import Unreachable
from tidegate.model.names import SYSTEM_NAMESPACE


async def holder(stage):
    found = await stage.api.get(LEASES, "tidegate-operator", SYSTEM_NAMESPACE)
    return found["spec"]["holderIdentity"]


def writes(hand, since=0):
    return [one for one in hand.wire.writes[since:] if "/leases/" not in one]


def test_of_two_operators_one_writes_and_the_other_only_looks():
    async def story(stage):
        first, second = Hand(stage), Hand(stage, "operator-b", port=18082)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await until(stage, "done")
        assert bool(writes(first)) != bool(writes(second))
        await first.leave()
        await second.leave()

    play(story, deployment(replicas=2))


def test_a_leader_that_is_asked_to_stop_gives_the_lease_up_and_the_next_begins_within_a_second_or_two():
    async def story(stage):
        first = Hand(stage)
        await asyncio.sleep(2)
        second = Hand(stage, "operator-b", port=18082)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(0.6)
        began = stage.now
        await first.leave()
        count = len(writes(first))
        while await holder(stage) != "operator-b":
            await asyncio.sleep(0.1)
        assert stage.now - began < 2.5
        await until(stage, "done")
        assert len(writes(first)) == count
        await second.leave()

    play(story)


def test_a_leader_that_cannot_renew_writes_nothing_once_another_may():
    """It reaches the API again later, still in the middle of its step: the fence is what stands between."""

    async def story(stage):
        first = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(0.3)

        async def only_leases_fail(request):
            if "/leases/" in request.path:
                raise Unreachable("lost")

        first.wire.fault = only_leases_fail  # everything else it can reach: the worst case
        second = Hand(stage, "operator-b", port=18082)
        while await holder(stage) != "operator-b":
            await asyncio.sleep(0.05)
        count = len(writes(first))
        await until(stage, "done")
        await asked(stage, images={"echo": "tidegate/echo:v3"})
        await until(stage, "done")
        assert len(writes(first)) == count
        assert any(line["message"] == "not leading any more" for line in first.log)
        await first.leave()
        await second.leave()

    play(story)


def test_a_leader_whose_machine_stood_still_sends_nothing_when_it_goes_on():
    async def story(stage):
        first = Hand(stage)
        await asked(stage, images={"echo": "tidegate/echo:v2"})
        await asyncio.sleep(0.3)
        gate = asyncio.Event()

        async def frozen(request):
            await gate.wait()

        first.wire.fault = frozen
        second = Hand(stage, "operator-b", port=18082)
        await until(stage, "done")
        count = len(writes(first))
        gate.set()
        await asyncio.sleep(30)
        late = writes(first, count)
        assert len(late) <= 1, "at most the one request that was under way, and its test of the version fails"
        assert (await seen(stage))["status"]["phase"] == "done"
        await first.leave()
        await second.leave()

    play(story)


def test_a_lease_that_is_renewed_late_costs_a_release_its_pace_and_nothing_else():
    """The last second of a Lease is for requests under way: what is not sent in it is sent later."""

    async def story(stage):
        hand = Hand(stage)
        await asyncio.sleep(2)

        async def late(request):
            if "/leases/" in request.path:
                await asyncio.sleep(1.65)  # of 10 s there are then 0.4 left when the next renewal is in

        hand.wire.fault = late
        await asyncio.sleep(8)
        for number in range(2, 7):
            await asked(stage, images={"echo": f"tidegate/echo:v{number}"})
            await asyncio.sleep(2.3)
        await until(stage, "done")
        hand.wire.fault = None
        await hand.leave()

    play(story, deployment(replicas=1))


def test_whoever_leads_again_begins_when_its_term_before_is_over():
    async def story(stage):
        hand = Hand(stage)
        await asyncio.sleep(2)
        for number in range(2, 5):

            async def lost(request):
                raise Unreachable("lost")

            await asked(stage, images={"echo": f"tidegate/echo:v{number}"})
            await asyncio.sleep(0.2)
            hand.wire.fault = lost
            await asyncio.sleep(12)
            hand.wire.fault = None
            await until(stage, "done")
        messages = [line["message"] for line in hand.log]
        assert messages.count("leading") == 4 and messages.count("not leading any more") == 3
        await hand.leave()

    play(story, deployment(replicas=2))
