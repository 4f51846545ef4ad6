"""What a node has said, about what, and when it still counts."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.agent.canvass import Canvass, Reading, judge
from tidegate.dataplane.facts import Facts, Route
from tidegate.drain.acknowledgement import Verdict
from tidegate.kube import wire
from tidegate.kube.exchange import whole
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers import witness

E7, E8 = Epoch("main", 7), Epoch("main", 8)
ONE, TWO = Endpoint("127.17.1.2"), Endpoint("127.17.1.3")


def facts(at=1.0, epoch=E8, routed=()):
    routes = tuple(Route("cluster-ip", "127.18.0.1", 80, "TCP", tuple(routed)) for _ in routed[:1])
    return Facts("node-1", "dump", at, routes, (epoch,))


def reading(seen, about=(ONE,), sent=0.0, received=0.1):
    return Reading(frozenset(about), sent, received, seen)


def verdict(known, endpoints=(ONE,), epoch=E8):
    return judge("node-1", known, endpoints, epoch).verdict


def test_a_dump_with_the_fence_and_no_route_confirms():
    assert verdict(reading(facts())) is Verdict.CONFIRMED


def test_a_dump_that_was_not_asked_about_an_endpoint_says_nothing_about_it():
    assert verdict(reading(facts(), about=(TWO,))) is Verdict.PENDING


def test_a_route_refutes_whatever_the_fence_says():
    assert verdict(reading(facts(routed=(Endpoint("127.17.1.2", 8080),)))) is Verdict.REFUTED


def test_an_older_fence_is_pending():
    assert verdict(reading(facts(epoch=E7))) is Verdict.PENDING


def test_a_node_never_asked_is_pending_and_one_that_failed_is_unreachable():
    failed = Reading(frozenset((ONE,)), 0.0, 0.1, failure="refused", failed_at=1.0)
    assert verdict(None) is Verdict.PENDING
    assert verdict(failed) is Verdict.UNREACHABLE


def test_an_older_dump_that_arrives_late_does_not_replace_a_newer_one():
    newer, older = reading(facts(at=5.0), sent=1.0, received=5.1), reading(facts(at=4.0), sent=0.9, received=5.2)
    assert not older.follows(newer)
    assert newer.follows(older)


def test_what_was_asked_before_a_failure_does_not_undo_it():
    failed = Reading(frozenset((ONE,)), 2.0, 2.1, failure="too many questions", failed_at=2.1)
    assert failed.follows(reading(facts(at=1.9), sent=1.0, received=1.95))
    assert not reading(facts(at=2.05), sent=1.9, received=2.2).follows(failed), "its dump may be the older one"
    assert reading(facts(at=2.3), sent=2.2, received=2.4).follows(failed)


def test_a_node_whose_clock_was_set_back_is_heard_again():
    before, after = reading(facts(at=500.0), sent=1.0, received=1.1), reading(facts(at=5.0), sent=2.0, received=2.1)
    assert after.follows(before)


class Agent:
    """A node agent that answers with ``seen``, after ``delay``."""

    def __init__(self, seen, delay=0.0, node="node-1"):
        self.seen, self.delay, self.node = seen, delay, node
        self.questions = []

    async def exchange(self, request):
        question = witness.decode_question(request.body)
        self.questions.append(question)
        answer = witness.answer_of(self.node, self.seen)
        if question.since == answer.digest:
            await asyncio.sleep(question.wait_seconds)
        await asyncio.sleep(self.delay)
        return whole(200, witness.encode_answer(witness.answer_of(self.node, self.seen)))


def play(story, agent, address="127.16.0.11"):
    async def whole_story():
        async with wire.serving(agent.exchange, address, 15200):
            canvass = Canvass(lambda node: None)
            try:
                await story(canvass)
            finally:
                canvass.close()

    vtime.run(whole_story(), limit_seconds=100)


def test_a_batch_that_grows_is_asked_about_at_once():
    agent = Agent(facts())

    async def story(canvass):
        canvass.set_nodes({"node-1": "127.16.0.11"})
        canvass.set_endpoints((ONE,))
        await asyncio.sleep(0.5)
        canvass.set_endpoints((ONE, TWO))
        await asyncio.sleep(0.01)
        assert verdict(canvass.readings["node-1"], (TWO,)) is Verdict.CONFIRMED
        assert [question.endpoints for question in agent.questions] == [(ONE,), (ONE,), (ONE, TWO), (ONE, TWO)]

    play(story, agent)


def test_an_unchanged_node_is_asked_once_per_poll_and_not_in_a_loop():
    agent = Agent(facts())

    async def story(canvass):
        canvass.set_nodes({"node-1": "127.16.0.11"})
        canvass.set_endpoints((ONE,))
        await asyncio.sleep(10)
        assert len(agent.questions) <= 7

    play(story, agent)


def test_a_node_that_moved_has_said_nothing():
    agent = Agent(facts())

    async def story(canvass):
        canvass.set_nodes({"node-1": "127.16.0.11"})
        canvass.set_endpoints((ONE,))
        await asyncio.sleep(0.5)
        canvass.set_nodes({"node-1": "127.16.0.99"})
        assert verdict(canvass.readings.get("node-1")) is Verdict.PENDING
        await asyncio.sleep(0.5)
        assert verdict(canvass.readings["node-1"]) is Verdict.UNREACHABLE

    play(story, agent)


def test_an_agent_that_answers_for_another_node_is_unreadable():
    agent = Agent(facts(), node="node-2")

    async def story(canvass):
        canvass.set_nodes({"node-1": "127.16.0.11"})
        canvass.set_endpoints((ONE,))
        await canvass.ask_all_now()
        assert verdict(canvass.readings["node-1"]) is Verdict.UNREADABLE

    play(story, agent)


def test_an_agent_that_hangs_is_unreachable_within_seconds():
    agent = Agent(facts(), delay=60)

    async def story(canvass):
        canvass.set_nodes({"node-1": "127.16.0.11"})
        canvass.set_endpoints((ONE,))
        began = asyncio.get_running_loop().time()
        await canvass.ask_all_now()
        assert asyncio.get_running_loop().time() - began < 3
        assert verdict(canvass.readings["node-1"]) is Verdict.UNREACHABLE

    play(story, agent)


def test_an_answer_that_is_not_one_is_unreadable():
    class Liar(Agent):
        async def exchange(self, request):
            return whole(200, b'{"protocol": 1, "node": "node-1", "clean": true}')

    async def story(canvass):
        canvass.set_nodes({"node-1": "127.16.0.11"})
        canvass.set_endpoints((ONE,))
        await canvass.ask_all_now()
        assert verdict(canvass.readings["node-1"]) is Verdict.UNREADABLE

    play(story, Liar(facts()))
