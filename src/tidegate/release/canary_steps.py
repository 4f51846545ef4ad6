"""Steps that going there and going back have in common: pods up, everybody asked, pods away through their gates."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.release.endings import faults, fresh_fault
from tidegate.release.guard import left_after
from tidegate.release.plan import Act, Decision, Step, counted, go, halt, wait
from tidegate.release.record import Phase
from tidegate.release.scene import REVISION_LABEL, Edition, Question, Scene, Way, service_named


def service_of(scene: Scene) -> str:
    return scene.spec.canary.service


def services_of(scene: Scene) -> list[str]:
    """By which the workload is reached."""
    return [service_of(scene)] if service_of(scene) else [one.name for one in scene.ways if not one.is_ours]


def canary_service(scene: Scene) -> str:
    return service_named(service_of(scene), "canary")


def rehearsal_service(scene: Scene) -> str:
    """Nobody asks it: its slices tell when the EndpointSlice controller knows the labels of a selector to come."""
    return service_named(service_of(scene), "stable")


def is_divided(scene: Scene) -> bool:
    """Whether a router divides requests, and not the ratio of pods."""
    return scene.spec.canary.router != "replicas"


def is_alone(scene: Scene, edition: Edition) -> bool:
    return not any(one.members or one.desired for one in scene.editions if one is not edition)


def ending_fault(scene: Scene) -> tuple[str, tuple[str, ...]]:
    """The first pod whose drain ended otherwise than verified and that was not seen yet ("" for none), and all such."""
    return fresh_fault(scene), faults(scene)


# --- pods ---


def grown(
    scene: Scene, edition: Edition, count: int, reason: str, phase: Phase = Phase.PROGRESSING
) -> Iterator[Decision]:
    """To at least ``count`` pods. What was answered before is no answer about those that are new."""
    if edition.desired >= count:
        return
    if scene.spec.ungated == "drain" and not edition.is_gated:
        why = "pods that it makes from now on are to have a gate"
        yield go(scene, Step(Act.GATE, edition.revision, why), phase=phase)
    step = Step(Act.SCALE, edition.revision, reason, count=count, detail={"of": scene.replicas})
    yield go(scene, step, phase=phase, since=scene.now, round=scene.status.round + 1)


def up(scene: Scene, edition: Edition, count: int, phase: Phase = Phase.PROGRESSING) -> Iterator[Decision]:
    """Until ``count`` pods are available; halts where that takes too long. On the way back nothing is too long."""
    if not edition.is_observed:
        yield wait(scene, f"until the controller of deployment/{edition.deployment} has seen it", phase)
    if edition.available >= count:
        return
    text = f"{edition.available} of {count} pods of {edition.revision} are available"
    limit = scene.spec.progress_seconds
    is_late = scene.status.arrived <= scene.status.step and scene.now - scene.status.since > limit
    is_stuck = (edition.is_stalled or is_late) and scene.generation <= scene.status.generation
    if is_stuck and phase is not Phase.ABORTING:
        stays = f"{scene.status.weight} % of traffic stays on it" if scene.status.weight else ""
        stays = stays or f"traffic stays on {scene.status.stable}"
        yield halt(scene, f"no progress for {limit:g} s: {edition.problem or text}; {stays}")
    yield wait(scene, text + (f" ({edition.problem})" if edition.problem else ""), phase)


def scaled(
    scene: Scene, edition: Edition, count: int, reason: str, phase: Phase = Phase.PROGRESSING
) -> Iterator[Decision]:
    """To at most ``count`` pods, those without a gate by label first. Waits where too few others are listed."""
    if len(edition.staying) <= count and edition.desired <= count:
        return
    yield from gated(scene, edition, phase)
    if edition.listed and left_after(scene, edition, count) < scene.floor:
        left = left_after(scene, edition, count)
        text = f"{edition.revision} keeps its pods: without them {left} would be available, {scene.floor} have to be"
        yield wait(scene, text, phase)
    if edition.desired > count:
        step = Step(Act.SCALE, edition.revision, reason, count=count, detail={"of": scene.replicas})
        yield go(scene, step, phase=phase)
    yield wait(scene, f"until the controllers of {edition.revision} have let go of {len(edition.staying)} pods", phase)


def gated(scene: Scene, edition: Edition, phase: Phase) -> Iterator[Decision]:
    """A pod's hooks cannot be changed: one without a gate is replaced by a twin that has one."""
    if scene.spec.ungated == "proceed" or not edition.ungated:
        return
    if not edition.is_gated:
        why = "its pods have no gate, and a pod's hooks cannot be changed: their replacements are to have one"
        yield go(scene, Step(Act.GATE, edition.revision, why), phase=phase)
    pods = tuple(one.name for one in edition.ungated)
    why = f"{counted(len(pods))} without a gate: each is drained by label, its gated twin stands in first"
    yield go(scene, Step(Act.DRAIN, edition.revision, why, pods=pods), phase=phase)


