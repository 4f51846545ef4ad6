"""Which strategy decides, and what all of them share: a new target, and what cannot be read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from tidegate.release import refused
from tidegate.release.endings import unverified
from tidegate.release.plan import Act, Decision, Step, Strategy, go, halt, wait
from tidegate.release.record import PAST_KEPT, Past, Phase, Status
from tidegate.release.scene import Scene

STRATEGIES: Mapping[str, str] = {
    "rolling": "tidegate.release.rolling",
    "bluegreen": "tidegate.release.bluegreen",
    "canary": "tidegate.release.canary",
    "rainbow": "tidegate.release.rainbow",
}
"""Strategy -> the module whose ``decide`` it is, imported when the first release of it is decided."""


def strategy_of(name: str) -> Strategy:
    """Raises ``KeyError``."""
    found: Strategy = importlib.import_module(STRATEGIES[name]).decide
    return found


def decide(scene: Scene) -> Decision:
    """What to do now, by the strategy of the spec. Its status is what is to be remembered."""
    if not scene.editions:
        why = scene.problems[0] if scene.problems else f"deployment/{scene.spec.workload} has no revision"
        return halt(scene, f"{why}: once it is there, `tidegate release resume deploy/{scene.spec.workload}` goes on")
    if scene.problems:
        phase = Phase.PROGRESSING if scene.status.is_final else Phase(scene.status.phase)
        return wait(scene, f"cannot be read: {scene.problems[0]}", phase)
    scene = refused.reopened(scene)
    aimed = replace(scene, status=_named(scene, aim(scene)))
    if aimed.status.round != scene.status.round and aimed.status.began == scene.now:
        aimed = replace(aimed, endings={})  # of the release before
    half = next((one for one in scene.editions if one.is_half_gated), None)
    if half is not None:  # whatever is asked for now: its Deployment is paused, and nobody else would end that
        why = f"deployment/{half.deployment} is paused, half of it with the gate: that is brought to its end first"
        return go(aimed, Step(Act.GATE, half.revision, why), phase=Phase(aimed.status.phase))
    decision = _let_go(aimed, _labelled_first(aimed, strategy_of(scene.spec.strategy)(aimed)))
    decision = refused.halted(aimed, decision)
    status = _recorded(aimed, decision.status)
    # Told at the end, whatever was agreed to: who lets pods go unverified is not told that they were.
    ended = tuple(sorted({*status.unverified, *unverified(aimed)}))
    status = msgspec.structs.replace(status, unverified=ended)
    return Decision(decision.steps, msgspec.structs.replace(status, generation=scene.generation))


def _labelled_first(scene: Scene, decision: Decision) -> Decision:
    """Resumed as it is, a Deployment that is half labelled would roll out; paused, it heals nothing. One that somebody
    else paused is left so: it may have another template by now."""
    asked = [scene.edition(one.subject) for one in decision.steps if one.act is Act.LABEL]
    theirs = next((one for one in asked if one is not None and one.is_paused), None)
    if theirs is not None:
        name = theirs.deployment
        why = f"deployment/{name} is paused: `kubectl rollout resume deploy/{name}`"
        return wait(scene, why, Phase(decision.status.phase))
    half = next((one for one in scene.editions if one.is_half_labelled), None)
    if half is None or half in asked:
        return decision
    why = f"deployment/{half.deployment} is paused, half of it with its label: that is brought to its end first"
    step = Step(Act.LABEL, half.revision, why, detail={"service": scene.spec.service})
    return go(scene, step, phase=Phase(scene.status.phase))


def _let_go(scene: Scene, decision: Decision) -> Decision:
    """Who lets pods without a gate go unverified waits for no drain of them that was begun before that was said."""
    if scene.spec.ungated != "proceed" or decision.status.phase in (Phase.PAUSED.value, Phase.HALTED.value):
        return decision
    pods = {one.revision: tuple(pod.name for pod in one.members if pod.is_let_go) for one in scene.editions}
    why = "without a gate, and drained by label until `ungated: proceed` was asked for: others stand in for them"
    steps = [Step(Act.LET_GO, revision, why, pods=names) for revision, names in pods.items() if names]
    return Decision((*decision.steps, *steps), decision.status)


def _named(scene: Scene, status: Status) -> Status:
    """With the name that its revision turned out to have: a ReplicaSet's hash is its controller's choice."""
    known = scene.incoming
    if known is None or known.revision == status.revision:
        return status
    return msgspec.structs.replace(status, revision=known.revision)


def _recorded(scene: Scene, status: Status) -> Status:
    """With the revision in the history, once its release has come to its end."""
    if not status.is_final or scene.status.phase == status.phase:
        return status
    last = status.history[-1] if status.history else None
    if last is not None and (last.revision, last.outcome) == (status.revision, status.phase):
        return status  # what ended meanwhile was another, kept until then
    known = scene.edition(status.revision)
    images = dict(known.images) if known is not None else dict(scene.spec.images)
    past = Past(status.revision, images, scene.spec.template, scene.now, status.phase)
    return msgspec.structs.replace(status, history=(*status.history, past)[-PAST_KEPT:])


def aim(scene: Scene) -> Status:
    """The memory, begun anew where another template is asked for than last time.

    What was the target until then counts as one of the old revisions: it is drained like them, never just dropped
    (argo-rollouts #3617). ``stable`` changes only when a release has come to its end.
    """
    status = scene.status
    if status.fingerprint == scene.target and status.revision:
        is_asked_again = scene.generation > status.generation and scene.spec.wish != "abort"
        if status.phase == Phase.ABORTED.value and is_asked_again:
            return _begun(scene)
        # Somebody aborted it and has thought better of it. What aborted itself goes back to its end first.
        if status.phase == Phase.ABORTING.value and scene.spec.wish != "abort" and not status.cause:
            return _begun(scene)
        return status
    return _begun(scene)


def _is_proven(scene: Scene) -> bool:
    """Whether the revision that came has the traffic, and is one to go back to."""
    from tidegate.release import bluegreen

    return bluegreen.is_proven(scene.status) and not scene.goes_back


def _begun(scene: Scene) -> Status:
    status = scene.status
    known = scene.incoming
    stable = status.stable
    if status.phase == Phase.DONE.value or (scene.spec.strategy == "bluegreen" and _is_proven(scene)):
        stable = status.revision
    if scene.edition(stable) is None:
        serving = max(scene.editions, key=lambda one: (one.listed, one.ready, one.desired))
        stable = serving.revision
    past = scene.edition(stable)
    history = status.history
    if not history and past is not None:
        history = (Past(stable, dict(past.images), None, scene.now, "before"),)
    return msgspec.structs.replace(
        status,
        history=history,
        phase=Phase.PENDING.value,
        reason="",
        revision=known.revision if known is not None else next_name(scene),
        stable=stable,
        fingerprint=scene.target,
        round=status.round + 1,
        step=0,
        since=scene.now,
        began=scene.now,
        weight=0,
        arrived=0,
        promoted=scene.spec.promoted if status.revision else 0,
        cause="",
        asked={},
        measured={},
        unverified=(),
    )


def next_name(scene: Scene) -> str:
    """``r`` and one more than the highest number in use or in the history."""
    names = [*(one.revision for one in scene.editions), *(one.revision for one in scene.status.history)]
    numbers = [int(one[1:]) for one in names if one[:1] == "r" and one[1:].isdigit()]
    return f"r{max(numbers, default=0) + 1}"
