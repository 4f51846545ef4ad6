"""Where a release stands: what its engine remembers between two looks. The wire form of a ``Release``'s status.

Nearly everything is read off the objects each time. What objects cannot tell is here: which revision is which, which
acknowledgements were given, since when a step lasts, who is at work.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec


class Phase(Enum):
    """``HALTED``: a breach; traffic stays where it was, a person decides. ``PAUSED``: somebody asked, or a step says
    so."""

    PENDING = "pending"
    PROGRESSING = "progressing"
    PAUSED = "paused"
    HALTED = "halted"
    ABORTING = "aborting"
    DONE = "done"
    ABORTED = "aborted"

    @property
    def is_final(self) -> bool:
        return self in (Phase.DONE, Phase.ABORTED)


class _Shape(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """All of a status. Unknown fields pass: a newer engine may have written them."""


class Asked(_Shape, frozen=True):
    """What all observers said of one question (``Question.key``).

    ``verdict``: ``yes`` (all of them, at ``epoch``), ``assumed`` (nobody can be asked; ``seconds`` passed instead),
    ``no`` (not yet; ``stragglers`` by name, with what they said). ``refused``: the coordinator does not know the
    question, in its own words; asking again says the same until it is upgraded.
    """

    verdict: str
    epoch: str = ""
    at: float = 0.0
    seconds: float = 0.0
    stragglers: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    refused: str = ""

    @property
    def is_settled(self) -> bool:
        return self.verdict in ("yes", "assumed")


class Measured(_Shape, frozen=True):
    """One analysis at one step: ``passed`` and ``failed`` answers so far, ``last`` of them, why it could not be
    asked the last ``problems`` times."""

    passed: int = 0
    failed: int = 0
    last: str = ""
    problem: str = ""
    problems: int = 0
    at: float = 0.0


class Past(_Shape, frozen=True):
    """A revision of the history, oldest first. ``template`` as it was asked for, to go back to."""

    revision: str
    images: dict[str, str] = {}
    template: dict[str, Any] | None = None
    at: float = 0.0
    outcome: str = ""


class Note(_Shape, frozen=True):
    """One line of what was done: an instant (seconds since 1970) and a sentence."""

    at: float
    text: str


class Leaver(_Shape, frozen=True):
    """A pod that is on its way out, or about to be: who it is, whose agent knows how it ended, and whether it has no
    gate."""

    uid: str
    node: str = ""
    is_bare: bool = False


NOTES_KEPT = 50
PAST_KEPT = 10


class Status(_Shape, frozen=True):
    """``revision`` is the one that comes, ``stable`` the one that has (had) the traffic and that ``abort`` goes back
    to.

    ``round`` grows with every new target, so that what was asked about one is no answer about another. ``generation``
    is the spec's that this is about. ``step`` and ``since`` (seconds since 1970): which step, and since when.
    ``reason`` is the one sentence that says why it waits, ``cause`` what an abort was for. ``holder`` and
    ``lease_until`` are the lease of the engine at work.
    """

    phase: str = Phase.PENDING.value
    halted_in: str = ""
    """Of one that halted because its question was refused: the phase that it goes on in."""
    reason: str = ""
    revision: str = ""
    stable: str = ""
    fingerprint: str = ""
    round: int = 0
    generation: int = 0
    step: int = 0
    since: float = 0.0
    began: float = 0.0
    weight: int = 0
    """Percent of the canary's that was last seen to be as this release wants it."""
    arrived: int = 0
    """So many steps of a canary have come into effect; ``since`` is when the last of them did."""
    promoted: int = 0
    """So many of ``Spec.promoted`` are used up: each lets one pause pass."""
    cause: str = ""
    asked: dict[str, Asked] = {}
    measured: dict[str, Measured] = {}
    idle_since: dict[str, float] = {}
    """Pod uid or revision -> since when it has no work (rainbow)."""
    unverified: tuple[str, ...] = ()
    """Pods that ended in another way than verified, with how."""
    leaving: dict[str, Leaver] = {}
    """Pods, by name, that are ending or about to: who comes next asks how those ended that are gone by then."""
    notes: tuple[Note, ...] = ()
    history: tuple[Past, ...] = ()
    token: str = ""
    by: str = ""
    holder: str = ""
    lease_until: str = ""

    @property
    def is_final(self) -> bool:
        return Phase(self.phase).is_final


def decode_status(obj: Any) -> Status:
    """Raises ``ValueError`` for what no engine wrote."""
    return msgspec.convert(obj or {}, Status)


def encode_status(status: Status) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(status)
    return found


def noted(status: Status, at: float, text: str) -> Status:
    """With one more line, unless the last says so already: a step may take several turns. The oldest go."""
    if status.notes and status.notes[-1].text == text:
        return status
    return msgspec.structs.replace(status, notes=(*status.notes, Note(at, text))[-NOTES_KEPT:])
