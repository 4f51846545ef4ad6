"""The coordinator on a fake API: what it lists, whom it asks, what it calls fresh."""

from __future__ import annotations

import asyncio
import copy
import json

import msgspec
import pytest
from fake_api import FakeApi

from tidegate import vtime
from tidegate.agent.coordinator import Coordinator, CoordinatorSettings
from tidegate.dataplane.facts import Facts, Route
from tidegate.drain import fence
from tidegate.drain.state import Mode
from tidegate.engine.flights import Flights
from tidegate.engine.sourcing import Sourcing
from tidegate.kube import wire
from tidegate.kube.api import ENDPOINTSLICES, NODES, PODS, SERVICES
from tidegate.kube.exchange import Request, whole
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import SYSTEM_NAMESPACE, DrainRecord, encode_drain
from tidegate.observers import witness
from tidegate.observers.coordinator import CoordinatorUnreachable, ask_of, decode_view

IP = "127.17.1.2"
FENCE = fence.fence_slice(fence.first_epoch("main"))["metadata"]["name"]


class World:
    """One node, one Service, two pods; ``leaving`` terminates. The node's agent shows the fence as it stands."""

    def __init__(self):
        self.api = FakeApi()
        self.questions = []
        self.routed = False
        service = {
            "metadata": {"name": "echo", "namespace": "demo"},
            "spec": {"selector": {"app": "echo"}, "ports": []},
        }
        self.api.put(SERVICES, service)
        self.api.put(NODES, node("node-1", "127.16.0.11"))
        pod = {
            "metadata": {"name": "leaving", "namespace": "demo", "uid": "u", "labels": {"app": "echo"}},
            "spec": {"containers": [{"name": "c"}], "nodeName": "node-1"},
            "status": {"podIP": IP},
        }
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
        self.api.put(PODS, pod)
        self.slice(is_listed_ready=False)

    def slice(self, is_listed_ready):
        def entry(uid, address, leaving):
            ready = not leaving or is_listed_ready
            conditions = {"ready": ready, "serving": True, "terminating": not ready}
            return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "uid": uid}}

        obj = {
            "metadata": {"name": "echo-1", "namespace": "demo", "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4",
            "endpoints": [entry("u", IP, True), entry("v", "127.17.1.3", False)],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }
        self.api.put(ENDPOINTSLICES, obj)

    async def agent(self, request):
        question = witness.decode_question(request.body)
        self.questions.append(question)
        answer = self.answer()
        if question.since == answer.digest:
            await asyncio.sleep(question.wait_seconds)
        return whole(200, witness.encode_answer(self.answer()))

    def answer(self):
        stored = self.api.peek(ENDPOINTSLICES, FENCE, SYSTEM_NAMESPACE)
        shown = (fence.read_slice(stored),) if stored else ()
        routes = (Route("cluster-ip", "127.18.0.1", 80, "TCP", (Endpoint(IP, 8080),)),) if self.routed else ()
        at = asyncio.get_running_loop().time()
        return witness.answer_of("node-1", Facts("node-1", "dump", at, routes, shown))


def node(name, address):
    return {"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}


def asking(**changes):
    ask = ask_of(("u", "demo", "leaving"), (Endpoint(IP),), Mode.GATE)
    return msgspec.structs.replace(ask, **{"round": "k", "wait_seconds": 2.0, **changes})


def play(story):
    async def all_of_it():
        world = World()
        coordinator = Coordinator(world.api, CoordinatorSettings("c", "127.16.0.11"), lambda line: None)
        async with wire.serving(lambda request: world.agent(request), "127.16.0.11", 15200):
            running = asyncio.create_task(coordinator.run())
            await asyncio.sleep(0.5)
            try:
                return await story(world, coordinator)
            finally:
                running.cancel()

    return vtime.run(all_of_it(), limit_seconds=100)


async def until(coordinator, wanted, seconds=5.0):
    """The first view that ``wanted`` holds for."""
    since = ""
    async with asyncio.timeout(seconds):
        while True:
            view = await coordinator.acknowledge(asking(since=since))
            if wanted(view):
                return view
            since = view.version


def verdicts(view):
    return {one.node: one.verdict for one in view.nodes}


def test_a_drain_is_listed_fenced_and_acknowledged():
    async def story(world, coordinator):
        view = await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        assert view.sent_at > view.clean_at
        assert view.observers == ("node-1",)
        assert view.serving == (f"{IP}:8080/TCP",)

    play(story)


def test_a_pod_still_listed_ready_gets_no_epoch_and_the_reason_is_told():
    async def story(world, coordinator):
        world.slice(is_listed_ready=True)
        view = await until(coordinator, lambda view: any("ready" in reason for reason in view.reasons))
        await asyncio.sleep(3)
        view = await coordinator.acknowledge(asking())
        assert (view.clean_at, view.epoch) == (None, "")

    play(story)


def test_a_pod_that_was_cut_by_label_before_its_end_is_not_waited_for_in_slices_that_it_has_left():
    """``tidegate drain`` deletes it, its gate asks, and the record of the label cut stands: it was seen by that."""
    record = DrainRecord("t", "RELEASED", "label", labels={"app": "echo"}, seen=("demo/echo",))

    async def story(world, coordinator):
        pod = copy.deepcopy(world.api.peek(PODS, "leaving", "demo"))
        pod["metadata"] |= {"labels": {"app": "tidegate-cut"}, "annotations": encode_drain(record)}
        world.api.put(PODS, pod)
        slice_ = copy.deepcopy(world.api.peek(ENDPOINTSLICES, "echo-1", "demo"))
        world.api.put(ENDPOINTSLICES, {**slice_, "endpoints": slice_["endpoints"][1:]})
        view = await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        assert view.reasons == ()

    play(story)


def test_a_pod_that_is_listed_again_loses_its_epoch_and_gets_a_later_one():
    async def story(world, coordinator):
        before = await until(coordinator, lambda view: view.epoch)
        world.slice(is_listed_ready=True)
        dirty = await until(coordinator, lambda view: view.clean_at is None)
        assert dirty.epoch == ""
        world.slice(is_listed_ready=False)
        after = await until(coordinator, lambda view: view.epoch)
        assert after.epoch != before.epoch
        assert after.spell != before.spell

    play(story)


def test_a_fresh_look_lists_and_asks_every_node_anew():
    async def story(world, coordinator):
        await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        asked, listed = len(world.questions), len(world.api.calls)
        view = await coordinator.acknowledge(asking(fresh=True, wait_seconds=0.0))
        assert view.is_fresh
        assert [question.wait_seconds for question in world.questions[asked:]].count(0.0) == 1
        listed_now = {call[1] for call in world.api.calls[listed:] if call[0] == "list"}
        assert listed_now >= {"endpointslices", "services", "nodes"}

    play(story)


def test_a_fresh_look_asks_api_and_nodes_at_once():
    async def story(world, coordinator):
        await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        list_, answer = world.api.list, world.answer

        async def slow(*asked, **more):
            await asyncio.sleep(0.1)
            return await list_(*asked, **more)

        async def slow_agent(request):
            await asyncio.sleep(0.1)
            return whole(200, witness.encode_answer(answer()))

        world.api.list, world.agent = slow, slow_agent
        began = asyncio.get_running_loop().time()
        assert (await coordinator.acknowledge(asking(fresh=True, wait_seconds=0.0))).is_fresh
        assert asyncio.get_running_loop().time() - began < 0.15

    play(story)


def test_a_fresh_look_sees_a_route_that_the_long_poll_has_not_told_of():
    async def story(world, coordinator):
        await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        world.routed = True  # the poll that is open sleeps on
        view = await coordinator.acknowledge(asking(fresh=True, wait_seconds=0.0))
        assert verdicts(view) == {"node-1": "refuted"}

    play(story)


def test_looks_at_once_share_two_passes():
    async def story(world, coordinator):
        await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        asked = len(world.questions)
        views = await asyncio.gather(
            *(coordinator.acknowledge(asking(fresh=True, wait_seconds=0.0)) for _ in range(20))
        )
        assert all(view.is_fresh for view in views)
        assert len(world.questions) - asked <= 2

    play(story)


def test_a_look_is_not_fresh_when_the_api_does_not_answer():
    async def story(world, coordinator):
        await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        world.api.break_down(True)
        view = await coordinator.acknowledge(asking(fresh=True, wait_seconds=0.0))
        assert not view.is_fresh

    play(story)


def test_a_look_is_not_fresh_while_a_listed_node_has_not_been_asked():
    async def story(world, coordinator):
        await until(coordinator, lambda view: "confirmed" in verdicts(view).values())
        world.api.watch_lag = 3.0
        world.api.put(NODES, node("node-2", "127.16.0.12"))
        view = await coordinator.acknowledge(asking(fresh=True, wait_seconds=0.0))
        assert not view.is_fresh
        await asyncio.sleep(4)
        view = await coordinator.acknowledge(asking(fresh=True, wait_seconds=0.0))
        assert view.is_fresh
        assert verdicts(view) == {"node-1": "confirmed", "node-2": "unreachable"}

    play(story)


def test_a_standby_refuses_to_answer():
    async def story(world, coordinator):
        coordinator.lease._held_until = 0.0
        world.api.break_down(True)
        response = await coordinator.exchange(Request("POST", "/v1/acknowledge", (), {}, b"{}"))
        assert response.status == 503

    play(story)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"uid": "u"}',
        b"\xff",
        b'{"uid":"u","namespace":"d","name":"n","endpoints":["x"],"mode":"gate"}',
        b'{"uid":"u","namespace":"d","name":"n","endpoints":[],"mode":"gate"}',
        b'{"uid":"u","namespace":"d","name":"n","endpoints":["1.1.1.1:1"],"mode":"gate","new":1}',
    ],
)
def test_a_question_that_is_none_is_refused(body):
    async def story(world, coordinator):
        response = await coordinator.exchange(Request("POST", "/v1/acknowledge", (), {}, body))
        assert response.status == 400
        assert len(coordinator.flights) == 0

    play(story)


