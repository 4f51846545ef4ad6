"""Which strategy decides, and what all of them share: a new target, and what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from tidegate.release import rolling
from tidegate.release.plan import Decision, Strategy, halt, wait
from tidegate.release.record import Phase, Status
from tidegate.release.scene import Scene

STRATEGIES: Mapping[str, Strategy] = {"rolling": rolling.decide}


def decide(scene: Scene) -> Decision:
    """What to do now, by the strategy of the spec. Its status is what is to be remembered."""
    if not scene.editions:
        return halt(scene, scene.problems[0] if scene.problems else f"deployment/{scene.spec.workload} has no revision")
    if scene.problems:
        phase = Phase.PROGRESSING if scene.status.is_final else Phase(scene.status.phase)
        return wait(scene, f"cannot be read: {scene.problems[0]}", phase)
    aimed = replace(scene, status=aim(scene))
    decision = STRATEGIES[scene.spec.strategy](aimed)
    return Decision(decision.steps, msgspec.structs.replace(decision.status, generation=scene.generation))


def aim(scene: Scene) -> Status:
    """The memory, begun anew where another template is asked for than last time.

    What was the target until then counts as one of the old revisions: it is drained like them, never just dropped
    (argo-rollouts #3617). ``stable`` changes only when a release has come to its end.
    """
    status = scene.status
    if status.fingerprint == scene.target and status.revision:
        if status.is_final and status.phase == Phase.ABORTED.value and scene.spec.wish != "abort":
            return _begun(scene)
        return status
    return _begun(scene)


def _begun(scene: Scene) -> Status:
    status = scene.status
    known = scene.incoming
    stable = status.stable
    if not status.revision:
        serving = max(scene.editions, key=lambda one: (one.listed, one.ready, one.desired))
        stable = serving.revision
    elif status.phase == Phase.DONE.value:
        stable = status.revision
    return msgspec.structs.replace(
        status,
        phase=Phase.PENDING.value,
        reason="",
        revision=known.revision if known is not None else next_name(scene),
        stable=stable,
        fingerprint=scene.target,
        round=status.round + 1,
        step=0,
        since=scene.now,
        began=scene.now,
        asked={},
        measured={},
        unverified=(),
    )


def next_name(scene: Scene) -> str:
    """``r`` and one more than the highest number in use or in the history."""
    names = [*(one.revision for one in scene.editions), *(one.revision for one in scene.status.history)]
    numbers = [int(one[1:]) for one in names if one[:1] == "r" and one[1:].isdigit()]
    return f"r{max(numbers, default=0) + 1}"
