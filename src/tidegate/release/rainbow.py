"""rainbow: a Deployment per release. New traffic goes to the newest; the others keep theirs until it ends by itself,
shrink as it does, stand at zero for a while in case work comes again, and are retired.

Here: how a revision comes to have all new traffic. How the others go is ``shrinking``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec

from tidegate.release import shrinking
from tidegate.release.bluegreen import rehearsal_of
from tidegate.release.endings import faults, fresh_fault
from tidegate.release.plan import Act, Decision, Step, go, halt, wait
from tidegate.release.proving import before_all, is_direct, is_kept_by_analysis, of_flip
from tidegate.release.record import Asked, Phase
from tidegate.release.scene import REVISION_LABEL, Edition, Question, Scene, Way
from tidegate.release.spec import When

BEFORE, FLIPPED = 0, 1
"""``status.step``: before and after the new revision was given the Service."""


@dataclass(frozen=True, slots=True)
class View:
    """A scene, and whom it is about. ``goal`` is the revision that is to have the traffic (None before it is made),
    ``serving`` the one that the Service selects ("" where it does not tell revisions apart, or there is no Service).
    """

    scene: Scene
    goal: Edition | None
    serving: str
    is_abort: bool

    @property
    def name(self) -> str:
        return self.goal.revision if self.goal is not None else self.scene.status.revision

    @property
    def phase(self) -> Phase:
        return Phase.ABORTING if self.is_abort else Phase.PROGRESSING

    @property
    def is_served(self) -> bool:
        """Whether all new work goes to the goal, every observer has said so, and what is asked after that has passed;
        without a Service, whether it could take it."""
        if self.goal is None:
            return False
        if not self.scene.spec.service:
            return self.goal.available >= self.scene.replicas or self.scene.status.stable == self.name
        said = self.scene.asked(question("routed", self.name, self.scene))
        is_routed = self.serving == self.name and said is not None and said.is_settled
        return is_routed and not is_kept_by_analysis(self.scene)


def decide(scene: Scene) -> Decision:
    """What to do now: for the one that comes, and for those that go."""
    scene = _judged(_asked_again(scene))
    view = view_of(scene)
    old = draining(scene)
    view = replace(view, scene=shrinking.remembered(scene, old))
    coming = next(_coming(view))
    if view.is_abort and scene.status.cause:
        status = msgspec.structs.replace(coming.status, reason=f"{scene.status.cause}; {coming.status.reason}")
        coming = Decision(coming.steps, status)
    if (scene.spec.paused and not view.is_abort) or _is_stopped(coming):
        return coming
    going = shrinking.shrink(view.scene, old)
    is_settled = coming.status.phase in (Phase.DONE.value, Phase.ABORTED.value)
    status = coming.status
    if is_settled and not going.is_over:
        status = msgspec.structs.replace(status, phase=view.phase.value)
    if status.phase != Phase.HALTED.value:  # why it halted stays as it was said
        status = msgspec.structs.replace(status, reason="; ".join((status.reason, *going.texts)))
    heralds = [one for one in view.scene.editions if old and one.revision == (view.serving or view.name)]
    told = [step for one in heralds for step in shrinking.heralds(view.scene, one)]
    return Decision((*coming.steps, *going.steps, *told), status)


def _asked_again(scene: Scene) -> Scene:
    """Somebody has asked for something since it halted: what it waited for is waited for anew."""
    status = scene.status
    if status.phase != Phase.HALTED.value or scene.generation <= status.generation:
        return scene
    phase = Phase.PROGRESSING.value
    # A round of its own: where a hand has moved the Service there and back, what was answered before is nobody's word.
    number = status.round + 1
    status = msgspec.structs.replace(status, phase=phase, step=BEFORE, since=scene.now, round=number, asked={})
    return replace(scene, status=status)


def _judged(scene: Scene) -> Scene:
    """An analysis that has failed aborts, as if somebody had asked for it, and with the cause."""
    status = scene.status
    if scene.goes_back or is_direct(scene) or status.stable == status.revision:
        return scene
    cause = of_flip(scene, "before").failure(scene) or of_flip(scene, "after").failure(scene)
    if not cause:
        return scene
    return replace(scene, status=msgspec.structs.replace(status, phase=Phase.ABORTING.value, cause=cause))


def view_of(scene: Scene) -> View:
    """Abort goes back to the revision that has, or had, the traffic; where that is the new one already, there is
    nothing to go back from (``rollback_to`` names where to)."""
    is_abort = scene.goes_back and scene.stable is not None and scene.status.stable != scene.status.revision
    way = scene.way(scene.spec.service) if scene.spec.service else None
    goal = scene.stable if is_abort else scene.incoming
    return View(scene, goal, way.selector.get(REVISION_LABEL, "") if way is not None else "", is_abort)


def draining(scene: Scene) -> list[Edition]:
    """Those that go: whoever is not to have, has not, and could not have to take back the traffic."""
    view = view_of(scene)
    if scene.spec.service and not view.serving:
        return []
    kept = {view.name, view.serving, "" if view.is_served else scene.status.stable}
    return [one for one in scene.editions if one.revision not in kept]


def question(kind: str, revision: str, scene: Scene) -> Question:
    """Asked of the strategy's Service, about this round."""
    return Question(kind, revision, scene.spec.service, scene.status.round)