def test_the_status_names_what_each_drain_waits_for():
    async def story(world, coordinator):
        world.routed = True
        await until(coordinator, lambda view: "refuted" in verdicts(view).values())
        [drain] = json.loads(coordinator.status())["drains"]
        assert drain["pod"] == "leaving"
        assert drain["stragglers"][0]["node"] == "node-1"
        assert "still leads to" in drain["stragglers"][0]["detail"]

    play(story)


def test_a_round_that_begins_during_a_list_is_not_answered_by_it():
    async def all_of_it():
        world, flights = World(), Flights()
        sourcing = Sourcing(world.api, flights, lambda line: None)
        flight = flights.touch(asking(), 0.0)
        listing = asyncio.create_task(sourcing.list_now())
        await asyncio.sleep(0.0012)
        flights.touch(asking(round="k/1"), 0.0)
        assert await listing
        assert flight.clean_at is None
        assert await sourcing.list_now()
        assert flight.clean_at is not None

    vtime.run(all_of_it(), limit_seconds=10)


def test_an_answer_of_another_protocol_is_no_answer():
    body = b'{"instance":"c","now":1.0,"spell":"s","protocol":2}'
    with pytest.raises(CoordinatorUnreachable):
        decode_view(200, body)
    with pytest.raises(CoordinatorUnreachable):
        decode_view(200, b'{"instance":"c","now":1.0,"spell":"s","clean":true}')
    with pytest.raises(CoordinatorUnreachable):
        decode_view(503, b"")
