"""What a drain is waiting for, and what it came to: every ending with its reason in a sentence."""

from __future__ import annotations

import msgspec

from tidegate.drain.event import Event
from tidegate.drain.progress import Drain, is_proven
from tidegate.drain.state import Policy, State
from tidegate.model.names import DrainRecord, DrainResult, Ending


def waiting_for(drain: Drain) -> tuple[str, ...]:
    """What keeps the drain in its state, a sentence each, naming every straggler and every client."""
    match drain.state:
        case State.SERVING:
            return ("the cut",)
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
        case State.DRAINED | State.OVERDUE | State.BYPASSED:
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
    if after.state is before.state and before.result is not None and after.state is not State.RELEASED:
        return before.result if after.state is not State.DRAINED else _proof(after, event.at)
    match after.state:
        case State.DRAINED:
            return _proof(after, event.at)
        case State.OVERDUE:
            return _ending(before, event.at, Ending.TIMED_OUT, _overdue(before))
        case State.BYPASSED:
            return _ending(after, event.at, Ending.BYPASSED, "; ".join(after.reasons))
        case State.REFUSED:
            return _ending(after, event.at, Ending.REFUSED, "; ".join(after.reasons))
        case State.RELEASED:
            is_late_proof = before.state is State.RELEASED and after.policy is Policy.GRACEFUL
            is_open = before.result is not None and before.result.result is Ending.ASSUMED
            return _proof(after, event.at) if is_late_proof and is_open else before.result
        case State.GONE | State.RESTORED:
            verb = "ended" if after.state is State.GONE else "was restored"
            reason = f"the pod {verb} while the drain was {before.state.name}"
            return before.result or _ending(before, event.at, Ending.BYPASSED, reason)
        case _:
            return None


def _proof(drain: Drain, at: float) -> DrainResult:
    """The result in DRAINED: a proof, unless something was assumed or forced."""
    if drain.forced:
        return _ending(drain, at, Ending.FORCED, drain.forced)
    if is_proven(drain):
        return _ending(drain, at, Ending.VERIFIED, "")
    assumptions = [
        f"{answer}" for _, answer in sorted(drain.acknowledgements.items()) if "assumed" in str(answer.verdict)
    ]
    assumptions += drain.suspected
    if drain.quiet is None or not drain.quiet.is_quiet:
        assumptions.append(f"{drain.quiet or 'sockets not read'} at the release")
    return _ending(drain, at, Ending.ASSUMED, "; ".join(assumptions))


def _overdue(drain: Drain) -> str:
    return f"in {drain.state.name}, waiting for " + "; ".join(waiting_for(drain))


def _ending(drain: Drain, at: float, ending: Ending, reason: str) -> DrainResult:
    seconds = 0.0 if drain.cut_at is None else at - drain.cut_at
    number = None if drain.epoch is None else drain.epoch.number
    return DrainResult(ending, reason, drain.stragglers, number, round(seconds, 3))
