"""What a moment of a release has to prove: its analyses, each asked until it has said all that is wanted of it.

The steps of a canary, and both sides of a flip. A failure is the caller's to act on; what cannot be asked is neither
success nor failure, and holds the release where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tidegate.release import analysis
from tidegate.release.plan import Act, Decision, Step, go, wait
from tidegate.release.record import Measured, Phase
from tidegate.release.scene import Scene
from tidegate.release.spec import Analysis, FlipAnalysis, Spec, When

PROVEN = 3
"""``status.step`` of a blue/green: all that is asked after its flip has passed."""
FULL = 1_000_000
"""So much more of ``Spec.promoted``, and everything that is left is let pass: pauses and analyses."""


def is_full(scene: Scene) -> bool:
    """Whether somebody let everything pass that is left."""
    return scene.spec.promoted - scene.status.promoted >= FULL


def is_direct(scene: Scene) -> bool:
    """Whether pauses and analyses are let pass: somebody said so, or it goes back to a revision that was served by."""
    return is_full(scene) or bool(scene.spec.rollback_to)


@dataclass(frozen=True, slots=True)
class Trial:
    """The analyses of one moment. ``moment`` is how their answers are remembered, ``where`` what people call it (``at
    25 %``), ``stays`` what holds for as long as one cannot be asked."""

    analyses: Sequence[Analysis]
    moment: str
    where: str
    stays: str

    def found(self, scene: Scene, one: Analysis) -> Measured | None:
        """What it has said so far."""
        return scene.status.measured.get(self.key(scene, one))

    def key(self, scene: Scene, one: Analysis) -> str:
        return analysis.key_of(scene.status, one, self.moment)

    def failure(self, scene: Scene) -> str:
        """Which has failed, how often, and what it said last; "" for none."""
        for one in self.analyses:
            found = self.found(scene, one)
            if found is not None and analysis.is_failed(one, found):
                count = f"{found.failed} of {found.failed + found.passed}"
                return f"{one.kind} {one.name} failed {count} {self.where}: {found.last}"
        return ""

    def is_passed(self, scene: Scene) -> bool:
        """Whether each has said all that is wanted of it, and none has failed. What is not known is not passed."""
        said = [(one, self.found(scene, one)) for one in self.analyses]
        return all(
            found is not None and analysis.is_over(one, found) and not analysis.is_failed(one, found)
            for one, found in said
        )

    def asked(self, scene: Scene) -> Iterator[Decision]:
        """Until each is over. Paused once nothing more can be learnt from those that can be asked."""
        steps, waits, is_paused = [], [], True
        for one in self.analyses:
            found = self.found(scene, one)
            if found is not None and analysis.is_over(one, found):
                continue
            waits.append(self._because(one, found))
            is_paused = is_paused and _is_unanswered(found)
            if analysis.is_due(one, found, scene.now):
                steps.append(self._step(scene, one))
        if waits:
            phase = Phase.PAUSED if is_paused else Phase.PROGRESSING
            yield go(scene, *steps, phase=phase, reason="; ".join(waits))

    def reached(self, scene: Scene) -> Iterator[Decision]:
        """Until every Prometheus has answered once, whatever it said: there is nothing to be found yet."""
        for one in self.analyses:
            found = self.found(scene, one)
            if one.kind != "prometheus" or (found is not None and found.passed):
                continue
            step = self._step(scene, one, is_before=True)
            steps = (step,) if analysis.is_due(one, found, scene.now) else ()
            if _is_unanswered(found):
                yield go(scene, *steps, phase=Phase.PAUSED, reason=self._because(one, found))
            elif steps:
                yield go(scene, *steps)
            yield wait(scene, self._because(one, found))

    def _step(self, scene: Scene, one: Analysis, *, is_before: bool = False) -> Step:
        why = f"{one.kind} {one.name} {self.where}"
        detail = {"analysis": one.name, "asked": one, "is_before": is_before}
        return Step(Act.MEASURE, self.key(scene, one), why, detail=detail)

    def _because(self, one: Analysis, found: Measured | None) -> str:
        if found is None or not found.problems:
            return f"{one.kind} {one.name} is asked every {one.interval_seconds:g} s"
        return f"{one.kind} {one.name}: {found.problem}; {self.stays}"


def _is_unanswered(found: Measured | None) -> bool:
    """Whether it could not be asked so often that somebody has to look."""
    return found is not None and found.problems >= analysis.PROBLEMS_MAX


def before_all(analyses: Sequence[Analysis], stays: str) -> Trial:
    """Before a pod is made: can Prometheus be asked at all?"""
    return Trial(analyses, "before", "before any traffic moves", stays)


# --- both sides of a flip ---


def flip_analyses(spec: Spec) -> tuple[FlipAnalysis, ...]:
    """Of the strategies that give new traffic to the new revision in one write."""
    match spec.strategy:
        case "bluegreen":
            return spec.bluegreen.analysis
        case "rainbow":
            return spec.rainbow.analysis
        case _:
            return ()


def of_flip(scene: Scene, when: When, stays: str = "") -> Trial:
    """The analyses of one side of the flip. Those after it are of this flip alone: of the next round's nothing is known
    yet."""
    chosen = [one for one in flip_analyses(scene.spec) if one.when == when]
    moment = "flip" if when == "before" else f"flipped-{scene.status.round}"
    return Trial(chosen, moment, f"{when} the flip", stays)


def is_kept_by_analysis(scene: Scene) -> bool:
    """Whether the revision before has to stay as it is: what is asked after the flip has not passed yet."""
    status = scene.status
    is_over = status.step >= PROVEN or Phase(status.phase) is Phase.DONE or status.stable == status.revision
    return not is_over and not scene.goes_back and not is_direct(scene) and not of_flip(scene, "after").is_passed(scene)
