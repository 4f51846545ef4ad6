"""A plan, foreseen: a strategy told forward over a world that does as it is told.

The world is plain arithmetic: pods that take a while to be ready and a while to end, a Deployment controller with its
surge and its floor, observers that answer after a while. ``--dry-run`` prints what comes of it; golden transcripts and
the property tests play strategies over worlds that are slow, late or broken in ways their callers choose (``Pace``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import msgspec

from tidegate.release.analysis import Finding, added
from tidegate.release.fork import Fork
from tidegate.release.guard import breaches
from tidegate.release.plan import Act, Decision, Step, Strategy
from tidegate.release.record import Asked, Measured, Phase
from tidegate.release.scene import REVISION_LABEL, Edition, Member, Scene, Way
from tidegate.release.strategies import decide

TURNS_MAX = 2000
_NEVER = float("inf")
_ANSWERS = {True: "it is as wanted", False: "it is not as wanted", None: "it cannot be asked"}


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds; functions of a pod's name, so that a caller may draw them.

    ``ready``: from a pod's creation to Ready (inf: never, ``problem`` says why). ``end``: from its deletion to its end:
    gate, in-flight work, shutdown. ``fence``: until all observers have answered a question. ``connections``: what is in
    flight at a pod at an instant (None: unknown). ``work``: what a revision says of its own work.
    """

    ready: Callable[[str], float] = lambda pod: 2.0
    end: Callable[[str], float] = lambda pod: 1.5
    fence: Callable[[str], float] = lambda question: 1.0
    connections: Callable[[str, float], int | None] = lambda pod, at: 0
    work: Callable[[str, float], int | None] = lambda revision, at: None
    ending: Callable[[str], str] = lambda pod: "verified"
    problem: str = "ImagePullBackOff"
    measured: Callable[[str, float], bool | None] = lambda analysis, at: True


@dataclass(slots=True)
class _Pod:
    name: str
    born: float
    ready_at: float
    is_gated: bool = True
    cost: int = 0
    gone_at: float = _NEVER

    def is_ready(self, at: float) -> bool:
        return self.ready_at <= at and self.gone_at == _NEVER


