"""A drain's progress: what is known about it, the questions its table asks, and how an event adds to what is known.

Nothing here decides which state follows: that is ``table.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tidegate.dataplane.sockets import Quiet
from tidegate.drain.acknowledgement import LETTING_GO, Acknowledgement, Verdict, quorum, stragglers
from tidegate.drain.event import (
    Acknowledged,
    Bypassed,
    Cut,
    Event,
    FenceWritten,
    ObserversListed,
    Refused,
    Resumed,
    SocketsRead,
    SourceClean,
    SourceDirty,
    Tombstoned,
)
from tidegate.drain.state import Mode, Policy, State
from tidegate.model.epoch import Epoch
from tidegate.model.names import DrainRecord, DrainResult


class EventError(Exception):
    """An event that cannot have happened to this drain. It changed nothing; the caller's bookkeeping is wrong."""


class EpochTooEarly(EventError):
    """An epoch whose write was not sent after the drain's clean LIST had finished: it proves nothing about it."""


@dataclass(frozen=True, slots=True)
class Drain:
    """One drain, all that is known about it. Changed only by ``step``, which returns another one.

    ``pod`` names it in sentences (``namespace/name``). ``forced``: which guard was overridden, empty for none.
    ``observers`` is None until they were enumerated. ``unrouted_at`` is when the last of them was known to have let go;
    ``quiet`` is what was read since. ``reasons`` say why it is not cut yet, why the source is dirty, why the
    drain was bypassed or refused. ``result`` is set when the drain has come to a conclusion; ``regressions`` are what
    was seen to be untrue of it after the release.
    """

    pod: str
    mode: Mode
    policy: Policy = Policy.ABRUPT
    forced: str = ""
    state: State = State.SERVING
    is_sealed: bool = False
    cut_at: float | None = None
    clean_at: float | None = None
    epoch: Epoch | None = None
    observers: tuple[str, ...] | None = None
    suspected: tuple[str, ...] = ()
    acknowledgements: MappingProxyType[str, Acknowledgement] = field(default_factory=lambda: MappingProxyType({}))
    unrouted_at: float | None = None
    quiet: Quiet | None = None
    reasons: tuple[str, ...] = ()
    result: DrainResult | None = None
    regressions: tuple[str, ...] = ()

    @property
    def excepted(self) -> tuple[str, ...]:
        """The silent nodes that somebody vouches for."""
        answers = sorted(self.acknowledgements.items())
        return tuple(name for name, answer in answers if answer.verdict is Verdict.EXCEPTED)

    @property
    def stragglers(self) -> tuple[str, ...]:
        """The observers that have not let go; none before there is an epoch to ask about."""
        if self.epoch is None:
            return ()
        return stragglers(self.observers or (), self.acknowledgements, self.epoch)


def begin(pod: str, mode: Mode, policy: Policy = Policy.ABRUPT, forced: str = "") -> Drain:
    """A drain of ``pod`` at its start. A gate drain is sealed: a deletionTimestamp cannot be taken back."""
    return Drain(pod, mode, policy, forced, is_sealed=mode is Mode.GATE)


def resume(pod: str, record: DrainRecord, forced: str = "") -> Drain:
    """The drain another process left on the pod. Only what cannot be taken back is taken over: all else is asked anew.

    Step it with ``Cut`` next, the record stands on a pod that was cut.
    """
    drain = begin(pod, Mode(record.mode), forced=forced)
    return replace(drain, is_sealed=drain.is_sealed or record.sealed)


# The questions of the table.


def has_let_go(drain: Drain) -> bool:
    """every observer has let go"""
    if drain.epoch is None or drain.observers is None:
        return False
    return quorum(drain.observers, drain.acknowledgements, drain.epoch) in LETTING_GO


def is_quiet_enough(drain: Drain) -> bool:
    """nothing is in flight"""
    return drain.policy is Policy.GRACEFUL or (drain.quiet is not None and drain.quiet.is_quiet)


def is_sealed(drain: Drain) -> bool:
    """nothing can take it back"""
    return drain.is_sealed


def is_proven(drain: Drain) -> bool:
    """Whether S and L rest on evidence alone: no assumption, nobody suspected, nobody excepted."""
    return _rests_on(drain) is Verdict.CONFIRMED


def is_proven_except(drain: Drain) -> bool:
    """Whether they do but for nodes that somebody vouches for."""
    return _rests_on(drain) is Verdict.EXCEPTED


