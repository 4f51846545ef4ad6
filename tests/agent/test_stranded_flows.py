"""UDP flows that stay bound to a cut pod: the coordinator waits for kube-proxy, then asks; the agent looks and acts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import pytest
from fake_api import FakeApi
from test_coordinator import IP, World, asking, until, verdicts

from tidegate import vtime
from tidegate.agent.coordinator import Coordinator, CoordinatorSettings
from tidegate.agent.moving import IS_OFF, Mover
from tidegate.agent.questions import Questions
from tidegate.agent.witness import NodeWitness
from tidegate.dataplane.facts import Facts, Route, Tracked
from tidegate.drain import stranded
from tidegate.kube import wire
from tidegate.kube.exchange import Request, whole
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers import moving, witness
from tidegate.observers.kernel import KernelUnreachable, Reading
from tidegate.observers.moving import Cut, Move, Moved

E8 = Epoch("main", 8)


def flow(port=4000, to=IP):
    ends = (("127.17.2.9", port), ("127.18.0.9", 53), (to, 5300))
    return Tracked("UDP", "NONE", *(Endpoint(address, at, "UDP") for address, at in ends))


# --- the coordinator ---


class Udp(World):
    """A world whose node has three flows to the leaving pod, until it is told to move them."""

    def __init__(self):
        super().__init__()
        self.flows = (flow(), flow(4001), flow(4002))
        self.asked, self.refusal, self.is_old = [], "", False

    async def agent(self, request):
        if request.path != moving.MOVE_PATH:
            return await super().agent(request)
        if self.is_old:
            return whole(404, b"{}")
        asked = moving.decode_move(request.body)
        self.asked.append((asyncio.get_running_loop().time(), asked))
        moved, self.flows = (0, self.flows) if self.refusal else (len(self.flows), ())
        return whole(200, msgspec.json.encode(Moved("node-1", (moved,) * len(asked.cuts), self.refusal)))

    def answer(self):
        return witness.answer_of("node-1", replace(super().answer().facts, tracked=self.flows))


def play(story, **changed):
    lines = []

    async def whole_story():
        world = Udp()
        for name, value in changed.items():
            setattr(world, name, value)
        coordinator = Coordinator(world.api, CoordinatorSettings("c", "127.16.0.11"), lines.append)
        async with wire.serving(world.agent, "127.16.0.11", 15200):
            running = asyncio.create_task(coordinator.run())
            await asyncio.sleep(0.5)
            try:
                await story(world, coordinator)
            finally:
                running.cancel()

    vtime.run(whole_story(), limit_seconds=200)
    return lines


def test_flows_that_stay_are_moved_after_ten_seconds_and_the_acknowledgement_says_so():
    async def story(world, coordinator):
        began = asyncio.get_running_loop().time()
        view = await until(coordinator, lambda view: "confirmed" in verdicts(view).values(), seconds=30)
        took = asyncio.get_running_loop().time() - began
        assert stranded.AFTER_SECONDS <= took < stranded.AFTER_SECONDS + 2.5
        view = await until(coordinator, lambda view: "moved" in view.nodes[0].detail)
        assert view.nodes[0].detail.endswith("and no route; 3 UDP flows moved after 10 s")
        [(_, asked)] = world.asked
        assert asked.cuts[0].understood() == (Epoch.parse(view.epoch), (Endpoint(IP),))

    lines = play(story)
    assert "leaving: node-1: 3 UDP flows moved after 10 s" in lines


def test_flows_that_kube_proxy_moves_in_time_are_left_alone():
    async def story(world, coordinator):
        await until(coordinator, lambda view: view.epoch)
        await asyncio.sleep(stranded.AFTER_SECONDS - 1)
        world.flows = ()
        await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        await asyncio.sleep(stranded.AFTER_SECONDS)
        assert world.asked == []

    play(story)


def test_flows_to_a_pod_that_is_still_routed_are_never_asked_about():
    async def story(world, coordinator):
        await until(coordinator, lambda view: "refuted" in verdicts(view).values())
        await asyncio.sleep(3 * stranded.AFTER_SECONDS)
        assert world.asked == []

    play(story, routed=True)


@pytest.mark.parametrize(
    "changed, said",
    [({"refusal": IS_OFF}, IS_OFF), ({"is_old": True}, "the agent of node-1 answered 404: {}")],
    ids=["turned off", "an agent of before"],
)
def test_flows_that_are_not_moved_hold_the_drain_and_it_is_said_why(changed, said):
    async def story(world, coordinator):
        view = await until(coordinator, lambda view: view.nodes and said in view.nodes[0].detail, seconds=30)
        assert verdicts(view) == {"node-1": "pending"}
        assert view.nodes[0].detail.endswith(f"; its UDP flows are not moved: {said}")
        await asyncio.sleep(12)
        pauses = [later - at for (at, _), (later, _) in zip(world.asked, world.asked[1:], strict=False)]
        assert all(pause >= stranded.AGAIN_SECONDS for pause in pauses)
        assert verdicts(await coordinator.acknowledge(asking())) == {"node-1": "pending"}

    play(story, **changed)


# --- the agent ---


class Kernel:
    """Shows what the test says, and forgets what it is told."""

    def __init__(self, *tracked, fence=E8, routes=()):
        self.facts = Facts("node-1", "dump", 1.0, routes, (fence,), tracked)
        self.forgotten, self.is_failing = [], False

    async def read(self, endpoints):
        return Reading(self.facts, 1)

    async def forget(self, flows):
        if self.is_failing:
            raise KernelUnreachable("tracked connections: not permitted")
        self.forgotten += flows
        return len(flows)


def moved_by(kernel, *cuts, flows=True, asked_after=(0.0,)):
    lines = []

    async def story():
        mover = Mover(kernel, "node-1", kernel if flows else None, lines.append, IS_OFF)
        answers = []
        for seconds in asked_after:
            await asyncio.sleep(10.0 + seconds if not answers else seconds)
            answers.append(await mover.move(Move(cuts or (Cut.of(E8, (Endpoint(IP),)),))))
        return answers

    return vtime.run(story(), limit_seconds=100), lines


def test_the_agent_moves_what_its_own_dump_shows_stranded_and_logs_it():
    kernel = Kernel(flow(), flow(4001), flow(4002, to="127.17.1.9"))
    [answer], lines = moved_by(kernel)
    assert answer == Moved("node-1", (2,)) and kernel.forgotten == [flow(), flow(4001)]
    assert lines == [f"2 UDP flows are to be routed anew, to {IP}:0/TCP no rule leads any more: {flow()}, {flow(4001)}"]


@pytest.mark.parametrize(
    "kernel",
    [
        Kernel(flow(), fence=Epoch("main", 7)),
        Kernel(flow(), routes=(Route("cluster-ip", "127.18.0.9", 53, "UDP", (Endpoint(IP, 5300, "UDP"),)),)),
    ],
    ids=["a node that is behind", "a node that routes"],
)
def test_the_agent_believes_its_dump_and_not_who_asks(kernel):
    [answer], lines = moved_by(kernel)
    assert (answer, kernel.forgotten, lines) == (Moved("node-1", (0,)), [], [])


def test_an_agent_that_may_not_says_so_and_touches_nothing():
    kernel = Kernel(flow())
    [answer], _ = moved_by(kernel, flows=False)
    assert answer == Moved("node-1", (0,), IS_OFF) and kernel.forgotten == []


def test_an_agent_is_not_hurried():
    kernel = Kernel(flow())
    answers, _ = moved_by(kernel, asked_after=(0.0, 0.5, 2.0))
    assert [one.counts for one in answers] == [(1,), (0,), (1,)] and "again" in answers[1].why


def test_so_many_flows_are_moved_in_one_go_and_no_more():
    kernel = Kernel(*(flow(port) for port in range(1000, 1000 + stranded.FLOWS_MAX + 5)))
    [answer], _ = moved_by(kernel, Cut.of(E8, (Endpoint(IP),)), Cut.of(E8, (Endpoint(IP),)))
    assert answer.counts == (stranded.FLOWS_MAX, 0) and len(kernel.forgotten) == stranded.FLOWS_MAX


def test_a_kernel_that_refuses_is_told_of():
    kernel = Kernel(flow())
    kernel.is_failing = True
    [answer], lines = moved_by(kernel)
    assert answer == Moved("node-1", (0,), "tracked connections: not permitted")
    assert lines == ["UDP flows are not moved: tracked connections: not permitted"]


def test_only_the_port_for_peers_moves_anything():
    kernel = Kernel(flow())
    body = msgspec.json.encode(Move((Cut.of(E8, (Endpoint(IP),)),)))

    async def story():
        questions = Questions(NodeWitness(kernel, "node-1"), None, FakeApi(), "127.16.0.11")
        questions.mover = Mover(kernel, "node-1", kernel, lambda line: None)
        await asyncio.sleep(10)
        request = Request("POST", moving.MOVE_PATH, (), {}, body)
        assert (await questions.exchange(request)).status == 404 and not kernel.forgotten
        assert (await questions.peers_exchange(request)).status == 200 and kernel.forgotten == [flow()]
        garbage = replace(request, body=b'{"cuts": [{"epoch": "main/8", "endpoints": ["nobody"]}]}')
        assert (await questions.peers_exchange(garbage)).status == 400

    vtime.run(story(), limit_seconds=100)
