"""The node's testimony: everything that concerns the endpoints asked about, as soon as it changes."""

from __future__ import annotations

import asyncio
import json

from tidegate import vtime
from tidegate.agent.witness import SLIGHT_SECONDS, NodeWitness
from tidegate.model.endpoint import Endpoint
from tidegate.observers.kernel import KernelUnreachable, LabTables
from tidegate.observers.witness import Question, decode_answer, encode_answer

POD, OTHER = "127.17.1.2:8080", "127.17.2.2:8080"


class Kernel:
    """A kernel whose table is set by the test."""

    def __init__(self):
        self.generation, self.endpoints, self.opening, self.dead = 1, [POD, OTHER], [], False
        self.changed = asyncio.Event()
        self.dumps = 0

    def commit(self, *endpoints):
        self.generation += 1
        self.endpoints = list(endpoints)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def dump(self):
        if self.dead:
            raise KernelUnreachable("gone")
        self.dumps += 1
        service = {
            "namespace": "demo", "name": "echo", "port_name": "http", "protocol": "TCP", "cluster_ip": "127.18.0.1",
            "port": 80, "node_port": 0, "affinity_seconds": 0, "endpoints": self.endpoints,
        }  # fmt: skip
        track = [
            {"protocol": "tcp", "state": "SYN_SENT", "source": "127.9.9.9:4000", "destination": "127.18.0.1:80",
             "endpoint": endpoint}
            for endpoint in self.opening
        ]  # fmt: skip
        at = asyncio.get_running_loop().time()
        dump = {"kernel": "tidegate-lab/1", "node": "node-1", "generation": self.generation, "at": at}
        return json.dumps(dump | {"services": [service], "redirects": [], "conntrack": track})

    async def wait(self, generation, seconds):
        try:
            async with asyncio.timeout(seconds):
                while self.generation <= generation:
                    await self.changed.wait()
        except TimeoutError:
            pass
        return await self.dump()


def play(story):
    async def whole():
        kernel = Kernel()
        return await story(kernel, NodeWitness(LabTables(kernel, "node-1"), "node-1"))

    return vtime.run(whole(), limit_seconds=100)


ASKED = (Endpoint("127.17.1.2"),)


def test_a_route_to_an_asked_endpoint_is_told_and_no_other():
    async def story(kernel, witness):
        facts = (await witness.answer(Question(ASKED))).facts
        assert [str(to) for route in facts.routes for to in route.endpoints] == [POD]

    play(story)


def test_an_answer_survives_the_wire():
    async def story(kernel, witness):
        kernel.opening = [POD]
        answer = await witness.answer(Question(ASKED))
        assert decode_answer(encode_answer(answer), "node-1") == answer

    play(story)


def test_a_long_poll_answers_when_the_route_goes_and_not_before():
    async def story(kernel, witness):
        loop = asyncio.get_running_loop()
        known = await witness.answer(Question(ASKED))
        loop.call_later(3, kernel.commit, OTHER)
        answer = await witness.answer(Question(ASKED, known.digest, 10))
        assert loop.time() == 3
        assert answer.facts.routes == ()

    play(story)


def test_a_change_that_does_not_concern_the_question_is_not_told():
    async def story(kernel, witness):
        loop = asyncio.get_running_loop()
        known = await witness.answer(Question(ASKED))
        loop.call_later(1, kernel.commit, POD)
        answer = await witness.answer(Question(ASKED, known.digest, 5))
        assert loop.time() > 4.9
        assert answer.digest == known.digest

    play(story)


def test_a_handshake_that_ends_is_told_although_no_table_changed():
    async def story(kernel, witness):
        loop = asyncio.get_running_loop()
        kernel.commit(OTHER)
        kernel.opening = [POD]
        known = await witness.answer(Question(ASKED))
        assert len(known.facts.tracked) == 1
        loop.call_later(0.3, kernel.opening.clear)
        answer = await witness.answer(Question(ASKED, known.digest, 5))
        assert answer.facts.tracked == ()
        assert loop.time() < 0.33

    play(story)


def test_a_kernel_that_cannot_be_asked_is_unreadable_and_not_asked_in_a_loop():
    async def story(kernel, witness):
        kernel.dead = True
        known = await witness.answer(Question(ASKED))
        assert known.facts.unreadable
        answer = await witness.answer(Question(ASKED, known.digest, 3))
        assert answer.digest == known.digest
        assert asyncio.get_running_loop().time() > 2.9

    play(story)


def test_an_idle_poll_costs_two_dumps():
    async def story(kernel, witness):
        known = await witness.answer(Question(ASKED))
        await witness.answer(Question(ASKED, known.digest, 2))
        assert kernel.dumps == 3

    play(story)


def test_connections_being_opened_to_what_is_still_routed_are_no_hurried_news():
    async def story(kernel, witness):
        loop = asyncio.get_running_loop()
        known = await witness.answer(Question(ASKED))
        kernel.opening = [POD]
        answer = await witness.answer(Question(ASKED, known.digest, 5))
        assert len(answer.facts.tracked) == 1 and loop.time() == SLIGHT_SECONDS
        assert kernel.dumps < 5

    play(story)


def test_a_commit_is_told_at_once_while_connections_are_opened_all_the_time():
    async def story(kernel, witness):
        loop = asyncio.get_running_loop()
        known = await witness.answer(Question(ASKED))
        kernel.opening = [POD]
        loop.call_later(0.1, kernel.commit, OTHER)
        answer = await witness.answer(Question(ASKED, known.digest, 5))
        assert answer.facts.routes == () and len(answer.facts.tracked) == 1
        assert abs(loop.time() - 0.1) < 0.001

    play(story)
