"""How a canary comes to its share of new connections, at last to all of them: by the ratio of pods, or by weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.release.canary_steps import (
    canary_service,
    dismissed,
    exposed,
    grown,
    is_divided,
    labelled,
    rehearsal_service,
    retargeted,
    scaled,
    service_of,
    services_of,
    settled,
    up,
)
from tidegate.release.plan import Act, Decision, Step, counted, go, wait
from tidegate.release.record import Phase
from tidegate.release.scene import REVISION_LABEL, Edition, Question, Scene
from tidegate.release.shares import Share, by_ratio, by_router
from tidegate.release.spec import CanaryStep


def share_of(scene: Scene, stable: Edition, weight: int) -> Share:
    return by_router(scene, stable, weight) if is_divided(scene) else by_ratio(scene, stable, weight)


def prepared(scene: Scene, stable: Edition) -> Iterator[Decision]:
    """Before a second revision has pods: by ratio the Service selects all of them, behind a router only the stable one
    (else clients inside the cluster would meet the canary at a share that nobody asked for)."""
    for name in services_of(scene):
        way = scene.way(name)
        if way is None:
            yield wait(scene, f"$.spec.canary.service: there is no service/{name}", Phase.PENDING)
            return
        mark = way.selector.get(REVISION_LABEL)
        if not is_divided(scene) and mark is not None:
            why = "the ratio of pods is to count, so it selects those of every revision"
            yield retargeted(scene, name, None, why, Phase.PROGRESSING)
    canary = scene.incoming
    main = scene.way(service_of(scene))
    if not is_divided(scene) or main is None:
        return
    marks = () if canary is None or not canary.desired else (stable.mark, canary.mark)
    if main.selector.get(REVISION_LABEL) not in marks:
        yield from _narrowed_to(scene, stable, Phase.PROGRESSING)


def _narrowed_to(scene: Scene, edition: Edition, phase: Phase) -> Iterator[Decision]:
    """Until the Service selects ``edition`` alone and every observer has said so."""
    main = scene.way(service_of(scene))
    assert main is not None
    if main.selector.get(REVISION_LABEL) != edition.mark:
        yield from labelled(scene, edition, phase)
        why = "nobody asks it; its slices tell when the selector to come finds the pods"
        if not _is_rehearsed(scene, edition):
            yield from exposed(scene, rehearsal_service(scene), edition, why, phase)
        why = f"clients that come by the Service itself go to {edition.revision}"
        yield retargeted(scene, main.name, edition, why, phase)
    if not main.is_shown:
        yield wait(scene, f"until the slices of svc/{main.name} list the pods of {edition.revision}", phase)
    yield from settled(scene, "routed", edition, main.name, phase)


def _is_rehearsed(scene: Scene, edition: Edition) -> bool:
    """Whether a Service of ours selects what is to be selected, and its slices show that the labels are known."""
    return any(one.is_ours and one.is_shown and one.selector.get(REVISION_LABEL) == edition.mark for one in scene.ways)


def narrowed(scene: Scene, edition: Edition, phase: Phase) -> Iterator[Decision]:
    """The Service is ``edition``'s, the router's object as it was before, and our own Services are gone."""
    main = scene.way(service_of(scene))
    if not is_divided(scene) or main is None:
        return
    if REVISION_LABEL in main.selector:
        yield from _narrowed_to(scene, edition, phase)
    if scene.fork is not None and scene.fork.is_borrowed:
        why = f"svc/{main.name} is {edition.revision}'s alone: the object is as it was before the release"
        step = weighing(scene, {edition.revision: 100}, "", why, {"restore": True})
        yield go(scene, step, phase=phase)
    if scene.way(canary_service(scene)) is not None:  # nobody may be sent to it when it goes
        yield from settled(scene, "restored", edition, scene.spec.canary.route, phase)
    yield from dismissed(scene, phase)


def later(scene: Scene, edition: Edition, weight: int) -> dict[str, Any]:
    """Another round where this weight was asked about before (that is no answer about what is written now), or where
    another is still being asked about: it will never be so."""
    question = Question(f"weighed-{weight}", edition.revision, scene.spec.canary.route, scene.status.round)
    number = f"/{scene.status.round}"
    weighed = [one for key, one in scene.status.asked.items() if key.startswith("weighed-") and key.endswith(number)]
    is_clear = scene.asked(question) is None and all(one.is_settled for one in weighed)
    return {} if is_clear else {"round": scene.status.round + 1}


def weighing(
    scene: Scene, weights: dict[str, int], header: str, reason: str, detail: dict[str, bool] | None = None
) -> Step:
    """The step that writes weights into the router's object."""
    services = {"stable": service_of(scene), "canary": canary_service(scene), "header": header}
    return Step(Act.WEIGH, scene.spec.canary.route, reason, weights=weights, detail={**services, **(detail or {})})


def autoscaling(edition: Edition, autoscaler: str) -> Step:
    """The user's autoscaler goes on with another revision's pods. Two of them would share pods, as the user's own
    Deployment selects those of all revisions, and neither would scale (AmbiguousSelector, horizontal.go 1.36)."""
    why = f"hpa/{autoscaler} goes with the traffic"
    return Step(Act.AUTOSCALE, edition.revision, why, detail={"autoscaler": autoscaler})


def settled_in(scene: Scene, stable: Edition, canary: Edition) -> Iterator[Decision]:
    """The one with the traffic is scaled as the one before was. Not sooner: an autoscaler shrinks pods without load."""
    if stable.autoscaler and not canary.autoscaler:
        yield go(scene, autoscaling(canary, stable.autoscaler))