def _is_stopped(decision: Decision) -> bool:
    """A pod that ended unverified stops the shrinking too; a new revision that does not come up stops only itself."""
    status = decision.status
    return status.phase == Phase.HALTED.value and status.reason.startswith(status.unverified or "-")


def _coming(view: View) -> Iterator[Decision]:
    scene = view.scene
    if scene.spec.paused and not view.is_abort:
        yield go(scene, phase=Phase.PAUSED, reason="paused: `release resume` goes on")
    yield from _unverified(scene)
    way = None
    if scene.spec.service:
        way = scene.way(scene.spec.service)
        if way is None:
            yield wait(scene, f"$.spec.rainbow.service: there is no service/{scene.spec.service}", Phase.PENDING)
    is_first = view.goal is not None and len(scene.editions) == 1
    if way is not None and view.goal is None and not view.is_abort and not is_direct(scene):
        stays = f"new traffic stays on {view.serving or scene.status.stable}"
        yield from before_all(scene.spec.rainbow.analysis, stays).reached(scene)
    if way is not None and not is_first:
        yield from _told_apart(view, way)
    yield from _standing(view)
    if way is not None and not is_first:
        yield from _flipped(view, way)
    yield from _autoscaled(view)
    if way is not None and not is_first:
        stays = f"{view.name} has new traffic, {scene.status.stable} is kept for the way back"
        yield from _proven(view, "after", stays)
    moved = {"stable": view.name, "step": FLIPPED}
    ending = Phase.ABORTED if view.is_abort else Phase.DONE
    what = "has all new traffic" if scene.spec.service else "takes all new work"
    yield wait(scene, f"{view.name} {what}", ending, **moved)


def _unverified(scene: Scene) -> Iterator[Decision]:
    """A pod that ended otherwise than verified. Looked at again when somebody has asked for something since."""
    is_latched = scene.status.phase == Phase.HALTED.value
    fault = fresh_fault(scene)
    if fault and scene.spec.on_unverified == "halt":
        yield Decision((), msgspec.structs.replace(halt(scene, fault).status, unverified=faults(scene)))
    elif is_latched:
        yield halt(scene, scene.status.reason)


# --- one Service, several revisions ---