# --- everybody asked ---

_WHY = {
    "routed": "before anything else changes, every observer is to route to it",
    "restored": "our own Services go only when the data plane shows that no request goes by them",
}


def settled(
    scene: Scene, kind: str, edition: Edition, service: str, phase: Phase = Phase.PROGRESSING
) -> Iterator[Decision]:
    """Until every observer has answered. Where no revision has a ready pod, nobody is routed to and nobody can lose
    anything: that must not hold the one that would serve."""
    if kind == "routed" and not any(one.ready or one.listed for one in scene.editions):
        return
    question = Question(kind, edition.revision, service, scene.status.round)
    said = scene.asked(question)
    if said is not None and said.is_settled:
        return
    why = _WHY.get(kind, "the data plane is to show the weights before anything else changes")
    if said is not None and said.stragglers:
        why = f"waits for {', '.join(said.stragglers)}"
    yield go(scene, Step(Act.ASK, service, why, question=question), phase=phase)


# --- Services ---


def selector_for(way: Way, edition: Edition) -> dict[str, str | None]:
    return {**way.selector, REVISION_LABEL: edition.mark}


def exposed(scene: Scene, name: str, edition: Edition, reason: str, phase: Phase) -> Iterator[Decision]:
    """Until Service ``name`` of ours selects ``edition``, and its slices show that."""
    main = scene.way(service_of(scene))
    if main is None:
        yield wait(scene, f"$.spec.canary.service: there is no service/{service_of(scene)}", Phase.PENDING)
        return
    wanted = selector_for(main, edition)
    found = scene.way(name)
    if found is None or dict(found.selector) != wanted:
        is_rehearsal = name == rehearsal_service(scene)
        detail = {"revision": edition.revision, "of": main.name, "is_rehearsal": is_rehearsal}
        step = Step(Act.EXPOSE, name, reason, selector=wanted, detail=detail)
        yield go(scene, step, phase=phase)
    elif not found.is_shown:
        yield wait(scene, f"until the slices of svc/{name} list the pods of {edition.revision}", phase)


def retargeted(scene: Scene, name: str, edition: Edition | None, reason: str, phase: Phase) -> Decision:
    """The Service selects ``edition`` alone from now on, or (None) every revision; the round goes with it."""
    number = scene.status.round + 1
    detail = {"revision": edition.revision if edition is not None else None, "round": number}
    selector = {REVISION_LABEL: edition.mark if edition is not None else None}
    return go(scene, Step(Act.RETARGET, name, reason, selector=selector, detail=detail), phase=phase, round=number)


def labelled(scene: Scene, edition: Edition, phase: Phase) -> Iterator[Decision]:
    if not edition.is_labelled:
        why = "Services are to tell revisions apart, so its pods bear their own; nothing is restarted"
        yield go(scene, Step(Act.LABEL, edition.revision, why, detail={"service": service_of(scene)}), phase=phase)


def dismissed(scene: Scene, phase: Phase) -> Iterator[Decision]:
    """Our own Services go."""
    for name in (canary_service(scene), rehearsal_service(scene)):
        way = scene.way(name)
        if way is not None and is_divided(scene):
            yield go(scene, Step(Act.EXPOSE, name, "nobody is sent to it any more: it goes"), phase=phase)
