"""bluegreen: two Deployments, one Service whose selector flips.

The old revision (blue) gets a label of its own and the Service selects by it; the new one (green) is made beside it,
whole, and tried through a preview. Then the selector flips. Done is the flip only when every observer routes to green
and none to blue any more; blue stays warm, so that the way back is one write, and is shrunk through its gates later.

``status.step``: 0 before the flip, 1 while observers are asked, 2 once all of them have answered, 3 once every analysis
after the flip has passed: until then nothing of blue is shrunk, and one that fails flips back. ``status.round`` is
written on the Service with each change of its selector, so a memory that is ahead of a write, or a hand that is not
ours, is told from what we did.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import msgspec

from tidegate.release.endings import faults, fresh_fault
from tidegate.release.guard import has_served
from tidegate.release.plan import Act, Decision, Step, counted, go, halt, wait
from tidegate.release.proving import PROVEN, before_all, is_direct, is_kept_by_analysis, of_flip
from tidegate.release.record import Phase, Status
from tidegate.release.scene import Edition, Question, Scene, Way, key_of, service_named

BEFORE, FLIPPED, SETTLED = 0, 1, 2
_SPEC = "$.spec.bluegreen.service"


def is_flipped(status: Status) -> bool:
    """Whether the flip is done: every observer has answered."""
    return status.step >= SETTLED


def is_proven(status: Status) -> bool:
    """Whether what is asked after the flip has passed too: from then on it is the revision to go back to."""
    return status.step >= PROVEN


def rehearsal_of(workload: str) -> str:
    """The Service that nobody asks: its EndpointSlices tell whether the labels of a selector to come are known."""
    return service_named("tidegate-release", workload)


def decide(scene: Scene) -> Decision:
    """What to do now."""
    decision = next(_decisions(scene))
    status = decision.status
    if status.cause and status.phase in (Phase.ABORTING.value, Phase.ABORTED.value):
        status = msgspec.structs.replace(status, reason=f"{status.cause}; {status.reason}")
    return Decision(decision.steps, status)


@dataclass(frozen=True, slots=True)
class _Flip:
    """One look. ``main`` is the Service; ``goal`` who is to have it, ``serving`` who has it by its selector (None: all
    of them, or nobody). ``is_failed``: an analysis was seen to fail just now, so it goes back."""

    scene: Scene
    main: Way
    goal: Edition | None
    is_failed: bool = False

    @property
    def key(self) -> str:
        return key_of(self.scene.spec)

    @property
    def is_back(self) -> bool:
        return self.scene.goes_back or self.is_failed

    @property
    def phase(self) -> Phase:
        return Phase.ABORTING if self.is_back else Phase.PROGRESSING

    @property
    def mark(self) -> str:
        """What the Service selects by; "" while it selects all revisions."""
        return self.main.selector.get(self.key, "")

    @property
    def serving(self) -> Edition | None:
        return next((one for one in self.scene.editions if self.mark and one.mark == self.mark), None)

    @property
    def others(self) -> list[Edition]:
        return [one for one in self.scene.editions if one is not self.goal]

    @property
    def has_goal(self) -> bool:
        """Whether the Service selects the goal alone."""
        return self.goal is not None and self.serving is self.goal

    @property
    def is_written(self) -> bool:
        """Whether the change of the selector that is remembered has been made. Who asked observers has seen it made."""
        mark = f"/{self.scene.status.round}"
        return self.main.round == self.scene.status.round or any(one.endswith(mark) for one in self.scene.status.asked)

    @property
    def is_flipped(self) -> bool:
        """Whether the Service was given to the goal by us: what is asked and answered is about that."""
        is_same_way = self.is_back == (self.scene.status.phase in (Phase.ABORTING.value, Phase.ABORTED.value))
        return self.has_goal and self.is_written and self.scene.status.step >= FLIPPED and is_same_way

    @property
    def model(self) -> Edition | None:
        """Whose number of pods counts: the one that serves."""
        return self.serving or self.scene.stable

    @property
    def wanted(self) -> int:
        model = self.model
        return model.desired if model is not None else self.scene.replicas

    @property
    def is_return(self) -> bool:
        """Back to a revision that had the traffic before: nobody waits for more than has to be."""
        return self.is_back or (self.goal is not None and self.scene.spec.rollback_to != "")

    @property
    def is_warm(self) -> bool:
        """Back to one whose pods stand, as the first look at it says: the EndpointSlice controller has long known them.
        Once anything had to be done for it, that is asked like for any other."""
        phase = self.scene.status.phase
        return self.is_return and (phase != Phase.ABORTING.value if self.is_back else phase == Phase.PENDING.value)

    @property
    def needed(self) -> int:
        """Pods that have to be ready before a flip."""
        return max(self.scene.floor if self.is_return else self.wanted, 1)

    def selector(self, edition: Edition) -> dict[str, str | None]:
        return {**self.main.selector, self.key: edition.mark}


def _decisions(scene: Scene) -> Iterator[Decision]:
    name = scene.spec.bluegreen.service
    main = scene.way(name)
    if main is None or not main.selector:
        yield halt(scene, f"{_SPEC}: there is no svc/{name} with a selector")
        return
    flip = _Flip(scene, main, scene.stable if scene.goes_back else scene.incoming)
    if _is_by_hand(flip) and scene.generation > scene.status.generation:
        # Somebody has decided: it is flipped anew, and what was answered about the last flip is no answer.
        anew = msgspec.structs.replace(scene.status, step=BEFORE, round=scene.status.round + 1)
        scene = replace(scene, status=anew)
        flip = replace(flip, scene=scene)
    yield from _stopped(flip)
    if flip.goal is None and not flip.is_back and not is_direct(scene):
        yield from before_all(scene.spec.bluegreen.analysis, _stays(flip)).reached(scene)
    yield from _moved(flip)


def _moved(flip: _Flip) -> Iterator[Decision]:
    status = flip.scene.status
    is_turned = flip.is_back and status.phase not in (Phase.ABORTING.value, Phase.ABORTED.value)
    if is_turned and not flip.has_goal and status.step >= FLIPPED:
        # Pods may have to be made first: until it is flipped back, that it selects the other is nobody's hand.
        flip = replace(flip, scene=replace(flip.scene, status=msgspec.structs.replace(status, step=BEFORE)))
    if flip.is_back and flip.scene.status.step == BEFORE and (flip.has_goal or not _has_begun(flip)):
        yield from _ended(flip)  # it never lost the traffic
    if not flip.is_flipped:
        if not flip.is_return:
            yield from _narrowed(flip)
        yield from _made(flip)
        yield from _flips(flip)
    flip = yield from _asked(flip)
    yield from _warmed(flip)
    yield from _ended((yield from _analysed(flip)))


def _has_begun(flip: _Flip) -> bool:
    return bool(flip.mark) or any(one.members for one in flip.others)


# --- before the flip ---


def _stopped(flip: _Flip) -> Iterator[Decision]:
    """Why it must not go on; looked at again when somebody has asked for something since."""
    scene, status = flip.scene, flip.scene.status
    is_asked = scene.generation > status.generation
    if flip.is_back and flip.goal is None:
        yield halt(scene, f"{status.stable} is gone: name the revision to go back to, `release rollback --to`")
    if flip.mark and flip.serving is None:
        yield halt(scene, f"svc/{flip.main.name} selects {flip.key}={flip.mark}, which is no revision of this release")
    if scene.spec.paused and not flip.is_back:
        yield wait(scene, "paused: `release resume` goes on", Phase.PAUSED)
    if status.phase == Phase.HALTED.value and not is_asked and not flip.is_back:
        yield halt(scene, status.reason)
    if _is_by_hand(flip):
        yield halt(
            scene,
            f"svc/{flip.main.name} selects {flip.key}={flip.mark or 'any'} by another hand: it is left so; "
            "`release abort` makes it the end, `release resume` flips again",
        )
    yield from _unverified(flip)


def _is_by_hand(flip: _Flip) -> bool:
    """Whether the Service selects something else than what it was given last. An abort that has just been asked for
    turns it round rightly."""
    status = flip.scene.status
    if flip.is_back and status.phase != Phase.ABORTING.value:
        return False
    if status.step == BEFORE:
        return flip.main.round == status.round and not flip.mark
    return flip.is_written and not flip.has_goal


def _unverified(flip: _Flip) -> Iterator[Decision]:
    scene = flip.scene
    fault = fresh_fault(scene)
    if fault and scene.spec.on_unverified == "halt" and not flip.is_back:
        yield go(scene, phase=Phase.HALTED, reason=fault, unverified=faults(scene))


def _narrowed(flip: _Flip) -> Iterator[Decision]:
    """The first time: the Service selects by the label of the revision that runs, and by nothing less."""
    scene, blue = flip.scene, flip.scene.stable
    if flip.mark or blue is None or not blue.members or blue is flip.goal:
        return
    yield from _labelled(flip, blue)
    is_anew = flip.main.round > 0  # narrowed before, and widened since by another hand
    if scene.spec.bluegreen.together or (flip.goal is not None and flip.goal.members and not is_anew):
        return
    yield from _rehearsed(flip, blue, rehearsal_of(scene.spec.workload))
    if blue.ready < max(scene.floor, 1) and any(one.listed for one in scene.editions if one is not blue):
        yield wait(scene, f"{blue.ready} of {blue.desired} pods of {blue.revision} are ready, it needs {scene.floor}")
    why = f"it selects {blue.revision} alone from now on, so that the next one gets nothing before the flip"
    yield _retarget(flip, blue, why, BEFORE)


def _labelled(flip: _Flip, edition: Edition) -> Iterator[Decision]:
    """The label on everything that is of the revision."""
    if edition.is_labelled:
        return
    why = f"{flip.key}={edition.mark} on its pods and on all that makes them; none is restarted"
    step = Step(Act.LABEL, edition.revision, why, detail={"service": flip.main.name})
    yield go(flip.scene, step, phase=flip.phase)


def _rehearsed(flip: _Flip, edition: Edition, name: str) -> Iterator[Decision]:
    """Whether the EndpointSlice controller knows the labels that the Service is to select by."""
    scene, selector = flip.scene, flip.selector(edition)
    way = scene.way(name)
    is_rehearsal = name == rehearsal_of(scene.spec.workload)
    if way is None or dict(way.selector) != selector:
        why = f"its EndpointSlices tell when {edition.revision}'s pods are known by their labels"
        detail = {"of": flip.main.name, "is_rehearsal": is_rehearsal, "revision": edition.revision}
        yield go(scene, Step(Act.EXPOSE, name, why, selector=selector, detail=detail), phase=flip.phase)
    elif not way.is_shown:
        yield wait(scene, f"until the EndpointSlices of svc/{name} list all that it selects", flip.phase)


def _made(flip: _Flip) -> Iterator[Decision]:
    """The goal whole and ready, with its label; nothing else has changed so far."""
    scene, goal = flip.scene, flip.goal
    if flip.mark and not flip.main.is_shown and (goal is None or not goal.members):
        # A new pod must not be listed by a controller that still has the wider selector.
        yield wait(scene, f"until the EndpointSlices of svc/{flip.main.name} show its selector of now", flip.phase)
    if not flip.wanted:
        yield wait(
            scene, f"{scene.status.stable} is to have no pods: scale it up, there is nothing to move", flip.phase
        )
    if goal is None:
        beside = flip.model.revision if flip.model is not None else scene.status.stable
        why = f"beside {beside}, with as many pods, and out of its Service"
        if scene.spec.bluegreen.together:
            why = f"beside {beside}, with as many pods: both serve"
        step = Step(Act.CREATE, scene.status.revision, why, count=flip.wanted, detail=_naming(scene))
        yield go(scene, step, since=scene.now)
        return
    yield from _labelled(flip, goal)
    if scene.spec.ungated == "drain" and goal.ungated and not has_served(scene, goal):
        names = ", ".join(one.name for one in goal.ungated)
        yield halt(scene, f"{names} have no gate: {goal.revision} is not given traffic that nobody could drain")
    is_short = goal.desired < flip.wanted and goal.ready < flip.needed
    if is_short or (goal.desired != flip.wanted and not flip.is_return):
        serving = flip.model.revision if flip.model is not None else "the one that serves"
        step = Step(Act.SCALE, goal.revision, f"as many as {serving} has", count=flip.wanted)
        yield go(scene, step, phase=flip.phase, since=scene.now)
    yield from _ready(flip, goal)


def _naming(scene: Scene) -> dict[str, str]:
    """What the new Deployment is called, and what its pods' label will say, where that is the user's choice."""
    flip = scene.spec.bluegreen
    labels = ((scene.spec.template or {}).get("metadata") or {}).get("labels") or {}
    found = {"name": flip.name, "value": str(labels.get(flip.by, "")) if flip.by else ""}
    return {key: value for key, value in found.items() if value}


def _ready(flip: _Flip, goal: Edition) -> Iterator[Decision]:
    scene = flip.scene
    if goal.available >= flip.needed and goal.is_observed:
        return
    text = f"{goal.ready} of {goal.desired} pods of {goal.revision} are ready"
    if goal.available < goal.ready:
        text += f", {goal.available} of them for minReadySeconds"
    if goal.problem:
        text += f" ({goal.problem})"
    # Who asks an analysis for an hour has seen them stand until then.
    since = max([scene.status.since, *(one.at for one in scene.status.measured.values())])
    stood = scene.status.phase == Phase.PAUSED.value  # nor may who makes up his mind for a night find it halted
    is_late = not stood and scene.now - since > scene.spec.progress_seconds
    if (goal.is_stalled or is_late) and not flip.is_back and scene.generation <= scene.status.generation:
        limit = f"no progress for {scene.spec.progress_seconds:g} s"
        yield halt(scene, f"{limit}: {text}; traffic stays on {scene.status.stable}")
    anew = {"since": scene.now} if stood or scene.status.phase == Phase.HALTED.value else {}
    yield wait(scene, text, flip.phase, **anew)


# --- the flip ---


def _flips(flip: _Flip) -> Iterator[Decision]:
    scene, goal, status = flip.scene, flip.goal, flip.scene.status
    assert goal is not None
    preview = scene.spec.bluegreen.preview or rehearsal_of(scene.spec.workload)
    if not flip.is_warm:
        yield from _rehearsed(flip, goal, preview)
    if scene.spec.bluegreen.together and not flip.mark:
        yield from _joined(flip, goal)
    if not flip.is_back and not is_direct(scene):
        yield from _tried(flip, goal)
    is_manual = scene.spec.bluegreen.promote == "manual" and scene.spec.promoted <= status.promoted
    if is_manual and not flip.is_return:
        where = f", to be tried by svc/{preview}" if scene.spec.bluegreen.preview else ""
        reason = f"{counted(goal.ready)} of {goal.revision} ready{where}: `release promote` flips"
        yield wait(scene, reason, Phase.PAUSED)
    why = f"from {flip.serving.revision} " if flip.serving is not None and flip.serving is not goal else ""
    yield _retarget(flip, goal, f"{why}to {goal.revision}: {goal.ready} of its pods are ready", FLIPPED)


def _joined(flip: _Flip, goal: Edition) -> Iterator[Decision]:
    """The Service has both. A load balancer that has just been told of the new pods may check them for a while, and
    is to send to them before it is told to forget the others."""
    question = Question("routed", goal.revision, flip.main.name, flip.scene.status.round)
    if not _is_settled(flip.scene, question):
        reason = _waiting(flip.scene, [question])
        why = f"svc/{flip.main.name} drops the others when all say so"
        yield go(flip.scene, Step(Act.ASK, question.service, why, question=question), phase=flip.phase, reason=reason)


def _tried(flip: _Flip, goal: Edition) -> Iterator[Decision]:
    """What is asked before the flip has passed; of one that fails the new revision never has the traffic."""
    scene, preview = flip.scene, flip.scene.spec.bluegreen.preview
    trial = of_flip(scene, "before", _stays(flip))
    if not trial.analyses or trial.is_passed(scene):
        return
    if preview:  # whoever asks by the preview is to meet the new revision, from wherever it asks
        question = Question("routed", goal.revision, preview, scene.status.round)
        if not _is_settled(scene, question):
            step = Step(Act.ASK, preview, "it is tried by its preview once all say so", question=question)
            yield go(scene, step, reason=_waiting(scene, [question]))
    if cause := trial.failure(scene):
        yield from _failed(flip, cause)
    yield from trial.asked(scene)


def _stays(flip: _Flip) -> str:
    return f"traffic stays on {flip.serving.revision if flip.serving is not None else flip.scene.status.stable}"


def _failed(flip: _Flip, cause: str) -> Iterator[Decision]:
    """An analysis has failed: back to the revision before, as if somebody had asked for it, and with the cause."""
    scene = flip.scene
    scene = replace(scene, status=msgspec.structs.replace(scene.status, cause=cause))
    back = replace(flip, scene=scene, goal=scene.stable, is_failed=True)
    if back.goal is None:
        yield halt(scene, f"{cause}; {scene.status.stable} is gone: name the revision to go back to")
    yield from _moved(back)


def _retarget(flip: _Flip, edition: Edition, why: str, step: int) -> Decision:
    """The selector, and the round that it is of. A round that is remembered and not written yet is written now."""
    scene, status = flip.scene, flip.scene.status
    number = status.round + 1 if flip.is_written else status.round
    detail = {"revision": edition.revision, "round": number}
    made = Step(Act.RETARGET, flip.main.name, why, selector={flip.key: edition.mark}, detail=detail)
    # Asked at once: whoever asks looks first whether the EndpointSlices are as the question says.
    asked = [_ask(one) for one in _questions(flip, edition, number)] if step == FLIPPED else []
    return go(scene, made, *asked, phase=flip.phase, round=number, step=step, since=scene.now)


# --- after the flip ---


def _asked(flip: _Flip) -> Generator[Decision, None, _Flip]:
    """Nobody's word but the observers'. What only they know is asked until it is known; stragglers are named.

    What is returned is the look with the memory that all have answered.
    """
    scene, goal, status = flip.scene, flip.goal, flip.scene.status
    assert goal is not None
    steps = [*_autoscaled(flip, goal), *_exposed(flip, goal)]
    if status.step < SETTLED:
        open_ = [one for one in _questions(flip, goal, status.round) if not _is_settled(scene, one)]
        if open_:
            yield go(scene, *steps, *map(_ask, open_), phase=flip.phase, reason=_waiting(scene, open_))
        status = msgspec.structs.replace(status, step=SETTLED, since=scene.now)
        flip = replace(flip, scene=replace(scene, status=status))
    if steps:
        yield go(flip.scene, *steps, phase=flip.phase)
    return flip


def _analysed(flip: _Flip) -> Generator[Decision, None, _Flip]:
    """What is asked after the flip has passed; until then the revision before stands whole, and a failure goes back.

    What is returned is the look with the memory that it has.
    """
    scene, status = flip.scene, flip.scene.status
    if is_kept_by_analysis(scene) and not flip.is_back:
        kept = next((one.revision for one in flip.others if one.revision == status.stable), "nobody")
        trial = of_flip(scene, "after", f"{status.revision} has the traffic, {kept} is kept for the way back")
        if cause := trial.failure(scene):
            yield from _failed(flip, cause)
        yield from trial.asked(scene)
    if is_proven(status):
        return flip
    return replace(flip, scene=replace(scene, status=msgspec.structs.replace(status, step=PROVEN, since=scene.now)))


def _autoscaled(flip: _Flip, goal: Edition) -> Iterator[Step]:
    """The user's one autoscaler goes with the traffic. What served has its number of pods still."""
    found = next((one.autoscaler for one in flip.others if one.autoscaler), "")
    if found and not goal.autoscaler:
        yield Step(Act.AUTOSCALE, goal.revision, f"{found} goes with the traffic", detail={"autoscaler": found})


