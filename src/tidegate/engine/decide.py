"""Decide: what was seen, as events of the drain table; where the drain stands, as the one next act.

Pure, though it lives in the shell: everything it needs is handed in. Level-triggered: the events are the difference
between what the drain knows and what is seen now, however many changes were missed in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from tidegate.drain.acknowledgement import Verdict
from tidegate.drain.deadline import DEFAULT_BUDGET
from tidegate.drain.event import (
    Acknowledged,
    Bypassed,
    Cut,
    DeadlinePassed,
    Event,
    FenceWritten,
    Gone,
    ObserversListed,
    SourceClean,
    SourceDirty,
)
from tidegate.drain.progress import Drain
from tidegate.drain.state import Mode, State
from tidegate.engine.flights import POD_IS_GONE
from tidegate.model.pod import Pod
from tidegate.observers.coordinator import View, acknowledgements, epoch_of

AFTER_CLEAN = (State.CLEAN, State.FENCED, State.UNROUTED, State.QUIET, State.DRAINED)
BEFORE_END = (State.CUT, *AFTER_CLEAN)


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation. ``spell`` is the stretch of a clean source that the drain's progress rests on.

    ``now`` and ``deadline_at`` are the loop's seconds; the instants in ``view`` are the coordinator's, and only ever
    compared with each other.
    """

    now: float
    pod: Pod | None
    is_gone: bool
    view: View | None
    spell: str
    deadline_at: float
    is_cut: bool


class Act(Enum):
    """What to do next. The value says why."""

    WAIT = "something else has to happen first"
    CUT = "the pod has to leave its Services"
    READ_SOCKETS = "no new connection can arrive: is one still in flight?"
    TOMBSTONE = "quiet: nothing may select it again"
    LOOK_AGAIN = "drained: everything once more, just before the irreversible act"
    CONCLUDE = "there is a result: record it, then tell the pod to stop"
    FOLLOW = "told to stop: watch it to its end"
    END = "it is over"


def pod_events(drain: Drain, seen: Seen) -> Iterator[Event]:
    """What the pod itself shows."""
    if seen.is_gone and not drain.state.is_over:
        yield Gone(at=seen.now)
    elif drain.state is State.SERVING and seen.is_cut:
        yield Cut(at=seen.now)


def source_events(drain: Drain, seen: Seen) -> Iterator[Event]:
    """What the EndpointSlices show. One event at most: the next is decided from where it leads."""
    view = seen.view
    if view is None or drain.state not in BEFORE_END:
        return
    is_clean = view.clean_at is not None
    if drain.state in AFTER_CLEAN and not is_clean:
        yield SourceDirty(at=seen.now, reasons=view.reasons)
    elif drain.state in AFTER_CLEAN and view.spell != seen.spell:
        yield SourceDirty(at=seen.now, reasons=("the source was not clean, or not watched, in between",))
    elif drain.state is State.CUT and view.clean_at is not None:
        yield SourceClean(at=view.clean_at)
    elif drain.state is State.CUT and drain.reasons != view.reasons:
        yield SourceDirty(at=seen.now, reasons=view.reasons)


def fence_events(drain: Drain, seen: Seen) -> Iterator[Event]:
    """What the fence and the observers show, once the source is clean in the same spell."""
    view = seen.view
    if view is None or drain.state not in BEFORE_END:
        return
    if view.observers is not None and (tuple(sorted(set(view.observers))), view.suspected) != (
        drain.observers,
        drain.suspected,
    ):
        yield ObserversListed(at=seen.now, observers=view.observers, suspected=view.suspected)
    epoch = epoch_of(view)
    if epoch is None or view.sent_at is None or view.spell != seen.spell:
        return
    if drain.state is State.CLEAN:
        yield FenceWritten(at=seen.now, epoch=epoch, sent_at=view.sent_at)
    elif drain.epoch == epoch:
        for answer in acknowledgements(view):
            if drain.acknowledgements.get(answer.observer) != answer and answer.observer in (drain.observers or ()):
                yield Acknowledged(at=seen.now, acknowledgement=answer)


def end_events(drain: Drain, seen: Seen) -> Iterator[Event]:
    """What ends a drain before it is proven."""
    if drain.state in BEFORE_END and drain.mode is Mode.GATE and seen.view is not None and seen.view.exception:
        yield Bypassed(at=seen.now, reason=seen.view.exception)
    elif _is_deaf(drain, seen.now):
        yield Bypassed(at=seen.now, reason=f"{drain.quiet} (for {DEFAULT_BUDGET.fallback_sleep_seconds:.0f} s)")
    elif drain.state in BEFORE_END and drain.mode is Mode.LABEL and seen.pod is not None and seen.pod.is_terminating:
        yield Bypassed(at=seen.now, reason="somebody else deleted the pod during the drain")
    elif drain.state in BEFORE_END and drain.state is not State.DRAINED and seen.now >= seen.deadline_at:
        yield DeadlinePassed(at=seen.now)


def aftermath_events(drain: Drain, seen: Seen) -> Iterator[Event]:
    """After the release: what contradicts the proof, each thing once, until the pod is gone."""
    view = seen.view
    if seen.is_gone or (seen.pod is not None and seen.pod.is_finished):
        yield Gone(at=seen.now)
    elif view is not None and drain.epoch is not None:
        news = tuple(reason for reason in view.reasons if reason not in (*drain.regressions, POD_IS_GONE))
        if view.clean_at is None and news:
            yield SourceDirty(at=seen.now, reasons=news)
        for answer in acknowledgements(view):
            is_news = answer.verdict is Verdict.REFUTED and str(answer) not in drain.regressions
            if is_news and answer.epoch == drain.epoch:
                yield Acknowledged(at=seen.now, acknowledgement=answer)


def _is_deaf(drain: Drain, now: float) -> bool:
    """Whether a gate has waited as long as a sleep would have for a pod that nothing reaches and that does not listen:
    it never got as far, or crashed in the hold. That will not get better, and a rollback waits for it."""
    if drain.mode is not Mode.GATE or drain.state is not State.UNROUTED or drain.quiet is None or drain.cut_at is None:
        return False
    return drain.quiet.is_deaf and now >= drain.cut_at + DEFAULT_BUDGET.fallback_sleep_seconds


def next_act(drain: Drain, is_looked_again: bool) -> Act:
    """The one next act."""
    match drain.state:
        case State.SERVING:
            return Act.CUT if drain.mode is Mode.LABEL else Act.WAIT
        case State.UNROUTED:
            return Act.READ_SOCKETS
        case State.QUIET:
            return Act.TOMBSTONE
        case State.DRAINED:
            return Act.CONCLUDE if is_looked_again else Act.LOOK_AGAIN
        case State.OVERDUE | State.BYPASSED:
            return Act.CONCLUDE
        case State.RELEASED:
            return Act.FOLLOW
        case State.REFUSED | State.RESTORED | State.GONE:
            return Act.END
        case _:
            return Act.WAIT
