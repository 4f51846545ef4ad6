"""What a drain is waiting for, and what it came to: every ending with its reason in a sentence."""

from __future__ import annotations

import msgspec

from tidegate.drain.acknowledgement import Verdict
from tidegate.drain.event import Event
from tidegate.drain.progress import Drain, is_proven, is_proven_except
from tidegate.drain.state import Policy, State
from tidegate.model.names import DrainRecord, DrainResult, Ending


def waiting_for(drain: Drain) -> tuple[str, ...]:
    """What keeps the drain in its state, a sentence each, naming every straggler and every client."""
    match drain.state:
        case State.SERVING:
            return drain.reasons or ("the cut",)
        case State.CUT:
            return drain.reasons or ("a complete list of EndpointSlices",)
        case State.CLEAN:
            return ("a fence written after the clean list",)
        case State.FENCED:
            return _waiting_for_observers(drain)
        case State.UNROUTED:
            return (str(drain.quiet) if drain.quiet else "the pod's sockets",)
        case State.QUIET:
            return ("the tombstone",)
        case State.OVERDUE:
            return ("the release, or another try",)
        case State.DRAINED | State.BYPASSED:
            return ("the release",)
        case State.RELEASED:
            return ("the pod's end",)
        case _:
            return ()


def _waiting_for_observers(drain: Drain) -> tuple[str, ...]:
    if not drain.observers:
        return ("the observers to be enumerated",) if drain.observers is None else ("at least one observer",)
    answers = drain.acknowledgements
    return tuple(str(answers[name]) if name in answers else f"{name} has not answered yet" for name in drain.stragglers)


def record(drain: Drain, origin: DrainRecord) -> DrainRecord:
    """What should stand on the pod now. ``origin`` has what never changes: token, instants, labels before."""
    return msgspec.structs.replace(
        origin,
        state=drain.state.name,
        mode=drain.mode.value,
        epoch="" if drain.epoch is None else str(drain.epoch),
        sealed=drain.is_sealed,
        waiting=waiting_for(drain),
        stragglers=drain.stragglers,
    )


def conclude(before: Drain, after: Drain, event: Event) -> DrainResult | None:
    """The result after a step, None while there is none. ``after.state`` is final, ``after.result`` is not."""
    match after.state:
        case State.DRAINED:
            return _proof(before, after, event.at)
        case State.OVERDUE | State.BYPASSED | State.REFUSED if after.state is before.state:
            return before.result
        case State.OVERDUE:
            return _ending(before, event.at, Ending.TIMED_OUT, _overdue(before))
        case State.BYPASSED:
            return _ending(after, event.at, Ending.BYPASSED, "; ".join(after.reasons))
        case State.REFUSED:
            return _ending(after, event.at, Ending.REFUSED, "; ".join(after.reasons))
        case State.RELEASED:
            return _late_proof(after, before.result)
        case State.GONE:
            reason = f"the pod ended while the drain was {before.state.name}"
            return before.result or _ending(before, event.at, Ending.BYPASSED, reason)
        case State.RESTORED:
            return before.result if before.state is State.OVERDUE else None
        case _:
            return None


def unrouted(drain: Drain, at: float) -> DrainResult:
    """The result of a cut that asks for S alone: no new connection can arrive, the pod lives on.

    ``drain`` is in UNROUTED or beyond. What is in flight is not judged.
    """
    assumed = [str(one) for _, one in sorted(drain.acknowledgements.items()) if one.verdict is Verdict.ASSUMED]
    if drain.forced:
        return _ending(drain, at, Ending.FORCED, drain.forced)
    if assumed or drain.suspected:
        return _ending(drain, at, Ending.ASSUMED, "; ".join((*assumed, *drain.suspected, *_exceptions(drain))))
    if drain.excepted:
        return _ending(drain, at, Ending.VERIFIED_EXCEPT, "; ".join(_exceptions(drain)))
    return _ending(drain, at, Ending.VERIFIED, "")


def _proof(before: Drain, drain: Drain, at: float) -> DrainResult:
    """The result in DRAINED: a proof, unless something was assumed or forced. It keeps its instant while it holds."""
    if drain.forced:
        ending, reason = Ending.FORCED, drain.forced
    elif is_proven(drain):
        ending, reason = Ending.VERIFIED, ""
    elif is_proven_except(drain):
        ending, reason = Ending.VERIFIED_EXCEPT, "; ".join(_exceptions(drain))
    else:
        ending, reason = Ending.ASSUMED, "; ".join(_assumptions(drain))
    known = before.result
    if before.state is State.DRAINED and known is not None and (known.result, known.reason) == (ending, reason):
        return known
    return _ending(drain, at, ending, reason)


def _assumptions(drain: Drain) -> tuple[str, ...]:
    answers = (drain.acknowledgements[name] for name in sorted(drain.acknowledgements))
    if drain.quiet is not None and drain.quiet.is_quiet:
        sockets = drain.quiet.doubts
    else:
        sockets = (str(drain.quiet or "sockets not read"),)
    assumed = (str(answer) for answer in answers if answer.verdict is Verdict.ASSUMED)
    return (*assumed, *drain.suspected, *_exceptions(drain), *sockets)


def _exceptions(drain: Drain) -> tuple[str, ...]:
    return tuple(str(drain.acknowledgements[name]) for name in drain.excepted)


def _late_proof(drain: Drain, known: DrainResult | None) -> DrainResult | None:
    """A graceful app was released with connections open: once they were seen to have ended, that is a proof too."""
    is_open = known is not None and known.result is Ending.ASSUMED and drain.policy is Policy.GRACEFUL
    if known is None or not is_open or not is_proven(drain):
        return known
    return msgspec.structs.replace(known, result=Ending.VERIFIED, reason="connections ended after the release")


def _overdue(drain: Drain) -> str:
    """What was missing at the deadline: evidence as it stood, or the step that was never taken."""
    is_evidence = bool(drain.reasons or drain.acknowledgements or drain.quiet)
    waiting = "; ".join(waiting_for(drain))
    return waiting if is_evidence else f"still waiting for {waiting}"


def _ending(drain: Drain, at: float, ending: Ending, reason: str) -> DrainResult:
    seconds = 0.0 if drain.cut_at is None else at - drain.cut_at
    number = None if drain.epoch is None else drain.epoch.number
    names = tuple(sorted({*drain.stragglers, *drain.excepted}))
    return DrainResult(ending, reason, names, number, round(seconds, 3))
