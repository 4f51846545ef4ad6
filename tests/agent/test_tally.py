"""What was judged about one epoch is never taken for an answer about another."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from tidegate import vtime
from tidegate.agent.canvass import Reading
from tidegate.agent.proxies import Proxies
from tidegate.agent.tally import Tally
from tidegate.dataplane.facts import Facts, Route
from tidegate.drain.acknowledgement import Acknowledgement, Evidence, Verdict
from tidegate.drain.fence import FenceWrite
from tidegate.drain.state import Mode
from tidegate.engine.flights import Flights
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.coordinator import ask_of

ONE, TWO = Endpoint("127.17.1.2"), Endpoint("127.17.1.3")


def reading(number=7, about=(ONE, TWO), routed=()):
    routes = tuple(Route("cluster-ip", "127.18.0.1", 80, "TCP", (to,)) for to in routed)
    return Reading(frozenset(about), 0.0, 0.1, Facts("node-1", "dump", 1.0, routes, (Epoch("main", number),)))


def with_flight(story, number=7):
    async def whole():
        ask = msgspec.structs.replace(ask_of(("a", "demo", "a"), (ONE,), Mode.GATE), round="k")
        flight = Flights().touch(ask, 0.0)
        flight.write = FenceWrite(Epoch("main", number), 1.0)
        return story(flight, Tally())

    return vtime.run(whole())


def verdicts(tally, flight, readings):
    return [view.verdict for view in tally.views(flight, ("node-1",), readings)]


def test_a_later_epoch_is_judged_anew_although_the_node_has_said_nothing_new():
    """A drain that started over: what the node showed was enough for the epoch before."""

    def story(flight, tally):
        said = {"node-1": reading(7)}
        assert verdicts(tally, flight, said) == ["confirmed"]
        flight.write = FenceWrite(Epoch("main", 8), 2.0)
        assert verdicts(tally, flight, said) == ["pending"]

    with_flight(story)


def test_other_endpoints_are_judged_anew_too():
    def story(flight, tally):
        said = {"node-1": reading(7, routed=(TWO,))}
        assert verdicts(tally, flight, said) == ["confirmed"]
        flight.endpoints = (TWO,)
        assert verdicts(tally, flight, said) == ["refuted"]

    with_flight(story)


def test_a_new_reading_replaces_the_old_one_and_says_whether_it_says_something_else():
    def story(flight, tally):
        assert tally.take(flight, "node-1", reading(7, routed=(ONE,)))
        assert not tally.take(flight, "node-1", reading(7, routed=(ONE,)))
        assert tally.take(flight, "node-1", reading(7))
        assert verdicts(tally, flight, {"node-1": reading(6)}) == ["pending"]

    with_flight(story)


def test_without_an_epoch_nobody_has_said_anything():
    def story(flight, tally):
        flight.write = None
        assert not tally.take(flight, "node-1", reading(7))
        assert tally.views(flight, ("node-1",), {"node-1": reading(7)}) == ()

    with_flight(story)


def test_who_has_not_been_judged_is_behind():
    def story(flight, tally):
        assert tally.is_behind(("node-1",))
        tally.take(flight, "node-1", reading(7))
        assert not tally.is_behind(("node-1",))
        assert tally.is_behind(("node-1", "node-2"))
        tally.take(flight, "node-1", reading(6))
        assert tally.is_behind(("node-1",))

    with_flight(story)


def test_where_a_second_epoch_is_needed_a_dump_without_a_fence_is_no_answer(monkeypatch):
    """Whoever judged it: the follower of that node ended on it, and said nothing more of the node."""
    generous = Acknowledgement("node-1", Verdict.CONFIRMED, Epoch("main", 7), Evidence("dump", 1.0, "no route"))
    monkeypatch.setattr("tidegate.agent.tally.judge", lambda *asked: generous)

    def story(flight, tally):
        tally.proxies = Proxies(lambda node: None, lambda: Epoch("main", 7))
        bare = replace(reading(), facts=Facts("node-1", "dump", 1.0))
        assert verdicts(tally, flight, {"node-1": bare}) == ["pending"]

    with_flight(story)
