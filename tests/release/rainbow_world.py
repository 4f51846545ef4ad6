"""A pure world for rainbow's planner: revisions with pods and clients, a ReplicaSet controller that chooses as
Kubernetes does and hears of marks late, nodes that hear of the Service's selector late, observers that can be blind.

It shares nothing with the planner: whom a shrinking revision deletes is chosen here, and whoever had connections then
is remembered in ``cut``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec

from tidegate.release.analysis import Finding, added
from tidegate.release.guard import breaches
from tidegate.release.plan import Act
from tidegate.release.record import Asked, Measured, Status
from tidegate.release.scene import REVISION_LABEL, Edition, Member, Scene, Way
from tidegate.release.spec import Rainbow, Spec
from tidegate.release.strategies import decide

ROUTES_LATE_SECONDS = 1.5
MARKS_LATE_SECONDS = 1.0
TICK_SECONDS = 0.5


@dataclass
class Pod:
    name: str
    born: float
    ready_at: float
    is_gated: bool = True
    clients: list[float] = field(default_factory=list)
    """Until when each stays."""
    cost: int = 0
    cost_before: int = 0
    cost_at: float = 0.0
    is_blind: bool = False
    """Nobody can read its connections."""
    is_ill: bool = False
    leaving_at: float | None = None


@dataclass
class Revision:
    name: str
    template: str
    desired: int
    pods: list[Pod] = field(default_factory=list)
    is_base: bool = False
    is_labelled: bool = True
    autoscaler: str = ""
    work: int | None = 0
    made: int = 0


class World:
    def __init__(self, seed=0, replicas=3, gated=True, **rainbow):
        self.rng = random.Random(seed)
        self.now = 0.0
        self.replicas = replicas
        self.boot_seconds = 2.0
        self.broken, self.bare = set(), set()
        self.spec = Spec("web", "rainbow", rainbow=Rainbow(**{"service": "web", **rainbow}))
        self.generation = 1
        self.status = Status()
        self.revisions = [Revision("r1", "t1", replicas, is_base=True, is_labelled=False)]
        self.target = "t1"
        self.selectors = {"web": {"app": "web"}}
        self.shown_at, self.rounds = {}, {}
        self.routed_to, self.routes_at, self.next_routes = None, 0.0, None
        self.cut, self.lost, self.log, self.retired, self.endings = [], [], [], [], {}
        self.alive_max = 0
        self.measures, self.judge = {}, lambda moment, name: Finding(True, "it is as wanted")
        for _ in range(replicas):
            self._born(self.revisions[0], gated, at_once=True)

    # --- people ---

    def release(self, template, **changes):
        self.target = template
        self.ask(images={"web": template}, wish="", rollback_to="", **changes)

    def ask(self, **changes):
        self.spec = msgspec.structs.replace(self.spec, **changes)
        self.generation += 1

    def revision(self, name):
        return next((one for one in self.revisions if one.name == name), None)

    def client(self, seconds, revision=None):
        """A connection as a node makes it now, which may not have heard of the selector yet."""
        for one in self.revisions:
            wanted = revision or self.routed_to
            if wanted is None or one.name == wanted:
                ready = [pod for pod in one.pods if pod.leaving_at is None and self._is_ready(pod)]
                if ready:
                    self.rng.choice(ready).clients.append(self.now + seconds)
                    return
        self.lost.append(f"{self.now:g}: nobody was there for a client")

    # --- controllers ---

    def _born(self, revision, gated=True, at_once=False):
        revision.made += 1
        prefix = "web" if revision.is_base else f"web-{revision.name}"
        ready = float("inf") if revision.template in self.broken else self.now + (0 if at_once else self.boot_seconds)
        revision.pods.append(
            Pod(f"{prefix}-{revision.made}", self.now, ready, gated and revision.template not in self.bare)
        )

    def _is_ready(self, pod):
        return pod.ready_at <= self.now and not pod.is_ill

    def _cost(self, pod):
        return pod.cost if self.now - pod.cost_at >= MARKS_LATE_SECONDS else pod.cost_before

    def _replicate(self, revision):
        for pod in revision.pods:
            pod.clients = [until for until in pod.clients if until > self.now]
        revision.pods = [pod for pod in revision.pods if pod.leaving_at is None or pod.clients]
        staying = [pod for pod in revision.pods if pod.leaving_at is None]
        for _ in range(revision.desired - len(staying)):
            self._born(revision)
        surplus = len(staying) - revision.desired
        if surplus > 0:
            chosen = sorted(staying, key=lambda pod: (self._is_ready(pod), self._cost(pod), self.rng.random()))
            for pod in chosen[:surplus]:
                if pod.clients and self.routed_to == revision.name:
                    pass  # a goal that is made smaller is not rainbow's doing
                elif pod.clients:
                    self.cut.append(f"{self.now:g}: {pod.name} went with {len(pod.clients)} clients")
                pod.leaving_at = self.now

    def tick(self, seconds=TICK_SECONDS):
        self.now += seconds
        if self.next_routes is not None and self.now >= self.routes_at:
            self.routed_to, self.next_routes = self.next_routes, None
        for revision in self.revisions:
            self._replicate(revision)
        self.alive_max = max(self.alive_max, sum(len(one.pods) for one in self.revisions))

    # --- the engine ---

    def _measured(self):
        """Answers a second after their question."""
        found = dict(self.status.measured)
        for key in [key for key, due in self.measures.items() if due <= self.now]:
            finding = self.judge(*key.split("/")[:2])
            found[key] = added(found.get(key, Measured()), finding, self.measures.pop(key))
        return found

    def scene(self):
        self.status = msgspec.structs.replace(self.status, measured=self._measured())
        editions = tuple(
            Edition(
                revision=one.name,
                deployment="web" if one.is_base else f"web-{one.name}",
                fingerprint=one.template,
                desired=one.desired,
                members=tuple(self._member(one, pod) for pod in one.pods),
                is_base=one.is_base,
                is_labelled=one.is_labelled,
                autoscaler=one.autoscaler,
                work=one.work,
            )
            for one in self.revisions
        )
        ways = tuple(
            Way(name, selector, self.now >= self.shown_at.get(name, 0), round=self.rounds.get(name, 0))
            for name, selector in self.selectors.items()
        )
        return Scene(
            self.now, self.spec, self.status, self.target, self.replicas, max(self.replicas - 1, 1), 1, editions, ways,
            template="t1", endings=self.endings, generation=self.generation,
        )  # fmt: skip

    def _member(self, revision, pod):
        selected = self.selectors.get("web", {REVISION_LABEL: ""}).get(REVISION_LABEL)
        is_ready = self._is_ready(pod) and pod.leaving_at is None
        return Member(
            pod.name,
            pod.name,
            is_ready=is_ready,
            is_available=is_ready,
            is_leaving=pod.leaving_at is not None,
            is_gated=pod.is_gated,
            is_listed=is_ready and selected in (None, revision.name),
            connections=None if pod.is_blind else len(pod.clients),
            problem="ImagePullBackOff" if pod.ready_at == float("inf") else "",
            cost=pod.cost,
        )

    def look(self, last=None):
        """One round of the engine: decide, guard, the first ``last`` steps; the memory only if all were made."""
        scene = self.scene()
        decision = decide(scene)
        assert breaches(scene, decision) == (), breaches(scene, decision)
        asked = dict(decision.status.asked)
        for step in decision.steps[:last]:
            self._check(scene, step)
            self.log.append(f"{self.now:6.1f}  {step}")
            self._do(step, asked)
        if last is None or last > len(decision.steps):
            if decision.status.reason != self.status.reason and not decision.steps:
                self.log.append(f"{self.now:6.1f}  [{decision.status.phase}] {decision.status.reason}")
            self.status = msgspec.structs.replace(decision.status, asked=asked)
        return decision

    def _check(self, scene, step):
        """What no step may ask for, looked at by itself: fewer pods than are busy or unknown, a busy pod by name."""
        edition = scene.edition(step.subject)
        if step.act in (Act.SCALE, Act.DRAIN) and step.count < len(edition.staying):
            needed = [one for one in edition.staying if one.connections != 0]
            if step.subject not in self.spec.retire:
                assert step.count >= len(needed), f"{step} with {needed}"
        if step.act is Act.DRAIN:
            assert not [one for one in edition.staying if one.name in step.pods and one.connections]

    def _do(self, step, asked):
        one = self.revision(step.subject)
        match step.act:
            case Act.LABEL:
                one.is_labelled = True
            case Act.CREATE:
                self.revisions.append(Revision(step.subject, self.target, step.count))
            case Act.SCALE | Act.DRAIN:
                one.desired = step.count
            case Act.MARK:
                for pod in one.pods:
                    if pod.name in step.pods:
                        pod.cost_before, pod.cost, pod.cost_at = (
                            self._cost(pod),
                            step.detail["costs"][pod.name],
                            self.now,
                        )
            case Act.EXPOSE if step.selector is None:
                self.selectors.pop(step.subject, None)
            case Act.EXPOSE:
                self.selectors[step.subject] = dict(step.selector)
                self.shown_at[step.subject] = self.now + 1.0
            case Act.RETARGET:
                self.selectors[step.subject] |= step.selector
                self.rounds[step.subject] = step.detail["round"]
                self.shown_at[step.subject] = self.now + 1.0
                self.next_routes = step.selector[REVISION_LABEL]
                self.routes_at = self.now + ROUTES_LATE_SECONDS
            case Act.ASK:
                asked[step.question.key] = self._answer(step.question)
            case Act.MEASURE:
                self.measures.setdefault(step.subject, self.now + 1.0)
            case Act.AUTOSCALE:
                for other in self.revisions:
                    other.autoscaler = step.detail["autoscaler"] if other is one else ""
            case Act.RETIRE:
                assert not one.pods
                self.retired.append(one.name)
                self.revisions.remove(one)
            case _:
                raise AssertionError(f"rainbow does not {step.act}")

    def _answer(self, question):
        if self.next_routes is not None:
            return Asked("no", stragglers=("node-3",))
        is_routed = self.routed_to in (None, question.revision)
        ready = [
            pod for one in self.revisions if one.name == question.revision for pod in one.pods if self._is_ready(pod)
        ]
        if question.kind == "routed" and not ready:
            return Asked("no", stragglers=(f"no pod of {question.revision} is ready",))
        return Asked("yes" if is_routed == (question.kind == "routed") else "no", epoch="7")

    def play(self, seconds, last=None):
        """``seconds`` of looks, two a second."""
        end = self.now + seconds
        while self.now < end:
            self.tick()
            decision = self.look(last)
        return decision

    def until(self, condition, within=600.0):
        end = self.now + within
        while not condition():
            assert self.now < end, f"not within {within} s: {self.status.phase}, {self.status.reason}\n" + self.text()
            self.tick()
            self.look()

    def phase(self):
        return self.status.phase

    def pods(self, name):
        one = self.revision(name)
        return [pod.name for pod in one.pods if pod.leaving_at is None] if one is not None else None

    def text(self):
        return "\n".join(self.log) + "\n"
