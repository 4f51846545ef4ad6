"""rolling: in place, on a plain Deployment. The Deployment controller replaces the pods; each old one ends through its
gate, which answers when every observer has let go of it and, by the order of the fence, has taken in the new ones."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.release.endings import faults, fresh_fault
from tidegate.release.plan import Act, Decision, Step, go, halt, wait
from tidegate.release.record import Phase
from tidegate.release.scene import Edition, Scene


def decide(scene: Scene) -> Decision:
    """What to do now."""
    return next(_decisions(scene))


def _decisions(scene: Scene) -> Iterator[Decision]:
    is_abort = scene.spec.wish == "abort"
    stable = scene.stable
    goal = stable.fingerprint if is_abort and stable is not None else scene.target
    name = scene.spec.workload
    if is_abort and stable is None:
        yield halt(scene, f"{scene.status.stable} is gone: name the revision to go back to, `release rollback --to`")
    is_held = any(one.is_paused for one in scene.editions)
    if scene.spec.paused and not is_abort:
        hold = () if is_held or scene.template != goal else (Step(Act.HOLD, name, "somebody asked to pause"),)
        yield go(scene, *hold, phase=Phase.PAUSED, reason="somebody asked to; `release resume` goes on")
    if not is_abort:
        yield from _breached(scene, name, is_held)
    if scene.template != goal:
        yield from _gated(scene)
        why = "back to the revision before" if is_abort else "the Deployment controller replaces pod by pod"
        phase = Phase.ABORTING if is_abort else Phase.PROGRESSING
        known = next((one.revision for one in reversed(scene.editions) if one.fingerprint == goal), "")
        detail = {"revision": known} if known and (is_abort or scene.spec.rollback_to) else {}
        yield go(scene, Step(Act.SET_TEMPLATE, name, why, detail=detail), phase=phase, since=scene.now)
    if is_held:
        yield go(scene, Step(Act.CONTINUE, name, "nothing holds it any more"), since=scene.now)
    phase = Phase.ABORTING if is_abort else Phase.PROGRESSING
    # The newest: one from before the gate has the same fingerprint as the gated one that came of it.
    coming = next((one for one in reversed(scene.editions) if one.fingerprint == goal), None)
    if coming is None or not coming.is_observed:
        yield wait(scene, "until the Deployment controller has seen the new template", phase)
    assert coming is not None
    yield from _rolling(scene, coming, phase)
    ending = Phase.ABORTED if is_abort else Phase.DONE
    yield wait(scene, f"{coming.available} of {scene.replicas} pods are of {coming.revision}, no other is left", ending)


def _breached(scene: Scene, name: str, is_held: bool) -> Iterator[Decision]:
    """Why it must not go on; looked at again when somebody has asked for something since."""
    hold = () if is_held else (Step(Act.HOLD, name, "a breach: old pods stay, traffic stays on them"),)
    coming = scene.incoming
    if scene.status.phase == Phase.HALTED.value and scene.generation <= scene.status.generation:
        yield halt(scene, scene.status.reason)
    is_late = scene.now - scene.status.since > scene.spec.progress_seconds
    if coming is not None and scene.template == scene.target and coming.ready < len(coming.staying):
        stuck = coming.is_stalled or is_late
        if stuck and scene.generation <= scene.status.generation:
            why = coming.problem or f"{coming.ready} of {len(coming.staying)} pods of {coming.revision} are ready"
            limit = f"no progress for {scene.spec.progress_seconds:g} s"
            yield halt(scene, f"{limit}: {why}; traffic stays on {scene.status.stable or 'the old pods'}", *hold)
    fault = fresh_fault(scene)
    if fault and scene.spec.on_unverified == "halt":
        yield Decision(hold, go(scene, phase=Phase.HALTED, reason=fault, unverified=faults(scene)).status)


def _gated(scene: Scene) -> Iterator[Decision]:
    """Pods that run have the hooks they were made with. Those without a gate are replaced by twins that have one."""
    if scene.spec.ungated == "proceed":
        return
    for edition in scene.editions:
        if edition.ungated and not edition.is_gated:
            why = "its pods have no gate, and a pod's hooks cannot be changed: their replacements are to have one"
            yield go(scene, Step(Act.GATE, edition.revision, why), since=scene.now)
        if edition.ungated:
            pods = tuple(one.name for one in edition.ungated)
            why = "without a gate: each is drained by label, its gated twin stands in first"
            yield go(scene, Step(Act.DRAIN, edition.revision, why, pods=pods))


def _rolling(scene: Scene, coming: Edition, phase: Phase) -> Iterator[Decision]:
    others = [one for one in scene.editions if one is not coming]
    old = [pod for one in others for pod in one.members]
    if coming.available < scene.replicas or coming.desired != scene.replicas:
        text = f"{coming.available} of {scene.replicas} pods of {coming.revision} are available"
        if coming.problem:
            text += f" ({coming.problem})"
        yield wait(scene, f"{text}, {len(old)} of those before are left", phase)
    if old:
        names = ", ".join(sorted(one.name for one in old)[:3])
        yield wait(scene, f"until {len(old)} of the pods before have ended through their gates: {names}", phase)
