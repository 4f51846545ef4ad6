"""What a trace takes from nodes: never an instant later than the truth, never a clock that is not ours."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tidegate import vtime
from tidegate.client.trace_nodes import Connections, RoutesAsked, follow_routes
from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.dataplane.sockets import Quiet, Socket
from tidegate.kube.errors import Unreachable
from tidegate.model.endpoint import Endpoint
from tidegate.observers.witness import answer_of

POD = (Endpoint("10.0.0.1"),)
ROUTE = Route("cluster-ip", "10.200.0.1", 80, "TCP", (Endpoint("10.0.0.1", 8080),), "demo/echo:http")
LIVE = Quiet((Socket(Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.9", 4711), "ESTABLISHED", 0, 1),))
UNREADABLE = Quiet(unreadable=(Unreadable("no table"),))


class Agents:
    """Gives prepared answers, each half a second after it was asked; then stays silent."""

    def __init__(self, *answers):
        self._answers = list(answers)

    async def _next(self):
        await asyncio.sleep(0.5)
        if not self._answers:
            await asyncio.sleep(3600)
        found = self._answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def ask(self, node, question):
        return answer_of(node, await self._next())

    async def connections(self, node, endpoints):
        return await self._next()


def looked(*answers):
    async def story():
        told = []
        looking = Connections(Agents(*answers), told.append)
        task = asyncio.create_task(looking.follow("node-1", POD))
        await asyncio.sleep(10)
        task.cancel()
        return told, looking.last()

    return vtime.run(story())


def test_the_last_connection_is_no_later_than_the_look_that_saw_it_began():
    told, last = looked(Quiet(), LIVE, LIVE, Quiet(), Quiet())
    [first] = told
    began = first.at - timedelta(seconds=1.25)  # two answers of half a second, a pause between them
    assert last.at == began + timedelta(seconds=1.5)
    assert last.detail.startswith("none at")


def test_tables_that_cannot_be_read_never_end_a_connection():
    _, last = looked(LIVE, UNREADABLE)
    assert last.detail == "no later look"
    _, never = looked(UNREADABLE)
    assert (never.at, never.gap) == (None, "no table")
    _, none = looked(Quiet())
    assert none.at is None and "may be missed" in none.gap


def followed(*answers, is_late=False):
    async def story():
        told = []
        task = asyncio.create_task(follow_routes(Agents(*answers), RoutesAsked("node-1", POD, is_late), told.append))
        await asyncio.sleep(10)
        task.cancel()
        return [(one.step, one.at and one.at.timestamp(), one.gap) for one in told]

    return vtime.run(story())


def facts(at, *routes):
    return Facts("node-1", "dump", at, routes)


START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def test_a_route_has_the_instant_of_the_dump_that_first_showed_it():
    told = followed(facts(START + 0.4), facts(START + 0.9, ROUTE), facts(START + 1.4))
    assert told == [("routed", START + 0.9, ""), ("unrouted", START + 1.4, "")]


@pytest.mark.parametrize("skew", [-60.0, 60.0])
def test_a_node_whose_clock_is_off_is_timed_by_ours(skew):
    [(_, at, _)] = followed(facts(START + 0.4 + skew, ROUTE))
    assert at == START + 0.5


def test_a_route_older_than_the_trace_is_a_gap_and_its_end_is_not():
    told = followed(facts(START, ROUTE), facts(START + 0.9), is_late=True)
    assert told == [("routed", None, "not seen: the trace began later"), ("unrouted", START + 0.9, "")]


def test_an_agent_that_fails_is_a_gap_once():
    silent = Unreachable("no agent")
    assert followed(silent, silent, silent) == [("routed", None, "not seen: no agent")]