def _rests_on(drain: Drain) -> Verdict | None:
    """The weakest answer that S rests on, None where S or L is in doubt beside it."""
    if drain.epoch is None or drain.suspected or drain.quiet is None:
        return None
    if not drain.quiet.is_quiet or drain.quiet.doubts:
        return None
    return quorum(drain.observers or (), drain.acknowledgements, drain.epoch)


# What a state and an event add.


def arrive(drain: Drain, state: State, at: float) -> Drain:
    """``drain`` in ``state``, where a rule has led it. In doubt about an observer, sockets are to be read anew."""
    if state is State.FENCED:
        return replace(drain, state=state, unrouted_at=None, quiet=None)
    if drain.state is State.FENCED:
        return replace(drain, state=state, unrouted_at=at, quiet=None)
    return replace(drain, state=state)


def learn(drain: Drain, event: Event) -> Drain:
    """``drain`` with what ``event`` says, its state untouched. Raises ``EpochTooEarly``."""
    if drain.state is State.RELEASED:
        return _learn_after_release(drain, event)
    if drain.state is State.BYPASSED:
        return drain
    match event:
        case Cut():
            return replace(_forget(drain), cut_at=event.at)
        case Resumed():
            return _forget(drain)
        case Tombstoned():
            return replace(_forget(drain), is_sealed=True)
        case SourceDirty():
            return replace(_forget(drain), reasons=event.reasons)
        case SourceClean() if drain.state in (State.CUT, State.CLEAN):
            return replace(drain, clean_at=event.at, reasons=())
        case FenceWritten():
            return _learn_epoch(drain, event)
        case ObserversListed():
            return _learn_observers(drain, event)
        case Acknowledged():
            return _learn_answer(drain, event.acknowledgement)
        case SocketsRead():
            return _learn_sockets(drain, event)
        case Bypassed() | Refused():
            return replace(drain, reasons=(event.reason,))
        case _:
            return drain


def _forget(drain: Drain) -> Drain:
    """Start over: no list, no epoch, no answer from before may count for what comes now."""
    return replace(
        drain,
        clean_at=None,
        epoch=None,
        acknowledgements=MappingProxyType({}),
        unrouted_at=None,
        quiet=None,
        reasons=(),
    )


def _learn_epoch(drain: Drain, event: FenceWritten) -> Drain:
    if drain.clean_at is None or event.sent_at <= drain.clean_at:
        raise EpochTooEarly(f"{drain.pod}: epoch {event.epoch} was sent before the clean list had finished")
    return replace(drain, epoch=event.epoch)


def _learn_observers(drain: Drain, event: ObserversListed) -> Drain:
    """An observer that came in the middle has to let go too; one that is no more need not."""
    observers = tuple(sorted(set(event.observers)))
    kept = {name: answer for name, answer in drain.acknowledgements.items() if name in observers}
    return replace(
        drain, observers=observers, suspected=tuple(event.suspected), acknowledgements=MappingProxyType(kept)
    )


def _learn_answer(drain: Drain, answer: Acknowledgement) -> Drain:
    """The latest answer holds, whatever was said before.

    An answer at another epoch was not asked by us. One of somebody who is not listed is left out: were he listed
    later, his word would be older than sockets that were read without him.
    """
    is_stranger = drain.observers is not None and answer.observer not in drain.observers
    if answer.epoch != drain.epoch or is_stranger:
        return drain
    answers = {**drain.acknowledgements, answer.observer: answer}
    return replace(drain, acknowledgements=MappingProxyType(answers))


def _learn_sockets(drain: Drain, event: SocketsRead) -> Drain:
    """A connection can be the last one only when no new one can arrive: sockets read before that say nothing."""
    if drain.unrouted_at is None or event.at < drain.unrouted_at:
        return drain
    return replace(drain, quiet=event.quiet)


def _learn_after_release(drain: Drain, event: Event) -> Drain:
    """The proof was as of an instant: what contradicts it later is kept beside it, never instead of it."""
    match event:
        case SourceDirty():
            return replace(drain, regressions=drain.regressions + event.reasons)
        case Acknowledged() if event.acknowledgement.verdict is Verdict.REFUTED:
            return replace(drain, regressions=(*drain.regressions, str(event.acknowledgement)))
        case SocketsRead() if event.quiet.is_quiet:
            return replace(drain, quiet=event.quiet)
        case _:
            return drain
