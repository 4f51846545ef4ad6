"""The live fence: never ahead of who may still stand at an old epoch, never leading where nobody answers."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from fake_api import FakeApi

from tidegate import vtime
from tidegate.agent.livefence import KEPT, LiveFence
from tidegate.agent.prober import Prober
from tidegate.kube.api import ENDPOINTSLICES, SERVICES
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.model.epoch import SIZE, Epoch
from tidegate.model.livefence import SLOTS, live_name, port_of, slot_of
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.behavioural import probe

HOST = "127.0.0.1"


class World:
    def __init__(self):
        self.api, self.at, self.log = FakeApi(), None, []
        self.live = LiveFence(self.api, "main", HOST, lambda: self.at, self.log.append)

    @property
    def port(self):
        slice_ = self.api.peek(ENDPOINTSLICES, live_name("main"), SYSTEM_NAMESPACE)
        return slice_["ports"][0]["port"]

    async def show(self, number, seconds=0.3):
        self.live.show(Epoch("main", number % SIZE))
        await asyncio.sleep(seconds)


def play(story):
    async def whole():
        world = World()
        service = {"apiVersion": "v1", "kind": "Service", "spec": {"clusterIPs": ["127.18.0.9"]},
                   "metadata": {"name": live_name("main"), "namespace": SYSTEM_NAMESPACE}}  # fmt: skip
        world.api.put(SERVICES, service)
        running = asyncio.ensure_future(world.live.run())
        try:
            await story(world)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    vtime.run(whole(), limit_seconds=10_000)


def test_whoever_dials_its_endpoint_is_told_the_slot_of_the_last_epoch():
    async def story(world):
        for number in (7, 8, 300):
            await world.show(number)
            assert (await probe(f"{HOST}:{world.port}")).slot == number % SLOTS
        assert world.live.addresses == ("127.18.0.9:15210",)

    play(story)


@pytest.mark.parametrize("begin", [500, SIZE - 20])
def test_no_slot_gets_a_second_meaning_while_somebody_may_stand_at_its_first(begin):
    async def story(world):
        world.at = Epoch("main", begin)
        for ahead in range(0, 2 * SLOTS, 5):
            await world.show(begin + ahead, 0.1)
            shown = (world.port - port_of(slot_of(world.at))) % SLOTS
            assert shown == min(ahead, KEPT - 1), "as far as it may, and not a step further"
        world.at = Epoch("main", (begin + KEPT) % SIZE)
        await asyncio.sleep(1)
        assert world.port == port_of((begin + 2 * KEPT - 1) % SIZE % SLOTS), "it follows whoever has caught up"

    play(story)


def test_who_is_far_behind_is_refused_instead_of_answered_by_a_slot_of_another_epoch():
    async def story(world):
        await world.show(1000)
        behind = port_of((1000 - KEPT) % SLOTS)
        with pytest.raises(Unreachable):
            await probe(f"{HOST}:{behind}")
        assert (await probe(f"{HOST}:{port_of((1000 - KEPT + 1) % SLOTS)}")).slot == (1000 - KEPT + 1) % SLOTS

    play(story)


def test_it_is_not_led_to_a_port_before_somebody_answers_there():
    """A SYN that is lost makes its source port useless for two minutes (conntrack's SYN_SENT, measured)."""

    async def story(world):
        refused = []
        written = world.api.replace

        async def replace(resource, obj, *rest, **more):
            try:
                await probe(f"{HOST}:{obj['ports'][0]['port']}")
            except Unreachable as error:
                refused.append(str(error))
            return await written(resource, obj, *rest, **more)

        world.api.replace = replace
        for number in (3, 90, 200, 700):
            await world.show(number)
        assert not refused

    play(story)


def test_a_prober_dials_one_port_only_and_says_no_more_than_whether_it_was_a_fence():
    async def story(world):
        prober = Prober("node-1", "")
        asked = [Request("GET", "/v1/fence", (("address", one),)) for one in ("127.0.0.1", "no address", "")]
        answers = [await prober.exchange(one) for one in asked]
        assert [one.status for one in answers] == [502, 502, 502]
        assert len({await one.read() for one in answers}) == 1
        assert (await prober.exchange(Request("GET", "/v1/anything"))).status == 404

    play(story)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"install": "main", "slot": 256}', b'{"slot": 3}', b"\xff"])
def test_what_is_no_fence_is_no_answer(body):
    from tidegate.kube import wire
    from tidegate.kube.exchange import whole

    async def story():
        async def answer(request):
            return whole(200, body)

        async with wire.serving(answer, HOST, 20_500):
            with pytest.raises(Unreachable):
                await probe(f"{HOST}:20500")

    vtime.run(story())