def _exposed(flip: _Flip, goal: Edition) -> Iterator[Step]:
    """The preview shows who has the traffic; the Service that nobody asks has told what it was made for."""
    spec, selector = flip.scene.spec, flip.selector(goal)
    preview = flip.scene.way(spec.bluegreen.preview) if spec.bluegreen.preview else None
    if preview is not None and dict(preview.selector) != selector:
        detail = {"of": flip.main.name, "revision": goal.revision}
        yield Step(Act.EXPOSE, preview.name, f"as svc/{flip.main.name}", selector=selector, detail=detail)
    rehearsal = flip.scene.way(rehearsal_of(spec.workload))
    if rehearsal is not None and rehearsal.is_ours:
        yield Step(Act.EXPOSE, rehearsal.name, "it has told what it was made for")


def _questions(flip: _Flip, goal: Edition, number: int) -> list[Question]:
    name = flip.main.name
    gone = [Question("unrouted", one.revision, name, number) for one in flip.scene.editions if one.members]
    return [Question("routed", goal.revision, name, number), *(one for one in gone if one.revision != goal.revision)]


def _ask(question: Question) -> Step:
    why = "the flip is done when all say so" if question.kind == "routed" else "nobody may still send to it"
    return Step(Act.ASK, question.service, why, question=question)


