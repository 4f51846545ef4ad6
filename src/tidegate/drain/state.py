"""The words of the drain: its states, each with its meaning, and its modes."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a drain stands. The value is what it means, in a sentence."""

    SERVING = "nothing has been done: routes lead to the pod"
    CUT = "out of its Services; whether the EndpointSlices know is to be seen"
    CLEAN = "no EndpointSlice sends it new traffic; a fence must be written after that"
    FENCED = "the fence is written; every observer must show it, and no route"
    UNROUTED = "no new connection can arrive (S); connections in flight must end"
    QUIET = "nothing is in flight (L), but a selector could still take the pod back"
    DRAINED = "S and L hold, and nothing can take the pod back: it may be told to stop"
    OVERDUE = "the deadline has passed; what is missing is named"
    BYPASSED = "the drain could not be carried out; the reason is named"
    RELEASED = "told to stop; watched until it is gone"
    REFUSED = "a guard would have been breached: nothing was changed"
    RESTORED = "back in its Services"
    GONE = "the pod is no more"

    @property
    def meaning(self) -> str:
        return self.value

    @property
    def may_release(self) -> bool:
        """Whether the pod may be told to stop now. Only from DRAINED is the result a proof."""
        return self in (State.DRAINED, State.OVERDUE, State.BYPASSED)

    @property
    def is_over(self) -> bool:
        return self in (State.REFUSED, State.RESTORED, State.GONE)


class Mode(Enum):
    """Who holds the pod. GATE: a held preStop hook, deletionTimestamp is the cut. LABEL: ourselves, a patch is."""

    GATE = "gate"
    LABEL = "label"


class Policy(Enum):
    """What to do about connections in flight.

    ABRUPT (default): the app exits at SIGTERM, so wait for them. GRACEFUL: the app closes them itself when told to
    stop, so release once no new ones can arrive and watch them to their end.
    """

    ABRUPT = "abrupt"
    GRACEFUL = "graceful"