@dataclass(slots=True)
class _Rev:
    edition: Edition
    desired: int
    pods: list[_Pod] = field(default_factory=list)
    made: int = 0

    def staying(self) -> list[_Pod]:
        return [one for one in self.pods if one.gone_at == _NEVER]


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the foreseen: seconds from the beginning, what is done or waited for, the pods alive then."""

    at: float
    text: str
    pods: int
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Foreseen:
    """``breaches``: what the guard said; empty for every sound plan. ``phase`` it came to."""

    moments: tuple[Moment, ...]
    seconds: float
    most_pods: int
    pod_seconds: float
    phase: str
    reason: str
    breaches: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        return tuple(f"{one.at:7.1f} s  {one.pods:3d} pods  {one.text}" for one in self.moments)


class World:
    """The world of one release. ``tick`` decides, does, and goes on to the next instant at which something happens."""

    def __init__(self, scene: Scene, pace: Pace | None = None, strategy: Strategy = decide) -> None:
        self.pace = pace or Pace()
        self.began = self.now = scene.now
        self.first = scene
        self.spec, self.status, self.target, self.template = scene.spec, scene.status, scene.target, scene.template
        self.replicas, self.generation = scene.replicas, scene.generation
        self.ways = {one.name: dict(one.selector) for one in scene.ways}
        self.serves: dict[str, str] = {}
        self.rounds = {one.name: one.round for one in scene.ways}
        self.made = {one.name for one in scene.ways if one.is_ours}
        self.weights, self.fork = dict(scene.weights), scene.fork
        self.revs = [self._rev(one) for one in scene.editions]
        self.is_paused = any(one.is_paused for one in scene.editions)
        self.endings: dict[str, str] = dict(scene.endings)
        self.breaches: list[str] = []
        self.most_pods, self.pod_seconds = 0, 0.0
        self._strategy = strategy
        self._answers: dict[str, float] = {}
        self._unrouted: dict[str, str] = {}
        """Questions for ``routed`` that nobody could say yes to yet -> their revision: none of its pods was ready."""
        self._measures: dict[str, float] = {}
        self._wakes: list[float] = []

    def _rev(self, edition: Edition) -> _Rev:
        pods = [_Pod(one.name, self.now, self.now if one.is_ready else _NEVER, one.is_gated, one.cost)
                for one in edition.staying]  # fmt: skip
        return _Rev(edition, edition.desired, pods, len(pods))

    # --- what is seen ---

    def scene(self) -> Scene:
        """As a strategy sees it."""
        at = self.now
        for key, revision in list(self._unrouted.items()):
            if any(pod.is_ready(at) for rev in self.revs if rev.edition.revision == revision for pod in rev.pods):
                del self._unrouted[key]
        due = {key: then for key, then in self._answers.items() if then <= at and key not in self._unrouted}
        asked = {key: Asked("yes", "e/1", then) for key, then in due.items()}
        self.status = msgspec.structs.replace(self.status, measured=self._measured())
        status = msgspec.structs.replace(self.status, asked={**self.status.asked, **asked})
        return replace(
            self.first, now=at, spec=self.spec, status=status, target=self.target, template=self.template,
            replicas=self.replicas, floor=max(self.replicas - (self.first.replicas - self.first.floor), 0),
            editions=tuple(self._edition(one) for one in self.revs), weights=dict(self.weights),
            ways=tuple(self._way(name) for name in sorted(self.ways)),
            endings=dict(self.endings), generation=self.generation, fork=self.fork,
        )  # fmt: skip

    def _way(self, name: str) -> Way:
        return Way(name, dict(self.ways[name]), True, name in self.made, self.rounds.get(name, 0))

    def _edition(self, rev: _Rev) -> Edition:
        members = tuple(self._member(rev, one) for one in rev.pods)
        work = self.pace.work(rev.edition.revision, self.now)
        return replace(rev.edition, desired=rev.desired, members=members, is_paused=self.is_paused, work=work)

    def _member(self, rev: _Rev, one: _Pod) -> Member:
        is_ready = one.is_ready(self.now)
        return Member(
            name=one.name,
            uid=one.name,
            is_ready=is_ready,
            is_available=is_ready,
            is_leaving=one.gone_at != _NEVER,
            is_gated=one.is_gated,
            is_listed=is_ready and self.is_selected(rev.edition.revision),
            connections=self.pace.connections(one.name, self.now),
            problem=self.pace.problem if one.ready_at == _NEVER else "",
            cost=one.cost,
        )

    def is_selected(self, revision: str) -> bool:
        """By a Service of the workload; one that previews the revision counts too, as in a cluster."""
        return any(
            self.serves.get(name, selector.get(REVISION_LABEL, revision)) == revision
            for name, selector in self.ways.items()
        )

    def _measured(self) -> dict[str, Measured]:
        found = dict(self.status.measured)
        for key in [key for key, due in self._measures.items() if due <= self.now]:
            is_passed = self.pace.measured(key, self.now)
            finding = Finding(is_passed, _ANSWERS[is_passed])
            found[key] = added(found.get(key, Measured()), finding, self._measures.pop(key))
        return found

    # --- what is done ---

    def decide(self) -> Decision:
        scene = self.scene()
        decision = self._strategy(scene)
        self.breaches += breaches(scene, decision)
        self.status = decision.status
        return decision

    def make(self, step: Step) -> None:
        """Do as a step says."""
        rev = next((one for one in self.revs if one.edition.revision == step.subject), None)
        match step.act:
            case Act.SET_TEMPLATE:
                self._set_template(step)
            case Act.HOLD | Act.CONTINUE:
                self.is_paused = step.act is Act.HOLD
            case Act.GATE if rev is not None:
                rev.edition = replace(rev.edition, is_gated=True)
            case Act.LABEL if rev is not None:
                rev.edition = replace(rev.edition, is_labelled=True)
            case Act.CREATE:
                self._create(step)
            case Act.SCALE if rev is not None:
                rev.desired = step.count or 0
            case Act.RETARGET | Act.EXPOSE:
                self._select(step)
            case Act.WEIGH:
                self._weigh(step)
            case Act.ASK:
                assert step.question is not None
                if step.question.kind == "routed" and step.question.key not in self._answers:
                    self._unrouted[step.question.key] = step.question.revision
                self._answers.setdefault(step.question.key, self.now + self.pace.fence(step.question.key))
            case Act.MEASURE:
                self._measures.setdefault(step.subject, self.now + 1.0)
            case Act.DRAIN if rev is not None:
                self._drain(rev, step)
            case Act.MARK:
                self._mark(step)
            case Act.AUTOSCALE if "autoscaler" in step.detail:
                for one in self.revs:
                    name = str(step.detail["autoscaler"])
                    has = one.edition.autoscaler if one.edition.autoscaler != name else ""
                    one.edition = replace(one.edition, autoscaler=name if one is rev else has)
            case Act.RETIRE:
                self.revs = [one for one in self.revs if one is not rev]
            case _:
                pass

    def _set_template(self, step: Step) -> None:
        revision = str(step.detail.get("revision") or "")
        found = next((one for one in self.revs if one.edition.revision == revision), None)
        self.template = found.edition.fingerprint if found is not None else self.target
        self.is_paused = False
        if not any(one.edition.fingerprint == self.template for one in self.revs):
            base = self.revs[0].edition
            made = Edition(self.status.revision, base.deployment, self.template, 0, is_base=True)
            self.revs.append(_Rev(made, 0))

    def _create(self, step: Step) -> None:
        if all(one.edition.revision != step.subject for one in self.revs):
            name = str(step.detail.get("name") or f"{self.spec.workload}-{step.subject}")
            made = Edition(step.subject, name, self.target, 0, value=str(step.detail.get("value") or ""))
            self.revs.append(_Rev(made, step.count or 0))

    def _select(self, step: Step) -> None:
        if step.selector is None:
            self.ways.pop(step.subject, None)
            self.serves.pop(step.subject, None)
            return
        if step.subject not in self.ways:
            self.made.add(step.subject)
        if "round" in step.detail:
            self.rounds[step.subject] = int(step.detail["round"])
        selector = {**self.ways.get(step.subject, {}), **step.selector}
        self.ways[step.subject] = {key: value for key, value in selector.items() if value is not None}
        if step.detail.get("revision"):
            self.serves[step.subject] = str(step.detail["revision"])

    def _weigh(self, step: Step) -> None:
        self.weights = dict(step.weights or {})
        if self.fork is None:
            return
        stable, canary = str(step.detail.get("stable", "")), str(step.detail.get("canary", ""))
        if step.detail.get("restore"):
            self.fork = Fork(self.fork.name, {stable: 100})
            return
        mark = self.ways.get(canary, {}).get(REVISION_LABEL, "")
        percent = self.weights.get(mark, 0)
        shares = {stable: 100 - percent, canary: percent}
        self.fork = Fork(self.fork.name, shares, str(step.detail.get("header", "")), True)

    def _drain(self, rev: _Rev, step: Step) -> None:
        """Replacement first: the twin is made at once, the pod goes when it is ready. With a number, its revision
        shrinks to that, and nobody stands in."""
        if step.count is not None:
            rev.desired = step.count
            for one in rev.pods:
                if one.name in step.pods:
                    one.gone_at = min(one.gone_at, self.now + self.pace.end(one.name))
            return
        for name in step.pods[:1]:
            pod = next((one for one in rev.pods if one.name == name and one.gone_at == _NEVER), None)
            if pod is not None:
                twin = self._born(rev)
                pod.gone_at = twin.ready_at + self.pace.end(name)

    def _mark(self, step: Step) -> None:
        costs = step.detail.get("costs") or {}
        for rev in self.revs:
            for pod in rev.pods:
                pod.cost = int(costs.get(pod.name, pod.cost))

    # --- what happens by itself ---

    def _born(self, rev: _Rev) -> _Pod:
        rev.made += 1
        name = f"{rev.edition.deployment}-{rev.edition.revision}-{rev.made}"
        pod = _Pod(name, self.now, self.now + self.pace.ready(name), rev.edition.is_gated)
        rev.pods.append(pod)
        return pod

    def _leave(self, rev: _Rev, pod: _Pod) -> None:
        pod.gone_at = self.now + self.pace.end(pod.name)
        self.endings[pod.name] = self.pace.ending(pod.name) if pod.is_gated else "ungated: nobody waited"

    def settle(self) -> None:
        """Controllers do what they have to; pods whose end has come are gone."""
        for rev in self.revs:
            rev.pods = [one for one in rev.pods if one.gone_at > self.now]
        if self.spec.strategy == "rolling" and not self.is_paused:
            self._roll()
        for rev in self.revs:
            staying = rev.staying()
            for _ in range(rev.desired - len(staying)):
                self._born(rev)
            surplus = len(staying) - rev.desired
            # controller_utils.go ActivePodsWithRanks: not ready first, then the cheaper, then the younger.
            order = sorted(staying, key=lambda one: (one.is_ready(self.now), one.cost, -one.born, one.name))
            for pod in order[: max(surplus, 0)]:
                self._leave(rev, pod)
        self.most_pods = max(self.most_pods, self.pods)

    def _roll(self) -> None:
        """The Deployment controller, one pass (deployment/rolling.go of 1.36)."""
        new = next((one for one in self.revs if one.edition.fingerprint == self.template), None)
        if new is None:
            return
        others = [one for one in self.revs if one is not new]
        surge, unavailable = self.first.surge, self.first.replicas - self.first.floor
        total = sum(len(one.staying()) for one in self.revs)
        if new.desired < self.replicas:
            new.desired = min(self.replicas, new.desired + max(self.replicas + surge - total, 0))
        if new.desired > self.replicas:
            new.desired = self.replicas
        fresh = len(new.staying()) if new.staying() else 0
        ready_new = sum(one.is_ready(self.now) for one in new.staying())
        all_pods = fresh + sum(one.desired for one in others) + max(new.desired - fresh, 0)
        left = all_pods - (self.replicas - unavailable) - (new.desired - ready_new)
        for one in others:
            fewer = max(min(left, one.desired), 0)
            one.desired -= fewer
            left -= fewer

    @property
    def pods(self) -> int:
        return sum(len(one.pods) for one in self.revs)

    def next_instant(self) -> float:
        """When something happens next; infinite when nothing does."""
        found = [one.ready_at for rev in self.revs for one in rev.pods]
        found += [one.gone_at for rev in self.revs for one in rev.pods]
        found += [*self._answers.values(), *self._measures.values(), *self._wakes]
        return min((one for one in found if self.now < one < _NEVER), default=_NEVER)

    def advance(self, at: float) -> None:
        self.pod_seconds += self.pods * (at - self.now)
        self.now = at
        self.settle()

    def wake(self, at: float) -> None:
        """Something happens then that the world does not know of: a caller's event, a timer of a strategy."""
        self._wakes.append(at)