def _is_settled(scene: Scene, question: Question) -> bool:
    found = scene.asked(question)
    return found is not None and found.is_settled


def _waiting(scene: Scene, open_: list[Question]) -> str:
    """For whom, by name, as far as it is known."""
    for one in open_:
        found = scene.asked(one)
        if found is not None and found.stragglers:
            more = f" and {len(found.stragglers) - 3} more" if len(found.stragglers) > 3 else ""
            return f"{one.revision} is not known to be {one.kind}: {', '.join(found.stragglers[:3])}{more}"
    return f"until every observer has answered about {', '.join(one.revision for one in open_)}"


# --- the end ---


def _ended(flip: _Flip) -> Iterator[Decision]:
    """Old revisions go through their gates; the one before stays warm as long as it is wanted."""
    scene, goal = flip.scene, flip.goal
    assert goal is not None
    leftovers = tuple(_exposed(flip, goal))
    if leftovers:
        yield go(scene, *leftovers, phase=flip.phase)
    if goal.ready < max(scene.floor, 1) and goal.desired:
        lacks = f"{goal.ready} of {goal.desired} pods of {goal.revision} are ready"
        yield wait(scene, f"{lacks}: nothing is shrunk meanwhile", flip.phase)
    for one in flip.others:
        if not _is_kept(flip, one):
            yield from _retired(flip, one)
    kept = [one for one in flip.others if _is_kept(flip, one) and one.desired]
    end = _warm_until(flip)
    if kept and end is not None:
        reason = f"{goal.revision} has all traffic; {kept[0].revision} is kept warm for {end - scene.now:.0f} s more"
        yield wait(scene, reason, flip.phase)
    reason = f"{goal.revision} has all traffic of svc/{flip.main.name}"
    if kept:
        reason += f"; {kept[0].revision} is warm: `release retire` ends it, `release rollback` goes back at once"
    yield wait(scene, reason, Phase.ABORTED if flip.is_back else Phase.DONE)


