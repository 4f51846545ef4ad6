"""The drain, as one table. Everything that affects which state follows which is on this page.

    SERVING -> CUT -> CLEAN -> FENCED -> UNROUTED -> QUIET -> DRAINED -> RELEASED -> GONE

Two kinds of transition, after h11. *Event-triggered*: something happened (``TRANSITIONS``). *State-triggered*: what
is known has become enough, or is no longer (``RULES``), run to a fixed point after every event. An event that is not
listed for a state is an error that changes nothing.

Why the order is what it is: a fence proves only what was written before it, so it counts only when it was sent after
the LIST that was clean; a connection can be the last one only when no new one can arrive, so sockets are judged only
when every observer has let go; and a proof is as of an instant, so any of these taken back takes the drain back.

There is one table for both modes. They differ in who cuts, and in what seals the cut: a deletionTimestamp cannot be
taken back, so a gate drain is sealed from the start; a label can, so a label drain puts a tombstone on the quiet pod
and goes round once more, with a new list, a new epoch, new answers (``ONLY``: events that one mode knows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tidegate.drain.event import (
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
from tidegate.drain.progress import (
    Drain,
    EventError,
    arrive,
    has_let_go,
    is_quiet_enough,
    is_sealed,
    learn,
)
from tidegate.drain.result import conclude
from tidegate.drain.state import Mode, State

S = State
# fmt: off
LEAVING: dict[type[Event], State] = {
    SourceDirty: S.CUT, DeadlinePassed: S.OVERDUE, Bypassed: S.BYPASSED, Restored: S.RESTORED, Gone: S.GONE,
}


def noting(state: State) -> dict[type[Event], State]:
    """Observations are taken note of and move nothing by themselves; what follows from them is in ``RULES``."""
    return {SourceClean: state, ObserversListed: state, Acknowledged: state, SocketsRead: state}


TRANSITIONS: dict[State, dict[type[Event], State]] = {
    S.SERVING:  {ObserversListed: S.SERVING, Bypassed: S.BYPASSED, Gone: S.GONE} | {Cut: S.CUT, Refused: S.REFUSED},
    S.CUT:      noting(S.CUT)      | LEAVING | {SourceClean: S.CLEAN},
    S.CLEAN:    noting(S.CLEAN)    | LEAVING | {FenceWritten: S.FENCED},
    S.FENCED:   noting(S.FENCED)   | LEAVING,
    S.UNROUTED: noting(S.UNROUTED) | LEAVING,
    S.QUIET:    noting(S.QUIET)    | LEAVING | {Tombstoned: S.CUT},
    S.DRAINED:  noting(S.DRAINED)  | LEAVING | {DeadlinePassed: S.DRAINED, Released: S.RELEASED},
    S.OVERDUE:  noting(S.OVERDUE)  | {SourceDirty: S.OVERDUE, DeadlinePassed: S.OVERDUE, Gone: S.GONE}
                                   | {Released: S.RELEASED, Resumed: S.CUT, Restored: S.RESTORED},
    S.BYPASSED: noting(S.BYPASSED) | {SourceDirty: S.BYPASSED, DeadlinePassed: S.BYPASSED, Gone: S.GONE}
                                   | {Released: S.RELEASED},
    S.RELEASED: noting(S.RELEASED) | {SourceDirty: S.RELEASED, DeadlinePassed: S.RELEASED, Gone: S.GONE},
    S.REFUSED:  {},
    S.RESTORED: {},
    S.GONE:     {},
}

ONLY: dict[type[Event], Mode] = {
    Tombstoned: Mode.LABEL, Refused: Mode.LABEL, Resumed: Mode.LABEL, Restored: Mode.LABEL,
}


class Rule(NamedTuple):
    """In any of ``where``, as soon as ``when`` is ``holds``: ``then``."""

    where: tuple[State, ...]
    when: Callable[[Drain], bool]
    holds: bool
    then: State


RULES = (
    Rule((S.UNROUTED, S.QUIET, S.DRAINED), has_let_go,      False, S.FENCED),
    Rule((S.QUIET, S.DRAINED),             is_quiet_enough, False, S.UNROUTED),
    Rule((S.FENCED,),                      has_let_go,      True,  S.UNROUTED),
    Rule((S.UNROUTED,),                    is_quiet_enough, True,  S.QUIET),
    Rule((S.QUIET,),                       is_sealed,       True,  S.DRAINED),
)
# fmt: on


class UnlistedEvent(EventError):
    """An event that the table does not list for the drain's state and mode. Nothing was changed."""

    def __init__(self, drain: Drain, event: Event) -> None:
        super().__init__(
            f"{drain.pod}: {type(event).__name__} is not listed for state {drain.state.name} in {drain.mode.value} mode"
        )


def step(drain: Drain, event: Event) -> Drain:
    """The drain after ``event``. Raises ``EventError``; the drain handed in is never changed."""
    target = TRANSITIONS[drain.state].get(type(event))
    if target is None or ONLY.get(type(event), drain.mode) is not drain.mode:
        raise UnlistedEvent(drain, event)
    after = replace(learn(drain, event), state=target)
    while (follows := _rule(after)) is not None:
        after = arrive(after, follows.then, event.at)
    return replace(after, result=conclude(drain, after, event))


def _rule(drain: Drain) -> Rule | None:
    """The first rule that applies: doubt comes before progress in ``RULES``."""
    return next((rule for rule in RULES if drain.state in rule.where and rule.when(drain) is rule.holds), None)