def moved(scene: Scene, stable: Edition, canary: Edition, step: CanaryStep) -> Iterator[Decision]:
    """Until the step's share goes to the canary."""
    if is_divided(scene):
        main = scene.way(service_of(scene))
        if main is not None and main.selector.get(REVISION_LABEL) == canary.mark:
            return  # all of it has, and the end has begun
        yield from _by_router(scene, stable, canary, step)
    else:
        yield from _by_ratio(scene, stable, canary, step.weight)


# --- by the ratio of pods ---


def _by_ratio(scene: Scene, stable: Edition, canary: Edition, weight: int) -> Iterator[Decision]:
    share = by_ratio(scene, stable, weight)
    wanted, keep = share.canary, share.stable
    has_arrived = scene.status.arrived > scene.status.step
    if canary.autoscaler or (keep is None and has_arrived):
        wanted = canary.desired  # its own autoscaler's, or it would follow every move of the other's
    if canary.desired < wanted:
        room = wanted if keep is None or stable.autoscaler else scene.replicas + max(scene.surge, 1) - stable.desired
        yield from grown(scene, canary, min(wanted, max(room, canary.desired)), _ratio(scene, stable, weight))
    yield from up(scene, canary, canary.desired)
    for name in services_of(scene) if canary.desired else ():
        yield from settled(scene, "routed", canary, name)
    if weight >= 100:
        yield from settled_in(scene, stable, canary)
    if keep is not None:
        yield from grown(scene, stable, keep, f"{counted(keep)} of {stable.revision} at {weight} %")
        least = max(keep, scene.replicas - canary.desired)
        why = f"in their place: {counted(canary.desired)} of {canary.revision}, routed everywhere"
        yield from scaled(scene, stable, least, why)
    if canary.desired > wanted:
        yield from up(scene, stable, stable.desired)
        for name in services_of(scene):
            yield from settled(scene, "routed", stable, name)
        yield from scaled(scene, canary, wanted, _ratio(scene, stable, weight))


def _ratio(scene: Scene, stable: Edition, weight: int) -> str:
    share = by_ratio(scene, stable, weight)
    percent = share.percent(stable.desired)
    beside = stable.desired if share.stable is None else share.stable
    text = f"{weight} % of new connections: {share.canary} of {share.canary + beside} pods"
    return f"{text}, as {percent} % is the smallest share there is" if percent > weight else text


# --- by a router's weights ---


def _by_router(scene: Scene, stable: Edition, canary: Edition, step: CanaryStep) -> Iterator[Decision]:
    weight = step.weight
    yield from _ours(scene, stable, canary, step)
    wanted = canary.desired if canary.autoscaler else by_router(scene, stable, weight).canary
    yield from labelled(scene, canary, Phase.PROGRESSING)
    yield from grown(scene, canary, wanted, f"{wanted} of {scene.replicas} pods are enough for {weight} %")
    if not stable.autoscaler and weight < 100:
        why = f"{scene.replicas} pods are asked for: the way back stays a change of weights"
        yield from grown(scene, stable, scene.replicas, why)
    yield from up(scene, canary, wanted)
    name = canary_service(scene)
    why = f"the router's way to {canary.revision}; no request yet"
    yield from exposed(scene, name, canary, why, Phase.PROGRESSING)
    yield from settled(scene, "routed", canary, name)
    yield from _weighed(scene, stable, canary, step)
    if weight >= 100:
        yield from settled_in(scene, stable, canary)
    yield from scaled(scene, canary, max(wanted, 1), f"{wanted} of {scene.replicas} pods are enough for {weight} %")


def _ours(scene: Scene, stable: Edition, canary: Edition, step: CanaryStep) -> Iterator[Decision]:
    """Until the share is one that this release has written, or is about to write."""
    fork, ours = scene.fork, scene.status.weight
    now = scene.weights.get(canary.revision, 0)
    if fork is None or now in (ours, step.weight):
        return
    written = f"{fork.name} gives {canary.revision} {now} %, and this release had written {ours} %"
    if scene.generation <= scene.status.generation:
        text = f"{written}: somebody else writes it; `release resume` writes {ours} % again, and goes on"
        yield wait(scene, text, Phase.PAUSED)
    # At once, while it is news: whatever is asked before the next share would take it for old by then.
    weights = {stable.revision: 100 - ours, canary.revision: ours}
    yield go(
        scene,
        weighing(scene, weights, fork.header, f"{written}, which it is to be again"),
        **later(scene, canary, ours),
    )


def _weighed(scene: Scene, stable: Edition, canary: Edition, step: CanaryStep) -> Iterator[Decision]:
    fork, weight = scene.fork, step.weight
    if fork is None:
        yield wait(scene, f"the router's object {scene.spec.canary.route} has not been read")
        return
    now = scene.weights.get(canary.revision, 0)
    if now != weight or fork.header != step.header:
        why = f"{counted(canary.ready)} of {canary.revision}, ready and routed everywhere"
        if step.header:
            why = f"{why}; requests with {step.header} go to it alone"
        weights = {stable.revision: 100 - weight, canary.revision: weight}
        yield go(scene, weighing(scene, weights, step.header, why), **later(scene, canary, weight))
    yield from settled(scene, f"weighed-{weight}", canary, scene.spec.canary.route)
