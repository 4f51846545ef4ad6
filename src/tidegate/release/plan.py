"""Plans as data: steps, each with its reason in a sentence, and what the engine is to remember.

A strategy is one pure function ``decide(scene) -> Decision``, level-triggered: it looks at everything as it stands and
says what to do now. A run that was killed anywhere goes on from what it finds. A ``Plan`` is the same function told
forward over a world that does as it is told (``foresee.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from tidegate.release.record import Phase, Status
from tidegate.release.scene import Question, Scene


class Act(Enum):
    """What a step does. Each is one tested write, or a few that belong together; ASK and MEASURE only look."""

    GATE = "put the gate into the running revision's template, in place"
    DRAIN = "drain pods by label, replacement first"
    LET_GO = "end pods whose drain by label was begun, as they are"
    SET_TEMPLATE = "give the Deployment the new template"
    HOLD = "pause the Deployment"
    CONTINUE = "resume the Deployment"
    LABEL = "give the running revision its own label, in place"
    CREATE = "make a Deployment for the revision"
    SCALE = "change the number of pods"
    AUTOSCALE = "make, or take away, the revision's own autoscaler"
    EXPOSE = "make, or change, a Service of the release"
    RETARGET = "change what the Service selects"
    WEIGH = "change the router's weights"
    ASK = "ask every observer"
    MEASURE = "run an analysis"
    MARK = "say which pods go first"
    RETIRE = "delete the revision's Deployment"
    TIDY = "take our own Services and labels off"


@dataclass(frozen=True, slots=True)
class Step:
    """``subject`` is a revision, a Service or a Deployment, by ``act``; ``reason`` is a sentence for people.

    ``count``: replicas (SCALE, CREATE). ``selector``: RETARGET, EXPOSE (None removes a key; EXPOSE with None deletes
    the Service). ``weights``: revision -> percent (WEIGH). ``pods``: names (DRAIN, MARK). ``question``: ASK.
    ``detail``: what the strategy's own performer wants to know.
    """

    act: Act
    subject: str
    reason: str
    count: int | None = None
    selector: Mapping[str, str | None] | None = None
    weights: Mapping[str, int] | None = None
    pods: tuple[str, ...] = ()
    question: Question | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        match self.act:
            case Act.SCALE | Act.CREATE:
                what = f"{self.act.name.lower()} {self.subject} to {self.count}"
            case Act.ASK:
                assert self.question is not None
                what = f"ask whether {_asked(self.question)}"
            case Act.MEASURE:
                what = f"measure {self.detail.get('analysis', self.subject)}"
            case Act.RETARGET | Act.EXPOSE:
                what = f"{self.act.name.lower()} svc/{self.subject} {_keys(self.selector or {})}".rstrip()
            case Act.WEIGH:
                what = "weigh " + ", ".join(
                    f"{name} {weight} %" for name, weight in sorted((self.weights or {}).items())
                )
            case Act.DRAIN | Act.MARK | Act.LET_GO:
                what = f"{self.act.name.lower().replace('_', ' ')} {', '.join(self.pods)}"
            case _:
                what = f"{self.act.name.lower().replace('_', ' ')} {self.subject}"
        return f"{what}: {self.reason}"


def _keys(selector: Mapping[str, str | None]) -> str:
    """``app=web without version``: what is selected by, and what no more."""
    kept = ",".join(f"{key}={value}" for key, value in sorted(selector.items()) if value is not None)
    gone = ",".join(key for key, value in sorted(selector.items()) if value is None)
    return f"{kept} without {gone}".lstrip() if gone else kept


def counted(count: int) -> str:
    """``1 pod``, ``3 pods``."""
    return f"{count} pod{'' if count == 1 else 's'}"


def _asked(question: Question) -> str:
    """Of a Service, or (``weighed-25``, ``restored``) of a router's object."""
    kind, _, percent = question.kind.partition("-")
    match kind:
        case "weighed":
            return f"{question.revision} has {percent} % by {question.service}"
        case "restored":
            return f"{question.service} is as it was before"
        case _:
            return f"{question.revision} is {question.kind} by svc/{question.service}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now (``steps``; none while it waits) and the memory as it is to be (``status``: phase, reason)."""

    steps: tuple[Step, ...]
    status: Status

    @property
    def is_final(self) -> bool:
        return self.status.is_final and not self.steps


Strategy = Callable[[Scene], Decision]


def go(scene: Scene, *steps: Step, phase: Phase = Phase.PROGRESSING, reason: str = "", **memory: Any) -> Decision:
    """Steps to make now. ``memory``: fields of the status that change with them."""
    text = reason or (steps[0].reason if steps else "")
    return Decision(steps, msgspec.structs.replace(scene.status, phase=phase.value, reason=text, **memory))


def wait(scene: Scene, reason: str, phase: Phase = Phase.PROGRESSING, **memory: Any) -> Decision:
    """Nothing to do now but wait; ``reason`` says for what."""
    return go(scene, phase=phase, reason=reason, **memory)


def halt(scene: Scene, reason: str, *steps: Step) -> Decision:
    """A breach: stop here, leave traffic where it is, let a person decide."""
    return Decision(steps, msgspec.structs.replace(scene.status, phase=Phase.HALTED.value, reason=reason))
