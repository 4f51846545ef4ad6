"""The way back from a canary: traffic first, then its pods through their gates; and so for one that was superseded.

An intermediate revision is never just dropped: it may have a share of the traffic (argo-rollouts #3617).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tidegate.release.canary_shares import autoscaling, narrowed, weighing
from tidegate.release.canary_steps import (
    canary_service,
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
from tidegate.release.scene import REVISION_LABEL, Edition, Scene


def back(scene: Scene, stable: Edition) -> Iterator[Decision]:
    """Until the stable revision is alone, and everything else as it was."""
    cause = scene.status.cause or "somebody asked to abort"
    others = [one for one in scene.editions if one is not stable]
    for decision in unwind(scene, stable, others, Phase.ABORTING):
        yield _told(decision, cause)
    for decision in narrowed(scene, stable, Phase.ABORTING):
        yield _told(decision, cause)
    yield wait(scene, f"{cause}; {stable.revision} has all traffic again", Phase.ABORTED)


def kept(scene: Scene, stable: Edition) -> Iterator[Decision]:
    """What serves is what is asked for: whatever else was on its way gives back its share, and goes."""
    yield from unwind(scene, stable, [one for one in scene.editions if one is not stable], Phase.PROGRESSING)
    yield from _traffic(scene, stable, (), Phase.PROGRESSING)
    yield from narrowed(scene, stable, Phase.PROGRESSING)
    yield wait(scene, f"{stable.revision} is what is asked for, and it serves", Phase.DONE)


def _told(decision: Decision, cause: str) -> Decision:
    return Decision(
        decision.steps, msgspec.structs.replace(decision.status, reason=f"{cause}; {decision.status.reason}")
    )


def unwind(scene: Scene, stable: Edition, others: Sequence[Edition], phase: Phase) -> Iterator[Decision]:
    """Until ``others`` have no traffic and no pods; those that a release made go altogether."""
    live = [one for one in others if one.members or one.desired]
    if live or phase is Phase.ABORTING:
        yield from _traffic(scene, stable, live, phase)
        for name in services_of(scene):
            yield from settled(scene, "routed", stable, name, phase)
        if is_divided(scene) and scene.way(canary_service(scene)) is not None:
            # The last endpoint of a Service cannot be drained verified; and who still comes by it meets somebody.
            why = f"no request is sent to it any more: {stable.revision} takes what still comes"
            yield from exposed(scene, canary_service(scene), stable, why, phase)
    for one in live:
        if one.autoscaler:
            yield go(scene, autoscaling(stable, one.autoscaler), phase=phase)
        why = f"{stable.revision} has the traffic; its pods end through their gates"
        yield from scaled(scene, one, _kept(scene, one), why, phase)
    if live:
        if not stable.autoscaler and any(one.ready for one in scene.editions):
            yield from up(scene, stable, scene.replicas, phase)
        names, count = ", ".join(one.revision for one in live), sum(len(one.members) for one in live)
        yield wait(scene, f"still to end, through their gates: {counted(count)} of {names}", phase)
    for one in others:
        if not one.is_base:
            yield go(scene, Step(Act.RETIRE, one.revision, "it has no traffic and no pods"), phase=phase)


def _kept(scene: Scene, edition: Edition) -> int:
    """How many of its pods have to stay so that, whichever go, the floor is kept."""
    others = sum(one.listed for one in scene.editions if one is not edition)
    need = max(scene.floor - others, 0)
    if not need or not edition.listed:
        return 0
    return min(len(edition.staying), len(edition.staying) - edition.listed + need)


def _traffic(scene: Scene, stable: Edition, live: Sequence[Edition], phase: Phase) -> Iterator[Decision]:
    """First what is quickest: a weight, where the stable revision can carry it. Then all of its pods."""
    if is_divided(scene):
        yield from _redirected(scene, stable, live, phase)
    if not stable.autoscaler or not stable.desired:
        yield from grown(scene, stable, scene.replicas, f"{stable.revision} takes all traffic again", phase)


def _redirected(scene: Scene, stable: Edition, live: Sequence[Edition], phase: Phase) -> Iterator[Decision]:
    main, fork = scene.way(service_of(scene)), scene.fork
    if main is None or fork is None:
        yield wait(scene, "the Service or the router's object is gone: nothing says where traffic goes", Phase.HALTED)
        return
    elsewhere = sum(weight for revision, weight in scene.weights.items() if revision != stable.revision)
    is_theirs = main.selector.get(REVISION_LABEL) not in (None, stable.mark)
    if not (elsewhere or is_theirs or fork.header):
        if fork.is_borrowed:
            yield from settled(scene, "weighed-100", stable, scene.spec.canary.route, phase)
        return
    floor = max(scene.floor, 1)
    if stable.ready < floor and any(one.ready for one in live):
        yield from grown(scene, stable, scene.replicas, f"{stable.revision} is to take all traffic again", phase)
        yield from up(scene, stable, floor, phase)
    if is_theirs:
        yield from labelled(scene, stable, phase)
        why = "nobody asks it; its slices tell when the selector to come finds the pods"
        yield from exposed(scene, rehearsal_service(scene), stable, why, phase)
        why = f"clients that come by the Service itself go back to {stable.revision}"
        yield retargeted(scene, main.name, stable, why, phase)
    why = f"all requests go to {stable.revision} before a pod of another goes"
    step = weighing(scene, {stable.revision: 100}, "", why)
    yield go(scene, step, phase=phase, round=scene.status.round + 1)
