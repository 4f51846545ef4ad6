"""Which epoch counts for which drain."""

from __future__ import annotations

import msgspec
import pytest

from tidegate import vtime
from tidegate.drain.fence import FenceWrite
from tidegate.drain.state import Mode
from tidegate.engine import flights as flights_module
from tidegate.engine.flights import Flights, TooMany
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.coordinator import ask_of


def ask(uid="a", round_="k", mode=Mode.GATE):
    return msgspec.structs.replace(ask_of((uid, "demo", uid), (Endpoint("127.17.1.2"),), mode), round=round_)


def flown(story):
    async def whole():
        return story(Flights())

    return vtime.run(whole())


def write(sent_at, number=5):
    return FenceWrite(Epoch("main", number), sent_at)


def test_one_write_covers_every_drain_whose_clean_list_had_finished():
    def story(flights):
        early, late = flights.touch(ask("a"), 0), flights.touch(ask("b"), 0)
        early.found_clean(1.0)
        late.found_clean(3.0)
        covered = flights.covered_by(write(sent_at=2.0))
        assert list(covered) == [early]
        assert late.write is None

    flown(story)


def test_a_drain_that_was_dirty_in_between_is_not_covered():
    def story(flights):
        flight = flights.touch(ask(), 0)
        flight.found_clean(1.0)
        flight.found_dirty(("back",))
        assert not list(flights.covered_by(write(2.0)))
        flight.found_clean(3.0)
        assert not list(flights.covered_by(write(2.5))), "cleaned again only after that write was sent"

    flown(story)


def test_being_clean_again_is_another_spell():
    def story(flights):
        flight = flights.touch(ask(), 0)
        flight.found_clean(1.0)
        flight.found_clean(2.0)
        assert (flight.spell, flight.clean_at) == (1, 1.0)
        flight.found_dirty(("back",))
        flight.found_clean(3.0)
        assert flight.spell == 2

    flown(story)


def test_another_round_of_the_same_keeper_starts_over():
    def story(flights):
        flight = flights.touch(ask(round_="k"), 0)
        flight.found_clean(1.0)
        flights.covered_by(write(2.0))
        assert flights.touch(ask(round_="k/1"), 3) is flight
        assert (flight.clean_at, flight.write) == (None, None)

    flown(story)


def test_two_keepers_of_one_pod_do_not_start_each_other_over():
    def story(flights):
        one, other = flights.touch(ask(round_="k"), 0), flights.touch(ask(round_="l"), 0)
        one.found_clean(1.0)
        flights.touch(ask(round_="l"), 2)
        assert one is not other
        assert one.clean_at == 1.0

    flown(story)


def test_a_silent_keeper_is_forgotten_and_a_waiting_one_is_not():
    def story(flights):
        flights.touch(ask("a"), 0)
        flights.touch(ask("b"), 0).waiting = 1
        flights.forget_silent(100.0)
        assert [flight.uid for flight in flights] == ["b"]

    flown(story)


def test_the_number_of_drains_in_flight_is_bounded(monkeypatch):
    monkeypatch.setattr(flights_module, "FLIGHTS_MAX", 2)

    def story(flights):
        flights.touch(ask("a"), 0)
        flights.touch(ask("b"), 0)
        flights.touch(ask("a"), 1)
        with pytest.raises(TooMany):
            flights.touch(ask("c"), 2)

    flown(story)