def _told_apart(view: View, way: Way) -> Iterator[Decision]:
    """Before a second revision stands, the Service asks for the first one's label: else both would serve."""
    scene, name = view.scene, view.scene.spec.workload
    bare = next((one for one in scene.editions if not one.is_labelled), None)
    if bare is not None:
        why = "the Service is to tell revisions apart, so its pods bear their own; nothing is restarted"
        yield go(scene, Step(Act.LABEL, bare.revision, why, detail={"service": way.name}), phase=view.phase)
    if not view.serving:
        now = scene.stable or scene.editions[0]
        yield from _rehearsed(view, way, now)
        why = f"it selects {now.revision} alone from now on; all its pods bear the label, nobody is dropped"
        yield _retarget(view, way, now, why)
    elif scene.edition(view.serving) is None:
        yield halt(scene, f"svc/{way.name} selects {REVISION_LABEL}={view.serving}, which is no revision of {name}")
    if not way.is_shown and (view.goal is None or not view.goal.members):
        # A new pod must not be listed by a controller that still has the wider selector.
        yield wait(scene, f"until the slices of svc/{way.name} show its selector of now", view.phase)


def _rehearsed(view: View, way: Way, edition: Edition) -> Iterator[Decision]:
    wanted = {**way.selector, REVISION_LABEL: edition.revision}
    name = rehearsal_of(view.scene.spec.workload)
    stands = view.scene.way(name)
    if stands is None or dict(stands.selector) != wanted:
        why = "nobody asks it; its slices tell when the selector to come finds the pods"
        detail = {"of": way.name, "is_rehearsal": True, "revision": edition.revision}
        yield go(view.scene, Step(Act.EXPOSE, name, why, selector=wanted, detail=detail), phase=view.phase)
    elif not stands.is_shown:
        yield wait(view.scene, f"until the slices of svc/{name} list the pods of {edition.revision}", view.phase)


def _retarget(view: View, way: Way, edition: Edition, why: str) -> Decision:
    """A round of its own: what was asked of the selector before is no answer about this one."""
    number = view.scene.status.round + 1
    selector = {REVISION_LABEL: edition.revision}
    step = Step(Act.RETARGET, way.name, why, selector=selector, detail={"revision": edition.revision, "round": number})
    stage = FLIPPED if edition is view.goal else BEFORE
    return go(view.scene, step, phase=view.phase, round=number, step=stage)


# --- the revision that comes ---


def _standing(view: View) -> Iterator[Decision]:
    """Until the goal has its pods, all of them available; one that serves already is left to its controllers."""
    scene, goal = view.scene, view.goal
    if goal is None:
        yield from _made(view)
        return
    if scene.spec.ungated == "drain" and not goal.is_base and goal.ungated:
        names = ", ".join(one.name for one in goal.ungated)
        yield halt(scene, f"{names} of {goal.revision} have no gate: it is not given traffic that nobody could drain")
    if goal.desired < scene.replicas and (not goal.autoscaler or goal.desired == 0):
        why = f"{goal.revision} is to have {scene.replicas} pods" + (" again" if view.is_abort or goal.is_base else "")
        step = Step(Act.SCALE, goal.revision, why, count=scene.replicas)
        yield go(scene, step, phase=view.phase, since=scene.now)
    if not goal.is_observed:
        yield wait(scene, f"until the controller of deployment/{goal.deployment} has seen it", view.phase)
    enough = max(scene.floor, 1) if _is_return(scene, goal) else min(goal.desired, scene.replicas)
    if goal.available < enough and view.serving != goal.revision:
        yield from _late(view, goal)
        problem = f" ({goal.problem})" if goal.problem else ""
        text = f"{goal.available} of {enough} pods of {goal.revision} are available{problem}"
        yield wait(scene, text, view.phase)


def _is_return(scene: Scene, goal: Edition) -> bool:
    """Back to a revision that stood before the one with the traffic: as soon as enough of it is ready, not all."""
    names = [one.revision for one in scene.editions]
    return goal.revision == scene.status.stable or (
        scene.status.stable in names and names.index(goal.revision) < names.index(scene.status.stable)
    )