LOOK_SECONDS = 5.0
"""How long to look for what only time brings (a pause that ends, a deadline)."""


def play(world: World, until: Callable[[World], bool] = lambda world: False, limit_seconds: float = 7200.0) -> Foreseen:
    """Tell a world forward: to its end, to where it needs a person, until ``until``, or to the limit."""
    moments: list[Moment] = []
    world.settle()
    while world.now - world.began <= limit_seconds and len(moments) < TURNS_MAX:
        decision = world.decide()
        moments += _told(world, decision, moments)
        for step in decision.steps:
            world.make(step)
        world.settle()
        phase = Phase(world.status.phase)
        instant = world.next_instant()
        is_resting = phase in (Phase.DONE, Phase.ABORTED, Phase.HALTED, Phase.PAUSED) and not decision.steps
        if until(world) or (is_resting and instant == _NEVER):
            break
        if not decision.steps or all(step.act in (Act.ASK, Act.MEASURE, Act.DRAIN) for step in decision.steps):
            if is_resting and phase.is_final and not any(one.gone_at < _NEVER for r in world.revs for one in r.pods):
                break
            world.advance(min(instant, world.now + LOOK_SECONDS))
    return Foreseen(
        tuple(moments), world.now - world.began, world.most_pods, world.pod_seconds, world.status.phase,
        world.status.reason, tuple(world.breaches),
    )  # fmt: skip


