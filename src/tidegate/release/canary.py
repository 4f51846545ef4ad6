"""canary: a second Deployment takes a growing share of new connections, and each step has to prove itself.

By the ratio of pods behind one Service, or by the weights of a router that divides requests between two. A weight moves
only when the pods behind it are ready and routed everywhere (argo-rollouts #3333, #2050); on the way back traffic goes
first, then the pods, through their gates. How a share comes about is ``canary_shares``, the way back ``canary_back``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from tidegate.release.canary_back import back, kept, unwind
from tidegate.release.canary_shares import moved, narrowed, prepared, settled_in, share_of
from tidegate.release.canary_steps import ending_fault, is_alone, scaled, services_of, settled
from tidegate.release.plan import Act, Decision, Step, counted, go, halt, wait
from tidegate.release.proving import Trial, before_all, is_direct
from tidegate.release.record import Phase
from tidegate.release.scene import Edition, Scene
from tidegate.release.spec import CanaryStep


def decide(scene: Scene) -> Decision:
    """What to do now."""
    return next(_decisions(scene))


def _decisions(scene: Scene) -> Iterator[Decision]:
    stable, incoming = scene.stable, scene.incoming
    phase = Phase(scene.status.phase)
    if phase.is_final and not (phase is Phase.DONE and scene.spec.wish == "abort"):
        yield wait(scene, scene.status.reason, phase)
    if stable is None:
        if incoming is not None and incoming.desired and is_alone(scene, incoming) and not scene.goes_back:
            yield wait(scene, _all_of(incoming), Phase.DONE)
        yield halt(scene, f"revision {scene.status.stable} is gone: there is nothing to go back to")
        return
    if not scene.spec.canary.service:
        yield halt(scene, "$.spec.canary.service: which Service's connections are to be divided?")
    if scene.goes_back:
        yield from back(scene, stable)
    if incoming is stable:
        yield from kept(scene, stable)
    yield from _dead(scene, stable, incoming)
    yield from _held(scene)
    if phase is Phase.HALTED:  # somebody asked to go on
        scene = _with(scene, phase=Phase.PROGRESSING.value, since=scene.now)
    if scene.spec.paused:
        yield wait(scene, "paused: `release resume` goes on; traffic stays as it is", Phase.PAUSED)
    others = [one for one in scene.editions if one is not stable and one is not incoming]
    yield from unwind(scene, stable, others, Phase.PROGRESSING)
    yield from _asked_before(scene)
    yield from prepared(scene, stable)
    yield from _on(_where(scene), stable)


def _with(scene: Scene, **memory: Any) -> Scene:
    return replace(scene, status=msgspec.structs.replace(scene.status, **memory))


def _held(scene: Scene) -> Iterator[Decision]:
    """Why it must not go on; looked at again when somebody has asked for something since."""
    is_news = scene.generation > scene.status.generation
    if scene.status.phase == Phase.HALTED.value and not is_news:
        yield halt(scene, scene.status.reason)
    fault, seen = ending_fault(scene)
    if fault and scene.spec.on_unverified == "halt":
        yield Decision((), msgspec.structs.replace(halt(scene, fault).status, unverified=seen))


def _dead(scene: Scene, stable: Edition, canary: Edition | None) -> Iterator[Decision]:
    """It had traffic, and now no pod of it is ready: that is worse than anything an analysis could say.

    By the ratio of pods nobody sends to one that is not ready, so one that was evicted may be replaced first.
    """
    name = scene.status.revision
    if not (scene.status.weight or scene.weights.get(name, 0)):
        return
    if canary is None:
        yield from _abort(scene, stable, f"{name} had traffic, and its Deployment is gone")
    elif canary.desired and not canary.ready:
        is_replaced = not any(one.has_fallen or one.problem for one in canary.staying)
        if scene.spec.canary.router == "replicas" and is_replaced:
            return
        why = canary.problem or f"none of its {len(canary.staying)} pods is"
        yield from _abort(scene, stable, f"{name} was ready and is no more: {why}")


def _abort(scene: Scene, stable: Edition, cause: str) -> Iterator[Decision]:
    yield from back(_with(scene, phase=Phase.ABORTING.value, cause=cause), stable)


# --- which step ---


def _where(scene: Scene) -> Scene:
    """At the step it is at: steps that were edited on the way are taken up at the share that is reached."""
    status, steps = scene.status, scene.spec.canary.steps
    if is_direct(scene):
        scene = _with(scene, step=len(steps), arrived=len(steps), promoted=scene.spec.promoted)
    weights = (0, *(one.weight for one in steps), 100)
    index = min(scene.status.step, len(steps))
    known = (weights[index + 1],) if scene.status.arrived > index else (weights[index], weights[index + 1])
    is_past = scene.status.step == scene.status.arrived == len(steps)
    if status.weight in known or is_past or status.weight >= 100:
        return _with(scene, step=index)
    further = [number for number, one in enumerate(steps) if one.weight >= status.weight]
    index = further[0] if further else len(steps) - 1
    return _with(scene, step=index, arrived=index, since=scene.now)


def _on(scene: Scene, stable: Edition) -> Iterator[Decision]:
    """From the step it is at to the end, as far as nothing has to be waited for."""
    steps = scene.spec.canary.steps
    while scene.status.step < len(steps):
        step = steps[scene.status.step]
        yield from _at(scene, stable, step)
        canary = scene.incoming
        assert canary is not None
        if scene.status.arrived <= scene.status.step:
            arrived = {"arrived": scene.status.step + 1, "since": scene.now, "weight": step.weight}
            scene = _with(scene, **arrived)
        yield from _analysed(scene, stable)
        yield from _stayed(scene, step)
        used = 1 if _is_promoted(scene) and _would_stay(scene, step) else 0
        promoted = scene.status.promoted + used
        scene = _with(scene, step=scene.status.step + 1, since=scene.now, promoted=promoted)
    yield from _at(scene, stable, CanaryStep(100))
    scene = _with(scene, weight=100)
    yield from _ended(scene, stable)


def _at(scene: Scene, stable: Edition, step: CanaryStep) -> Iterator[Decision]:
    """Until the step's share of new connections goes to the canary, and everybody has said so."""
    canary = scene.incoming
    if canary is None:
        count = share_of(scene, stable, step.weight).canary
        if scene.spec.canary.router == "replicas":  # never more at once than the surge leaves room for
            count = min(count, max(scene.surge, 1)) if not stable.autoscaler else count
        why = "beside the pods that serve; its share of connections grows step by step"
        made = Step(Act.CREATE, scene.status.revision, why, count=count)
        yield go(scene, made, since=scene.now, round=scene.status.round + 1)
        return
    if scene.spec.ungated == "drain" and canary.ungated and not canary.is_base:
        names = ", ".join(one.name for one in canary.ungated)
        yield halt(scene, f"{names} have no gate: no traffic is given to pods that nobody could drain")
    yield from moved(scene, stable, canary, step)


