"""What a row of readings of one replica comes to: fenced evidence confirms, weak evidence is waited for and assumed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.drain.acknowledgement import Verdict
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.observers.external import Fencing
from tidegate.observers.standing import Standing, Terms

POD = Endpoint("10.0.0.1")
CONFIRMED, PENDING, REFUTED, ASSUMED = Verdict.CONFIRMED, Verdict.PENDING, Verdict.REFUTED, Verdict.ASSUMED


def epoch(number):
    return Epoch("main", number)


def reading(fence=None, routed=False, install="main"):
    routes = (Route("proxy", "", 0, "TCP", (Endpoint("10.0.0.1", 8080),)),) if routed else ()
    return Facts("r", "d", routes=routes, fence=() if fence is None else (Epoch(install, fence),))


class Row:
    """Readings put to one standing, a second apart."""

    def __init__(self, number=5, **terms):
        self.standing, self.at, self.latest = Standing(Terms(**terms), epoch(number)), 0.0, epoch(number)

    def take(self, *args, **kwargs):
        self.at += 1.0
        return self.standing.take(reading(*args, **kwargs), (POD,), self.at, self.latest)[0]

    def fail(self):
        self.at += 1.0
        return self.standing.fail("refused")[0]


def test_absence_without_a_fence_is_waited_for_and_never_more_than_assumed():
    row = Row(settle_seconds=3.0)
    assert [row.take() for _ in range(6)] == [PENDING, PENDING, PENDING, ASSUMED, ASSUMED, ASSUMED]


def test_weak_evidence_needs_two_readings_even_without_a_settle_time():
    row = Row(settle_seconds=0.0)
    assert [row.take(), row.take()] == [PENDING, ASSUMED]


def test_a_route_in_between_starts_the_settle_time_anew():
    row = Row(settle_seconds=2.0)
    assert [row.take(), row.take(), row.take(routed=True)] == [PENDING, PENDING, PENDING]
    assert [row.take(), row.take(), row.take()] == [PENDING, PENDING, ASSUMED]


def test_so_does_a_replica_that_did_not_answer():
    row = Row(settle_seconds=2.0)
    assert [row.take(), row.take(), row.fail(), row.take(), row.take()][2:] == [Verdict.UNREACHABLE, PENDING, PENDING]


def test_a_route_that_comes_back_refutes():
    row = Row(settle_seconds=0.0)
    assert [row.take(), row.take(), row.take(routed=True)] == [PENDING, ASSUMED, REFUTED]


def test_a_single_fence_confirms_at_once():
    row = Row(fencing=Fencing.SINGLE)
    assert [row.take(4), row.take(5, routed=True), row.take(5)] == [PENDING, REFUTED, CONFIRMED]


def test_a_double_fence_wants_an_epoch_written_after_the_first_was_seen_and_that_shown_twice():
    row = Row()
    assert [row.take(5), row.take(5)] == [PENDING, PENDING], (
        "one pass may be torn: it may show the fence and a stale route"
    )
    assert row.standing.wants_epoch(row.latest)
    row.latest = epoch(6)
    assert not row.standing.wants_epoch(row.latest), "written once is enough"
    assert [row.take(5), row.take(6), row.take(6)] == [PENDING, PENDING, CONFIRMED]
    assert not row.standing.wants_epoch(row.latest)


def test_an_epoch_that_was_written_before_the_first_reading_is_no_second_one():
    row = Row()
    row.latest = epoch(9)  # other drains wrote meanwhile
    assert [row.take(7), row.take(9), row.take(9)] == [PENDING, PENDING, PENDING]
    row.latest = epoch(10)
    assert [row.take(10), row.take(10)] == [PENDING, CONFIRMED]


def test_a_torn_pass_is_not_believed():
    """The first reading shows the fence and no route because the pass had not got to it; the next pass does show it."""
    row = Row()
    assert row.take(5) is PENDING
    row.latest = epoch(6)
    assert [row.take(6, routed=True), row.take(6, routed=True)] == [PENDING, REFUTED]


def test_a_fence_that_goes_back_revokes():
    row = Row()
    row.take(5)
    row.latest = epoch(6)
    assert [row.take(6), row.take(6), row.take(3), row.take(6)] == [PENDING, CONFIRMED, PENDING, PENDING]


def test_a_fence_of_another_install_is_none():
    row = Row(settle_seconds=0.0)
    assert [row.take(9, install="other"), row.take(9, install="other")] == [PENDING, ASSUMED]


def test_what_is_unreadable_blocks_and_is_named():
    standing = Standing(Terms(), epoch(5))
    facts = Facts("r", "d", unreadable=(Unreadable("what is this", "line 3"),))
    assert standing.take(facts, (POD,), 1.0, epoch(5)) == (Verdict.UNREADABLE, "line 3: what is this")


def test_unreachable_holds_or_is_gone_on_without_by_its_policy():
    assert Row().fail() is Verdict.UNREACHABLE
    verdict, why = Standing(Terms(holds_unreachable=False), epoch(5)).fail("refused")
    assert verdict is ASSUMED and "refused" in why


def test_a_policy_of_warn_still_waits_for_one_that_answers():
    row = Row(holds_unreachable=False, fencing=Fencing.SINGLE)
    assert [row.take(5, routed=True), row.take(5)] == [REFUTED, CONFIRMED]


@pytest.mark.parametrize("said", [{"fence": 5, "routed": True}, {"fence": 4}, {}, {"routed": True}])
def test_an_advisory_observer_never_blocks_and_is_never_taken_for_proof(said):
    row = Row(is_required=False, fencing=Fencing.SINGLE)
    assert row.take(**said) is ASSUMED
    assert row.fail() is ASSUMED
    assert row.standing.unasked()[0] is ASSUMED


def test_an_advisory_observer_that_has_let_go_leaves_a_proof_whole():
    assert Row(is_required=False, fencing=Fencing.SINGLE).take(5) is CONFIRMED


def lingering(row, seconds, fence=5, routed=False):
    row.at += 1.0
    facts = replace(reading(fence, routed), linger_seconds=seconds)
    return row.standing.take(facts, (POD,), row.at, row.latest)[0]


def test_what_was_told_before_may_be_used_for_its_time_so_the_row_has_to_last_that_long():
    row = Row(fencing=Fencing.SINGLE)
    assert [lingering(row, 3.0) for _ in range(4)] == [PENDING, PENDING, PENDING, CONFIRMED]


def test_a_longer_time_that_shows_later_counts_and_a_shorter_one_takes_nothing_back():
    row = Row(fencing=Fencing.SINGLE)
    assert [lingering(row, seconds) for seconds in (1.0, 3.0, 0.0, 0.0)] == [PENDING, PENDING, PENDING, CONFIRMED]


@pytest.mark.parametrize("between", ["fail", "older", "weak"])
def test_a_row_that_was_broken_begins_anew(between):
    row = Row(fencing=Fencing.SINGLE)
    lingering(row, 2.0)
    {"fail": row.fail, "older": lambda: row.take(4), "weak": row.take}[between]()
    assert [lingering(row, 2.0) for _ in range(3)] == [PENDING, PENDING, CONFIRMED]


def test_weak_evidence_lasts_at_least_as_long_as_what_was_told_before():
    row = Row(settle_seconds=1.0)
    found = [lingering(row, seconds, fence=None) for seconds in (3.0, 1.0, 0.0, 0.0)]
    assert found == [PENDING, PENDING, PENDING, ASSUMED]


def test_an_answer_of_before_that_is_still_met_says_itself_how_long_it_is_kept():
    """A cache's copy of what was told before the fence is over in time; one that is told anew is not."""

    def met(kept):
        row.at += 1.0
        facts = reading(5, routed=True)
        routes = tuple(replace(one, kept_seconds=kept) for one in facts.routes)
        return row.standing.take(replace(facts, routes=routes, linger_seconds=3.0), (POD,), row.at, row.latest)[0]

    row = Row(fencing=Fencing.SINGLE)
    assert [met(2.0), met(1.0), lingering(row, 3.0), lingering(row, 3.0)] == [PENDING, PENDING, PENDING, CONFIRMED]
    row = Row(fencing=Fencing.SINGLE)
    assert [met(3.0), met(3.0), lingering(row, 3.0), lingering(row, 3.0)] == [PENDING, PENDING, PENDING, PENDING]
    assert [lingering(row, 3.0), lingering(row, 3.0, routed=True)] == [CONFIRMED, REFUTED]
