"""A pure world for canary's planner: revisions with pods, controllers, EndpointSlices and a router that hear late,
clients that ask all the time (by the router, and by the Service inside the cluster), gates that hold a leaving pod
until nobody routes to it, an engine that may be killed between remembering and acting.

It shares nothing with the planner but the shapes: where a request goes is decided here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec

from tidegate.release import analysis
from tidegate.release.fork import Fork
from tidegate.release.guard import breaches
from tidegate.release.plan import Act
from tidegate.release.record import Asked, Measured, Status
from tidegate.release.scene import REVISION_LABEL, Edition, Member, Scene, Way
from tidegate.release.spec import Canary, CanaryStep, Spec
from tidegate.release.strategies import decide

TICK_SECONDS = 0.5
SLICES_LATE_SECONDS = 0.5
ROUTES_LATE_SECONDS = 1.5
ROUTER_LATE_SECONDS = 1.0
BOOT_SECONDS = 2.0
NEVER = float("inf")


@dataclass
class Pod:
    name: str
    revision: str
    ready_at: float
    is_gated: bool = True
    is_ill: bool = False
    leaving_at: float | None = None
    gone_at: float = NEVER


@dataclass
class Revision:
    name: str
    template: str
    desired: int
    is_base: bool = False
    is_labelled: bool = True
    is_gated: bool = True
    autoscaler: str = ""
    pods: list[Pod] = field(default_factory=list)
    made: int = 0

    @property
    def staying(self):
        return [one for one in self.pods if one.leaving_at is None]


def steps_of(*weights, pause=0.0):
    return tuple(CanaryStep(one, pause) if isinstance(one, int) else CanaryStep(*one) for one in weights)


class World:
    def __init__(self, seed=0, replicas=4, steps=(25, 50), pause=0.0, router="replicas", gated=True, surge=1, **canary):
        self.rng = random.Random(seed)
        self.now = 0.0
        self.replicas, self.surge, self.unavailable = replicas, surge, max(replicas // 4, 1)
        route = {} if router == "replicas" else {"route": "web"}
        made = Canary(service="web", steps=steps_of(*steps, pause=pause), router=router, **route, **canary)
        self.spec = Spec("web", "canary", canary=made)
        self.generation = 1
        self.status = Status()
        self.broken, self.kill_share = set(), 0.0
        self.revisions = [Revision("r1", "t1", replicas, is_base=True, is_labelled=False, is_gated=gated)]
        self.target = "t1"
        self.selectors = {"web": {"app": "web"}}
        self.selected_at = {}
        self.fork = Fork("httproute/web", {"web": 100}) if router != "replicas" else None
        self.history = []
        """(instant, {Service: pods listed}, {Service: percent}, header)"""
        self.asks, self.measures, self.answered = {}, {}, set()
        self.judge = lambda name, at: analysis.Finding(True, "1 is >= 0.99")
        self.lost, self.ill, self.served, self.log, self.wrong = [], 0, {}, [], []
        self.retired, self.endings, self.available_min = [], {}, replicas
        for _ in range(replicas):
            self._born(self.revisions[0], at_once=True)
        self._happens()

    # --- people ---

    def release(self, template, **changes):
        self.target = template
        self.ask(images={"web": template}, wish="", **changes)

    def ask(self, **changes):
        self.spec = msgspec.structs.replace(self.spec, **changes)
        self.generation += 1

    def steps(self, *weights, pause=0.0):
        self.ask(canary=msgspec.structs.replace(self.spec.canary, steps=steps_of(*weights, pause=pause)))

    def promote(self, count=1):
        self.ask(promoted=self.status.promoted + count)

    def revision(self, name):
        return next((one for one in self.revisions if one.name == name), None)

    def pods(self, name):
        found = self.revision(name)
        return [] if found is None else found.staying

    # --- what is ---

    def _born(self, rev, at_once=False):
        rev.made += 1
        late = NEVER if rev.template in self.broken else self.now + (0 if at_once else BOOT_SECONDS)
        prefix = "web" if rev.is_base else f"web-{rev.name}"
        rev.pods.append(Pod(f"{prefix}-{rev.made}", rev.name, late, rev.is_gated))

    def is_ready(self, pod):
        return pod.ready_at <= self.now and not pod.is_ill and pod.leaving_at is None

    def _selected(self, service):
        selector = self.selectors.get(service, {})
        mark = selector.get(REVISION_LABEL)
        found = [pod for rev in self.revisions for pod in rev.pods if mark in (None, rev.name)]
        for rev in self.revisions:
            assert mark != rev.name or rev.is_labelled, f"{service} selects a label that {rev.name} does not bear"
        return [pod for pod in found if self.is_ready(pod)]

    def _seen(self, late):
        """What was at ``late`` seconds ago."""
        before = [one for one in self.history if one[0] <= self.now - late]
        return before[-1] if before else self.history[0]

    def _happens(self):
        """Controllers, slices, gates; and everybody's view of a moment ago."""
        for rev in self.revisions:
            for _ in range(rev.desired - len(rev.staying)):
                self._born(rev)
            order = sorted(rev.staying, key=lambda one: (self.is_ready(one), self.rng.random()))
            for pod in order[: max(len(rev.staying) - rev.desired, 0)]:
                pod.leaving_at = self.now
                self.endings[pod.name] = "verified" if pod.is_gated else "ungated: nobody waited"
        listed = {name: self._selected(name) for name in self.selectors}
        shares = dict(self.fork.shares) if self.fork is not None else {}
        self.history = [*self.history[-12:], (self.now, listed, shares, self.fork.header if self.fork else "")]
        _, seen, _, _ = self._seen(ROUTES_LATE_SECONDS)
        for rev in self.revisions:
            for pod in rev.pods:
                # In order: whoever has heard of its end has heard before of whatever listed it.
                is_told = pod.leaving_at is not None and pod.leaving_at + ROUTES_LATE_SECONDS <= self.now
                is_held = pod.is_gated and (not is_told or any(pod in pods for pods in seen.values()))
                if pod.leaving_at is not None and not is_held and pod.gone_at == NEVER:
                    pod.gone_at = self.now + 1.0
            rev.pods = [one for one in rev.pods if one.gone_at > self.now]
        self.available_min = min(self.available_min, sum(self.is_ready(p) for r in self.revisions for p in r.pods))

    # --- clients ---

    def _requests(self):
        for _ in range(4):
            self._by_service("web")
            if self.fork is not None:
                self._by_router()

    def _by_router(self):
        _, _, shares, _ = self._seen(ROUTER_LATE_SECONDS)
        names = sorted(name for name, share in shares.items() if share)
        if not names:
            self.lost.append(f"{self.now:g}: the router knows no way")
            return
        self._by_service(self.rng.choices(names, [shares[one] for one in names])[0], is_routed=True)

    def _by_service(self, name, is_routed=False):
        _, seen, _, _ = self._seen(self.rng.choice((0.0, ROUTES_LATE_SECONDS)))
        pods = seen.get(name)
        if not pods:
            self.lost.append(f"{self.now:g}: 503 by svc/{name}")
            return
        pod = self.rng.choice(pods)
        if pod.gone_at <= self.now:
            self.lost.append(f"{self.now:g}: {pod.name} is gone, and svc/{name} led to it")
        elif pod.is_ill:
            self.ill += 1
        else:
            key = ("router" if is_routed else "service", pod.revision)
            self.served[key] = self.served.get(key, 0) + 1

    # --- the engine ---

    def scene(self):
        asked = {}
        for key, (question, at) in self.asks.items():
            is_given = at + ROUTES_LATE_SECONDS + 0.5 <= self.now
            if question.kind == "routed":  # of a revision without a ready pod nobody says that, as client/release
                is_given = key in self.answered or (is_given and any(map(self.is_ready, self.pods(question.revision))))
                self.answered |= {key} if is_given else set()
            if question.kind.startswith("weighed"):
                _, _, shares, _ = self._seen(ROUTER_LATE_SECONDS)
                share = shares.get("web-canary", 0)
                is_stable = self.selectors["web"].get(REVISION_LABEL) == question.revision
                is_given = (100 - share if is_stable else share) == int(question.kind.partition("-")[2])
            if question.kind == "restored":
                _, _, shares, _ = self._seen(ROUTER_LATE_SECONDS)
                is_given = "web-canary" not in shares
            asked[key] = Asked("yes", "e/1", self.now) if is_given else Asked("no", stragglers=("node-2: behind",))
        measured = dict(self.status.measured)
        for key, (one, at, is_before) in sorted(self.measures.items()):
            if at + 0.5 <= self.now:
                finding = self.judge(one.name, self.now)
                if is_before and finding.is_passed is False:
                    finding = analysis.Finding(True, finding.text)
                measured[key] = analysis.added(measured.get(key, Measured()), finding, self.now)
                del self.measures[key]
        status = msgspec.structs.replace(self.status, asked=asked, measured=measured)
        return Scene(
            now=self.now,
            spec=self.spec,
            status=status,
            target=self.target,
            replicas=self.replicas,
            floor=self.replicas - self.unavailable,
            surge=self.surge,
            editions=tuple(self._edition(one) for one in self.revisions),
            ways=tuple(
                Way(name, dict(one), self.now - self.selected_at.get(name, -9) >= SLICES_LATE_SECONDS, name != "web")
                for name, one in sorted(self.selectors.items())
            ),
            weights={} if self.fork is None else self._weights(),
            endings=dict(self.endings),
            generation=self.generation,
            fork=self.fork,
        )

    def _weights(self):
        found = {one.name: self._percent(one.name, self.fork.shares) for one in self.revisions}
        gone = self.selectors.get("web-canary", {}).get(REVISION_LABEL)
        return found if gone is None or gone in found else {**found, gone: self.fork.shares.get("web-canary", 0)}

    def _percent(self, revision, shares):
        marks = {name: self.selectors.get(name, {}).get(REVISION_LABEL) for name in shares}
        # A Service that tells nobody apart is the only revision's there is.
        return sum(share for name, share in shares.items() if marks[name] == revision or marks[name] is None)

    def _edition(self, rev):
        members = tuple(
            Member(
                name=pod.name,
                is_ready=self.is_ready(pod),
                is_available=self.is_ready(pod),
                is_leaving=pod.leaving_at is not None,
                is_gated=pod.is_gated,
                is_listed=self.is_ready(pod) and pod in self.history[-1][1]["web"],
                problem="ImagePullBackOff" if pod.ready_at == NEVER else "",
                has_fallen=pod.is_ill,
            )
            for pod in rev.pods
        )
        return Edition(
            rev.name,
            "web" if rev.is_base else f"web-{rev.name}",
            rev.template,
            rev.desired,
            members,
            rev.is_base,
            is_labelled=rev.is_labelled,
            is_gated=rev.is_gated,
            autoscaler=rev.autoscaler,
        )

    def turn(self):
        scene = self.scene()
        decision = decide(scene)
        self.wrong += breaches(scene, decision)
        self._judge(scene, decision)
        self._note(decision)
        self.status = decision.status
        if self.rng.random() < self.kill_share:
            self.asks, self.measures = {}, {}  # killed between remembering and acting
            return decision
        for step in decision.steps:
            self._make(step)
        return decision

    def _judge(self, scene, decision):
        """What no step may do, seen from here."""
        for step in decision.steps:
            if step.act is Act.WEIGH:
                assert sum(step.weights.values()) == 100, step
                for name, weight in step.weights.items():
                    assert weight <= scene.weights.get(name, 0) or any(map(self.is_ready, self.pods(name))), (
                        f"{step}: nobody is ready"
                    )
            if step.act is Act.EXPOSE and step.selector is None and self.fork is not None:
                _, _, shares, _ = self._seen(ROUTER_LATE_SECONDS)
                assert not shares.get(step.subject), f"{step}: the router still leads there"

    def _note(self, decision):
        for step in decision.steps:
            is_new = step.act is not Act.ASK or step.question.key not in self.asks
            if step.act is not Act.MEASURE and is_new:
                self.log.append(f"{self.now:6.1f}  {step}")
        told = f"{decision.status.phase}: {decision.status.reason}"
        if not decision.steps and (not self.log or not self.log[-1].endswith(told)):
            self.log.append(f"{self.now:6.1f}  - {told}")

    def _make(self, step):
        rev = self.revision(step.subject)
        match step.act:
            case Act.LABEL:
                rev.is_labelled = True
            case Act.GATE:
                rev.is_gated = True
            case Act.DRAIN:
                pod = next((one for one in rev.pods if one.name == step.pods[0]), None)
                if pod is not None and pod.leaving_at is None:
                    self._born(rev, at_once=True)
                    pod.is_gated, pod.leaving_at = True, self.now  # drained by label: held as a gate would
                    self.endings[pod.name] = "verified"
            case Act.CREATE:
                if rev is None:
                    self.revisions.append(Revision(step.subject, self.target, step.count))
            case Act.SCALE:
                rev.desired = step.count
            case Act.AUTOSCALE:
                for one in self.revisions:
                    one.autoscaler = step.detail["autoscaler"] if one is rev else ""
            case Act.EXPOSE | Act.RETARGET:
                self._select(step)
            case Act.WEIGH:
                self._weigh(step)
            case Act.ASK:
                self.asks.setdefault(step.question.key, (step.question, self.now))
            case Act.MEASURE:
                one = next(one for one in self.spec.canary.analysis if one.name == step.detail["analysis"])
                self.measures.setdefault(step.subject, (one, self.now, step.detail["is_before"]))
            case Act.RETIRE:
                assert not rev.pods and not rev.is_base
                self.retired.append(rev.name)
                self.revisions.remove(rev)

    def _select(self, step):
        if step.selector is None:
            self.selectors.pop(step.subject, None)
            return
        found = {**self.selectors.get(step.subject, {}), **step.selector}
        self.selectors[step.subject] = {key: value for key, value in found.items() if value is not None}
        self.selected_at[step.subject] = self.now

    def _weigh(self, step):
        if step.detail.get("restore"):
            self.fork = Fork(self.fork.name, {"web": 100})
            return
        # The Service of each revision is whichever selects it.
        shares = {}
        for name in ("web", "web-canary"):
            mark = self.selectors.get(name, {}).get(REVISION_LABEL)
            shares[name] = step.weights.get(mark, 0) if name in self.selectors else 0
        assert sum(shares.values()) == 100, (shares, step)
        self.fork = Fork(self.fork.name, shares, step.detail["header"], True)

    # --- time ---

    def tick(self):
        self.turn()
        self.now += TICK_SECONDS
        self._happens()
        self._requests()

    def play(self, seconds):
        until = self.now + seconds
        while self.now < until:
            self.tick()

    def until(self, is_so, limit=600.0):
        began = self.now
        while not is_so():
            assert self.now - began < limit, (
                f"not in {limit:g} s: {self.status.phase}: {self.status.reason}\n{self.text()}"
            )
            self.tick()

    def phase(self):
        return self.status.phase

    def to_the_end(self, phase="done", limit=600.0):
        self.until(lambda: (self.status.phase, self.status.fingerprint) == (phase, self.target), limit)
        self.play(5)
        assert self.status.phase == phase, self.text()
        assert self.wrong == []
        assert self.lost == [], "\n".join(self.lost[:5]) + "\n" + self.text()

    def text(self):
        return "\n".join(self.log) + "\n"
