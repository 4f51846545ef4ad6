"""A question that the coordinator refuses: it is of an older version than who asks. Its no is never a yes.

Nobody but a person mends that, so the release halts and says how, and goes on in the phase it was in once it is
answered. An operator asks again now and then; a command line when somebody asks it to resume.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from tidegate.release.plan import Act, Decision
from tidegate.release.record import Phase
from tidegate.release.scene import Scene

AGAIN_SECONDS = 10.0
"""An upgrade takes a minute; an operator looks at what halted twice in that time."""


def reopened(scene: Scene) -> Scene:
    """As it was before it halted for a refusal; what was refused is asked anew where somebody has asked to go on."""
    status = scene.status
    if not status.halted_in:
        return scene
    phase = status.halted_in if status.phase == Phase.HALTED.value else status.phase
    asked = status.asked
    if scene.generation > status.generation:
        asked = {key: one for key, one in asked.items() if not one.refused}
    return replace(scene, status=msgspec.structs.replace(status, phase=phase, halted_in="", asked=asked))


def halted(scene: Scene, decision: Decision) -> Decision:
    """``decision``, halted where it waits for the answer to a question that is refused."""
    found = [
        (step, said)
        for step in decision.steps
        if step.act is Act.ASK and step.question is not None and (said := scene.asked(step.question)) is not None
        if said.refused
    ]
    if not found:
        return decision
    early = [step for step, said in found if scene.now - said.at < AGAIN_SECONDS]
    step, said = found[0]
    assert step.question is not None
    reason = (
        f"nobody can be asked whether {step.question.revision} is {step.question.kind} by svc/{step.question.service}: "
        f"{said.refused}; upgrade the agents (`tidegate install`), then it goes on"
    )
    status = msgspec.structs.replace(
        decision.status, phase=Phase.HALTED.value, halted_in=decision.status.phase, reason=reason
    )
    return Decision(tuple(one for one in decision.steps if one not in early), status)
