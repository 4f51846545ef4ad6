"""The drain table: every state with every event, in both modes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drain_stage import CLIENT, ENDPOINT, POD, answer, busy, epoch

from tidegate.dataplane import Quiet, Socket, Unreadable
from tidegate.drain import (
    Drain,
    EpochTooEarly,
    EventError,
    Mode,
    Policy,
    State,
    UnlistedEvent,
    begin,
    record,
    resume,
    step,
    waiting_for,
)
from tidegate.drain.event import (
    EVENTS,
    Acknowledged,
    Bypassed,
    Cut,
    DeadlinePassed,
    Event,
    FenceWritten,
    Gone,
    ObserversListed,
    Refused,
    Released,
    Restored,
    Resumed,
    SocketsRead,
    SourceClean,
    SourceDirty,
    Tombstoned,
)
from tidegate.drain.table import ONLY, RULES, TRANSITIONS
from tidegate.model.names import DrainRecord, Ending

QUIET = Quiet()
ROAD = [
    ObserversListed(at=0, observers=("node-1",)),
    Cut(at=0),
    SourceClean(at=1),
    FenceWritten(at=2, epoch=epoch(7), sent_at=2),
    Acknowledged(at=3, acknowledgement=answer(7)),
    SocketsRead(at=4, quiet=QUIET),
]
AGAIN = [
    Tombstoned(at=5),
    SourceClean(at=6),
    FenceWritten(at=7, epoch=epoch(8), sent_at=7),
    Acknowledged(at=8, acknowledgement=answer(8, fence=8)),
    SocketsRead(at=9, quiet=QUIET),
]


def run(drain: Drain, *events: Event) -> Drain:
    for event in events:
        drain = step(drain, event)
    return drain


def roads(mode: Mode) -> dict[State, list[Event]]:
    """To each state, the shortest way. QUIET is never rested in by a gate drain: it is sealed from the start."""
    whole = ROAD + (AGAIN if mode is Mode.LABEL else [])
    found = {
        State.SERVING: ROAD[:1],
        State.CUT: ROAD[:2],
        State.CLEAN: ROAD[:3],
        State.FENCED: ROAD[:4],
        State.UNROUTED: ROAD[:5],
        State.DRAINED: whole,
        State.OVERDUE: [*ROAD[:4], DeadlinePassed(at=20)],
        State.BYPASSED: [Bypassed(at=1, reason="no deletionTimestamp")],
        State.RELEASED: [*whole, Released(at=10)],
        State.GONE: [*whole, Released(at=10), Gone(at=11)],
    }
    if mode is Mode.LABEL:
        found[State.QUIET] = ROAD
        found[State.REFUSED] = [Refused(at=0, reason="the floor is 1")]
        found[State.RESTORED] = [*ROAD[:4], Restored(at=5)]
    return {state: found[state] for state in State if state in found}


def at_state(state: State, mode: Mode) -> Drain:
    return run(begin(POD, mode), *roads(mode)[state])


def sample(event: type[Event], drain: Drain) -> Event:
    """One event of this kind, later than all that happened, and saying nothing new."""
    at = 30.0
    match event.__name__:
        case "SourceDirty":
            return SourceDirty(at=at, reasons=("listed as ready",))
        case "FenceWritten":
            return FenceWritten(at=at, epoch=epoch(9), sent_at=at)
        case "ObserversListed":
            return ObserversListed(at=at, observers=("node-1",))
        case "Acknowledged":
            number = drain.epoch.number if drain.epoch else 7
            known = answer(number, fence=number) if drain.acknowledgements else answer(number, fence=number - 1)
            return Acknowledged(at=at, acknowledgement=known)
        case "SocketsRead":
            return SocketsRead(at=at, quiet=drain.quiet or busy(1))
        case "Bypassed" | "Refused":
            return event(at=at, reason="because")
        case _:
            return event(at=at)


CASES = [
    pytest.param(mode, state, event, id=f"{mode.value}-{state.name}-{event.__name__}")
    for mode in Mode
    for state in roads(mode)
    for event in EVENTS
]


@pytest.mark.parametrize(("mode", "state", "event"), CASES)
def test_an_event_is_listed_or_it_is_an_error_that_changes_nothing(mode, state, event):
    drain = at_state(state, mode)
    assert drain.state is state
    before = replace(drain)
    if event in TRANSITIONS[state] and ONLY.get(event, mode) is mode:
        assert step(drain, sample(event, drain)).state is TRANSITIONS[state][event]
    else:
        with pytest.raises(UnlistedEvent, match=f"{event.__name__} is not listed for state {state.name}"):
            step(drain, sample(event, drain))
    assert drain == before


def test_the_grid_of_states_and_events_is_as_written_down(golden):
    lines = []
    for mode in Mode:
        lines.append(f"{mode.value} mode: the state after an event ('.' stays, blank is an error)\n")
        lines.append(" " * 17 + "".join(f"{state.name:<9} " for state in roads(mode)).rstrip())
        for event in EVENTS:
            cells = [_cell(at_state(state, mode), event) for state in roads(mode)]
            lines.append(f"{event.__name__:<16} {''.join(f'{cell:<9} ' for cell in cells)}".rstrip())
        lines.append("")
    golden("drain/grid.txt", "\n".join(lines))


def _cell(drain: Drain, event: type[Event]) -> str:
    try:
        after = step(drain, sample(event, drain))
    except EventError:
        return ""
    return "." if after.state is drain.state else after.state.name


def test_every_state_has_a_row_and_every_event_a_place():
    assert set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(EVENTS)


def test_rules_end_where_no_rule_applies():
    seen = {rule.then for rule in RULES}
    assert seen <= set(State)
    for state in (State.SERVING, State.CUT, State.CLEAN, State.OVERDUE, State.RELEASED, State.GONE):
        assert not [rule for rule in RULES if state in rule.where]


def test_an_epoch_sent_before_the_clean_list_finished_changes_nothing():
    drain = at_state(State.CLEAN, Mode.GATE)
    for sent_at in (0.5, 1.0):
        with pytest.raises(EpochTooEarly):
            step(drain, FenceWritten(at=2, epoch=epoch(7), sent_at=sent_at))
    assert drain.epoch is None


def test_a_later_clean_list_does_not_make_an_older_epoch_count():
    drain = step(at_state(State.CLEAN, Mode.GATE), SourceClean(at=5))
    with pytest.raises(EpochTooEarly):
        step(drain, FenceWritten(at=6, epoch=epoch(7), sent_at=2))


def test_sockets_read_before_the_last_observer_let_go_say_nothing():
    drain = run(begin(POD, Mode.GATE), *ROAD[:4], SocketsRead(at=2.5, quiet=QUIET), ROAD[4])
    assert drain.state is State.UNROUTED
    drain = step(drain, SocketsRead(at=2.9, quiet=QUIET))
    assert drain.state is State.UNROUTED
    assert step(drain, SocketsRead(at=3.1, quiet=QUIET)).state is State.DRAINED


def test_a_route_that_comes_back_takes_the_proof_and_the_quiet_back():
    drain = at_state(State.DRAINED, Mode.GATE)
    doubted = step(drain, Acknowledged(at=5, acknowledgement=answer(7, fence=7, routed=True)))
    assert (doubted.state, doubted.result, doubted.quiet) == (State.FENCED, None, None)
    again = step(doubted, Acknowledged(at=6, acknowledgement=answer(7)))
    assert again.state is State.UNROUTED


def test_a_connection_that_comes_back_takes_the_quiet_back():
    drain = at_state(State.DRAINED, Mode.GATE)
    assert step(drain, SocketsRead(at=5, quiet=busy(1))).state is State.UNROUTED


def test_a_verified_drain_whose_deadline_passes_stays_verified():
    drain = step(at_state(State.DRAINED, Mode.GATE), DeadlinePassed(at=30))
    assert drain.state is State.DRAINED
    assert drain.result is not None
    assert drain.result.result is Ending.VERIFIED


def test_a_label_drain_is_not_released_before_its_second_round():
    quiet = at_state(State.QUIET, Mode.LABEL)
    with pytest.raises(UnlistedEvent):
        step(quiet, Released(at=5))
    second = step(quiet, Tombstoned(at=5))
    assert (second.state, second.epoch, dict(second.acknowledgements)) == (State.CUT, None, {})


def test_a_resumed_drain_takes_nothing_over():
    drain = run(begin(POD, Mode.LABEL), *ROAD[:5], DeadlinePassed(at=300), Resumed(at=400))
    assert (drain.state, drain.epoch, drain.clean_at, drain.quiet, drain.result) == (State.CUT, None, None, None, None)


def test_a_restored_pod_has_no_result_unless_its_deadline_had_passed():
    assert run(begin(POD, Mode.LABEL), *ROAD, Restored(at=9)).result is None
    overdue = run(begin(POD, Mode.LABEL), *ROAD[:4], DeadlinePassed(at=9), Restored(at=10))
    assert overdue.result is not None
    assert overdue.result.result is Ending.TIMED_OUT


def test_a_graceful_app_is_released_when_no_new_connection_can_arrive():
    drain = run(begin(POD, Mode.GATE, Policy.GRACEFUL), *ROAD[:5])
    assert drain.state is State.DRAINED
    assert drain.result is not None
    assert drain.result.result is Ending.ASSUMED


def test_a_graceful_release_is_proven_once_its_connections_were_seen_to_end():
    drain = run(begin(POD, Mode.GATE, Policy.GRACEFUL), *ROAD[:5], Released(at=4))
    after = step(drain, SocketsRead(at=6, quiet=QUIET))
    assert after.result is not None
    assert after.result.result is Ending.VERIFIED


def test_a_deadline_that_came_first_is_not_made_good_by_what_is_seen_after_the_release():
    """Graceful or not: it was told to stop while somebody still routed to it."""
    drain = run(begin(POD, Mode.GATE, Policy.GRACEFUL), *ROAD[:4], DeadlinePassed(at=3), ROAD[4], Released(at=5))
    after = step(drain, SocketsRead(at=6, quiet=QUIET))
    assert after.result is not None
    assert after.result.result is Ending.TIMED_OUT


def test_what_is_seen_after_the_release_stands_beside_the_result():
    drain = at_state(State.RELEASED, Mode.GATE)
    after = step(drain, Acknowledged(at=12, acknowledgement=answer(7, routed=True)))
    after = step(after, SourceDirty(at=13, reasons=("listed as ready",)))
    assert after.result == drain.result
    assert len(after.regressions) == 2


def test_unreadable_sockets_are_not_quiet():
    drain = at_state(State.UNROUTED, Mode.GATE)
    assert step(drain, SocketsRead(at=4, quiet=Quiet(unreadable=(Unreadable("no header"),)))).state is State.UNROUTED


def test_a_busy_drain_names_its_clients():
    quiet = Quiet((Socket(ENDPOINT, CLIENT, "ESTABLISHED", 0, 1),))
    drain = step(at_state(State.UNROUTED, Mode.GATE), SocketsRead(at=4, quiet=quiet))
    assert waiting_for(drain) == ("1 in flight: 10.244.2.9:41000",)


def test_the_word_of_somebody_not_listed_does_not_count_once_he_is():
    drain = at_state(State.DRAINED, Mode.GATE)
    drain = step(drain, Acknowledged(at=5, acknowledgement=answer(7, node="node-2")))
    drain = step(drain, ObserversListed(at=6, observers=("node-1", "node-2")))
    assert (drain.state, drain.stragglers) == (State.FENCED, ("node-2",))


def test_an_observer_that_left_and_came_back_is_asked_anew():
    drain = at_state(State.DRAINED, Mode.GATE)
    drain = run(drain, ObserversListed(at=5, observers=("node-2",)), ObserversListed(at=6, observers=("node-1",)))
    assert drain.stragglers == ("node-1",)


def test_a_drain_with_nobody_to_ask_is_not_verified():
    drain = run(begin(POD, Mode.GATE), ObserversListed(at=0, observers=()), *ROAD[1:4])
    assert (drain.state, waiting_for(drain)) == (State.FENCED, ("at least one observer",))


def test_another_process_takes_over_the_seal_and_asks_all_else_anew():
    origin = DrainRecord("t0k", "", at="2026-11-21T10:00:00Z", labels={"app": "echo"}, seen=("demo/echo",))
    written = record(at_state(State.UNROUTED, Mode.LABEL), origin)
    assert (written.state, written.epoch, written.sealed, written.token) == ("UNROUTED", "k3f9/7", False, "t0k")
    assert (written.waiting, written.labels, written.seen) == (("the pod's sockets",), {"app": "echo"}, ("demo/echo",))
    second = record(run(at_state(State.QUIET, Mode.LABEL), *AGAIN[:3]), origin)
    assert (second.sealed, second.stragglers) == (True, ("node-1",))
    taken = run(resume(POD, second), ObserversListed(at=0, observers=("node-1",)), Cut(at=0))
    assert (taken.state, taken.epoch, taken.is_sealed) == (State.CUT, None, True)
    assert run(taken, *ROAD[2:]).state is State.DRAINED


def test_a_gate_drain_taken_over_is_sealed_as_it_always_was():
    written = record(at_state(State.FENCED, Mode.GATE), DrainRecord("t0k", ""))
    assert run(resume(POD, written), *ROAD).state is State.DRAINED