def _made(view: View) -> Iterator[Decision]:
    scene, cap = view.scene, view.scene.spec.rainbow.cap
    live = [one for one in scene.editions if one.members or one.desired]
    if len(live) >= cap:
        names = ", ".join(f"{one.revision} ({shrinking.work_of(scene, one, view.serving)})" for one in live)
        yield wait(
            scene,
            f"at most {cap} revisions may live at once, and {len(live)} do: {names}; {view.name} begins when one has "
            "drained",
            Phase.PENDING,
        )
    if not scene.replicas:
        yield wait(scene, f"{view.serving or scene.status.stable} is to have no pods: scale it up, nothing is to move")
    why = f"{scene.replicas} pods beside those that serve, and no traffic yet"
    yield go(scene, Step(Act.CREATE, view.name, why, count=scene.replicas), since=scene.now)


def _late(view: View, goal: Edition) -> Iterator[Decision]:
    limit = view.scene.spec.progress_seconds
    is_late = view.scene.now - view.scene.status.since > limit
    if goal.is_stalled or is_late:
        why = goal.problem or f"{goal.available} of {goal.desired} pods of {goal.revision} are available"
        text = f"no progress for {limit:g} s: {why}"
        yield halt(view.scene, f"{text}, traffic stays on {view.serving or view.scene.status.stable}")


def _flipped(view: View, way: Way) -> Iterator[Decision]:
    scene, goal = view.scene, view.goal
    assert goal is not None
    if view.serving != goal.revision:
        if scene.status.step == FLIPPED and way.round == scene.status.round and not view.is_abort:
            text = f"svc/{way.name} selects {view.serving} by another hand: it is left so"
            yield halt(scene, f"{text}; `release resume` gives it to {goal.revision} again")
        yield from _rehearsed(view, way, goal)
        yield from _proven(view, "before", f"new traffic stays on {view.serving}")
        yield _retarget(view, way, goal, f"new connections go to {goal.revision}; {view.serving} keeps those it has")
    if not way.is_shown:
        yield wait(scene, f"until the slices of svc/{way.name} list the pods of {goal.revision}", view.phase)
    asking = question("routed", goal.revision, scene)
    said = scene.asked(asking)
    if said is None or not said.is_settled:
        why = f"{goal.revision} is routed everywhere before anything else changes" if said is None else waits_for(said)
        yield go(scene, Step(Act.ASK, way.name, why, question=asking), phase=view.phase)
    rehearsal = rehearsal_of(scene.spec.workload)
    if scene.way(rehearsal) is not None:
        is_stable = scene.status.stable == goal.revision or is_kept_by_analysis(scene)
        moved = {} if is_stable else {"stable": goal.revision}
        step = Step(Act.EXPOSE, rehearsal, "it has said what it was made for: it goes")
        yield go(scene, step, phase=view.phase, **moved)


def _proven(view: View, when: When, stays: str) -> Iterator[Decision]:
    """Until what is asked on that side of the flip has passed. Of what has been served by nothing is asked."""
    scene = view.scene
    if view.is_abort or is_direct(scene) or scene.status.stable == view.name:
        return
    trial = of_flip(scene, when, stays)
    if cause := trial.failure(scene):
        yield halt(scene, f"{cause}; {scene.status.stable} is gone: name the revision to go back to")
    yield from trial.asked(scene)


def waits_for(said: Asked) -> str:
    return f"waits for {', '.join(said.stragglers)}" if said.stragglers else "not everybody has said so yet"


def _autoscaled(view: View) -> Iterator[Decision]:
    """The autoscaler goes on with the one that has the traffic, and so nobody fights for those that drain
    (temporal-worker-controller #320). Not sooner: an autoscaler shrinks pods without load."""
    goal = view.goal
    assert goal is not None
    model = next((one for one in reversed(view.scene.editions) if one.autoscaler and one is not goal), None)
    if model is not None and not goal.autoscaler:
        why = f"hpa/{model.autoscaler} goes on with the pods that serve, {model.revision} drains without one"
        detail = {"autoscaler": model.autoscaler}
        yield go(view.scene, Step(Act.AUTOSCALE, goal.revision, why, detail=detail), phase=view.phase)