# --- what a step has to prove ---


def _percent(scene: Scene) -> int:
    steps = scene.spec.canary.steps
    return steps[scene.status.step].weight if scene.status.step < len(steps) else 100


def _asked_before(scene: Scene) -> Iterator[Decision]:
    """Before the first weight moves: can Prometheus be asked at all? What it says does not matter yet."""
    if scene.status.arrived or scene.status.step or scene.incoming is not None or is_direct(scene):
        return
    yield from before_all(scene.spec.canary.analysis, _stays(scene)).reached(scene)


def _stays(scene: Scene) -> str:
    weight = scene.status.weight
    return f"traffic stays as it is, {weight} % on {scene.status.revision}" if weight else "traffic stays where it is"


def _analysed(scene: Scene, stable: Edition) -> Iterator[Decision]:
    moment, where = str(scene.status.step), f"at {_percent(scene)} %"
    trial = Trial(scene.spec.canary.analysis, moment, where, _stays(scene))
    if cause := trial.failure(scene):
        yield from _abort(scene, stable, cause)
    yield from trial.asked(scene)


def _is_promoted(scene: Scene) -> bool:
    return scene.spec.promoted > scene.status.promoted


def _would_stay(scene: Scene, step: CanaryStep) -> bool:
    return step.pause_seconds is None or scene.now < scene.status.since + step.pause_seconds


def _stayed(scene: Scene, step: CanaryStep) -> Iterator[Decision]:
    if not _would_stay(scene, step) or _is_promoted(scene):
        return
    if step.pause_seconds is None:
        yield wait(scene, f"stays at {step.weight} % until `release promote`", Phase.PAUSED)
    yield wait(scene, f"stays at {step.weight} % for {step.pause_seconds:g} s")


# --- the end ---


def _ended(scene: Scene, stable: Edition) -> Iterator[Decision]:
    """All traffic is the canary's: it becomes what is served by, and the old one is drained to zero."""
    canary = scene.incoming
    assert canary is not None
    yield from settled_in(scene, stable, canary)
    yield from narrowed(scene, canary, Phase.PROGRESSING)
    for name in services_of(scene):
        yield from settled(scene, "routed", canary, name)
    yield from scaled(scene, stable, 0, f"{canary.revision} has all traffic, and every observer has said so")
    if stable.members:
        names = ", ".join(sorted(one.name for one in stable.members)[:3])
        yield wait(
            scene, f"still to end, through their gates: {counted(len(stable.members))} of {stable.revision}: {names}"
        )
    if not stable.is_base:
        yield go(scene, Step(Act.RETIRE, stable.revision, "it has no pods any more"))
    yield wait(scene, _all_of(canary), Phase.DONE)


def _all_of(edition: Edition) -> str:
    return f"{edition.available} of {edition.desired} pods are of {edition.revision}, no other is left"
