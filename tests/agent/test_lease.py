"""One coordinator holds the Lease; the next takes over when it stops renewing, not before."""

from __future__ import annotations

import asyncio

from fake_api import FakeApi

from tidegate import vtime
from tidegate.agent.lease import Lease
from tidegate.kube.api import LEASES
from tidegate.observers.coordinator import ADDRESS_ANNOTATION


def candidate(api, name):
    lease = Lease(api, name, f"{name}:15201")
    return lease, asyncio.create_task(lease.run())


def play(story):
    return vtime.run(story(), limit_seconds=600)


def test_the_first_candidate_holds_the_lease_and_says_where_it_answers():
    async def story():
        api = FakeApi()
        lease, _ = candidate(api, "a")
        await asyncio.sleep(1)
        assert lease.is_held
        stored = api.peek(LEASES, "tidegate-coordinator", "tidegate-system")
        assert stored["spec"]["holderIdentity"] == "a"
        assert stored["metadata"]["annotations"][ADDRESS_ANNOTATION] == "a:15201"

    play(story)


def test_a_second_candidate_stands_by_while_the_first_renews():
    async def story():
        api = FakeApi()
        first, _ = candidate(api, "a")
        await asyncio.sleep(1)
        second, _ = candidate(api, "b")
        for _ in range(60):
            await asyncio.sleep(1)
            assert first.is_held and not second.is_held

    play(story)


def test_a_holder_that_dies_is_followed_after_the_duration_and_never_overlapped():
    async def story():
        api = FakeApi()
        first, task = candidate(api, "a")
        await asyncio.sleep(1)
        second, _ = candidate(api, "b")
        await asyncio.sleep(10)
        task.cancel()
        died = asyncio.get_running_loop().time()
        while not second.is_held:
            await asyncio.sleep(0.05)
            assert not (first.is_held and second.is_held)
        assert asyncio.get_running_loop().time() - died < 7

    play(story)


def test_a_restarted_holder_of_the_same_name_takes_its_lease_back_at_once():
    async def story():
        api = FakeApi()
        _, task = candidate(api, "a")
        await asyncio.sleep(3)
        task.cancel()
        again, _ = candidate(api, "a")
        await asyncio.sleep(0.2)
        assert again.is_held

    play(story)


def test_a_holder_that_cannot_reach_the_api_stops_calling_itself_the_holder():
    async def story():
        api = FakeApi()
        lease, _ = candidate(api, "a")
        changes = []
        lease.changed = changes.append
        await asyncio.sleep(3)
        api.break_down(True)
        await asyncio.sleep(8)
        assert not lease.is_held
        api.break_down(False)
        await asyncio.sleep(3)
        assert lease.is_held
        assert changes == [True, False, True]

    play(story)


def test_an_answer_that_took_longer_than_the_duration_does_not_make_a_fresh_lease_look_old():
    async def story():
        api = FakeApi()
        first, task = candidate(api, "a")
        await asyncio.sleep(1)
        answer, gate = api.get, asyncio.Event()

        async def slow(*words):
            await gate.wait()
            return await answer(*words)

        frozen = FakeApi()
        frozen.__dict__.update(api.__dict__)
        frozen.get = slow  # the second candidate's way to the API stands still in the middle of its first question
        second, _ = candidate(frozen, "b")
        await asyncio.sleep(8)
        gate.set()
        for _ in range(100):
            await asyncio.sleep(0.05)
            assert first.is_held and not second.is_held
        task.cancel()

    play(story)