def _warmed(flip: _Flip) -> Iterator[Decision]:
    """The way back has room for everybody."""
    goal = flip.goal
    assert goal is not None
    for one in flip.others:
        if _is_kept(flip, one) and one.desired and one.desired < goal.desired:
            step = Step(Act.SCALE, one.revision, f"warm, as many as {goal.revision} has", count=goal.desired)
            yield go(flip.scene, step, phase=flip.phase)


def _is_kept(flip: _Flip, one: Edition) -> bool:
    """Whether it is the one before, and is to stay warm still."""
    spec, scene = flip.scene.spec, flip.scene
    if flip.is_back or one.revision != scene.status.stable or one.revision in spec.retire:
        return False
    end = _warm_until(flip)
    return end is None or scene.now < end or not is_proven(scene.status)


def _warm_until(flip: _Flip) -> float | None:
    keep = flip.scene.spec.bluegreen.keep_seconds
    return None if keep is None else flip.scene.status.since + keep


def _ungated(flip: _Flip, one: Edition) -> Iterator[Decision]:
    """Pods without a gate end as they are where nobody sends to them: that, and that nothing is in flight, is looked at
    once more when they do (``client/release/end_unrouted.py``). A drain by label that was begun is brought to its end.
    """
    scene, name = flip.scene, one.revision
    if not one.is_gated:
        why = "its pods have no gate: whatever it makes from now on is to have one"
        yield go(scene, Step(Act.GATE, name, why), phase=flip.phase)
    begun = [pod for pod in one.ungated if pod.is_let_go]
    pods = tuple(pod.name for pod in begun or one.ungated)
    said = Question("unrouted", name, flip.main.name, scene.status.round)
    if begun or one.listed or not _is_settled(scene, said):
        why = f"{counted(len(pods))} without a gate: each is drained by label"
        yield go(scene, Step(Act.DRAIN, name, why, pods=pods), phase=flip.phase)
    why = f"nobody sends to {counted(len(pods))} without a gate: as soon as nothing is in flight, {name} ends as it is"
    yield go(scene, Step(Act.DRAIN, name, why, 0, pods=pods), phase=flip.phase)


def _retired(flip: _Flip, one: Edition) -> Iterator[Decision]:
    scene, name = flip.scene, one.revision
    if one.desired:
        if one.ungated and scene.spec.ungated == "drain":
            yield from _ungated(flip, one)
        why = "nobody sends to it any more; what is in flight ends behind its gates"
        yield go(scene, Step(Act.SCALE, name, why, count=0), phase=flip.phase)
    if one.members:
        names = ", ".join(sorted(pod.name for pod in one.members)[:3])
        text = f"still to end, through their gates: {counted(len(one.members))} of {name}: {names}"
        yield wait(scene, text, flip.phase)
    if not one.is_base:
        yield go(scene, Step(Act.RETIRE, name, "its pods have ended, all of them"), phase=flip.phase)
