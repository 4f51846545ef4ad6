"""Conditions: what a Release's status says in the words that ``kubectl wait`` and dashboards look for. Pure.

``Accepted``: its spec can be acted on. ``Progressing``: the engine is on its way. ``Healthy``: nothing stands against
it; False where it is halted. ``Routed``: every observer has seen the revision that comes. ``Complete``: it has come to
its end, done or aborted. Unknown is what nobody has said yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tidegate.release.record import Phase, Status

Condition = dict[str, Any]
MESSAGE_LENGTH_MAX = 1024
TYPES = ("Accepted", "Progressing", "Healthy", "Routed", "Complete")


@dataclass(frozen=True, slots=True)
class Word:
    """Why: one word, and a sentence."""

    reason: str
    message: str = ""


def of(status: Status, before: Iterable[Condition], at: str, generation: int, preview: str = "") -> list[Condition]:
    """All conditions of ``status``. ``at`` (RFC 3339) is when those that change did; ``before`` keep their time.

    What is asked of the Service ``preview`` is not about the traffic.
    """
    phase = Phase(status.phase)
    said = Word(phase.value.capitalize(), status.reason)
    moves = phase in (Phase.PROGRESSING, Phase.ABORTING)
    found = {
        "Accepted": ("True", Word("Valid")),
        "Progressing": ("True" if moves else "False", said),
        "Healthy": ("False" if phase is Phase.HALTED else "True", said),
        "Routed": _routed(status, preview),
        "Complete": ("True" if phase.is_final else "False", said),
    }
    return dated(found, before, at, generation)


def refused(before: Iterable[Condition], why: Word, at: str, generation: int) -> list[Condition]:
    """Of a Release that is not acted on: what it had come to stays, but that it is on its way is not so."""
    kept = {one["type"]: (one["status"], Word(one["reason"], one["message"])) for one in before}
    kept.pop("Complete", None)
    found = {**kept, "Accepted": ("False", why), "Progressing": ("False", why)}
    return dated(found, before, at, generation)


def _routed(status: Status, preview: str) -> tuple[str, Word]:
    about = [key for key in sorted(status.asked) if key.startswith("routed/") and key.split("/")[1] != preview]
    asked = [status.asked[key] for key in about]
    if not asked:
        return "Unknown", Word("NotAsked")
    waiting = [one for one in asked if not one.is_settled]
    if waiting:
        return "False", Word("Waiting", "; ".join(waiting[0].stragglers[:3]))
    assumed = [text for one in asked for text in one.assumed]
    if assumed or any(one.verdict == "assumed" for one in asked):
        return "True", Word("Assumed", "; ".join(assumed[:3]))
    return "True", Word("Acknowledged", f"by every observer at {asked[-1].epoch}".removesuffix(" at "))


def dated(found: dict[str, tuple[str, Word]], before: Iterable[Condition], at: str, generation: int) -> list[Condition]:
    """As a list, in the order of ``TYPES``; those whose status is as ``before`` keep their time."""
    known = {one["type"]: one for one in before}
    result = []
    for kind in sorted(found, key=lambda one: TYPES.index(one) if one in TYPES else len(TYPES)):
        status, word = found[kind]
        old = known.get(kind, {})
        since = old.get("lastTransitionTime", at) if old.get("status") == status else at
        result.append(
            {
                "type": kind,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": since,
                "reason": word.reason,
                "message": word.message[:MESSAGE_LENGTH_MAX],
            }
        )
    return result