def _told(world: World, decision: Decision, moments: list[Moment]) -> Iterator[Moment]:
    at = world.now - world.began
    texts = [one.text for one in moments]
    for step in decision.steps:
        if str(step) not in texts[-20:]:
            yield Moment(at, str(step), world.pods, step)
    if not decision.steps:
        phase = Phase(decision.status.phase)
        prefix = "wait" if phase in (Phase.PROGRESSING, Phase.PENDING, Phase.ABORTING) else phase.value
        text = f"{prefix}: {decision.status.reason}"
        if not texts or texts[-1] != text:
            yield Moment(at, text, world.pods)


def foresee(scene: Scene, pace: Pace | None = None) -> Foreseen:
    """What would come of a release, if all goes as it should, and whoever is asked to promote it does."""
    world = World(scene, pace)
    found = play(world)
    moments = list(found.moments)
    while found.phase == Phase.PAUSED.value and not world.spec.paused and len(moments) < TURNS_MAX:
        if world.spec.promoted > world.status.promoted:
            break  # promoted already: it waits for something else
        promoted = world.status.promoted + 1
        world.spec = msgspec.structs.replace(world.spec, promoted=promoted)
        world.generation += 1
        found = play(world)
        moments += found.moments
    return replace(found, moments=tuple(moments))
