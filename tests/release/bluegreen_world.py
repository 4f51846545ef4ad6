"""Blue/green told forward: the world of ``release.foresee``, what people do meanwhile, engines that die between two
writes, and one invariant of its own: the Service never has fewer ready pods than its floor."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from tidegate.release.foresee import Pace, World, play
from tidegate.release.plan import Decision
from tidegate.release.record import Status
from tidegate.release.scene import Edition, Member, Scene, Way, key_of
from tidegate.release.spec import BlueGreen, Spec
from tidegate.release.strategies import decide

FLOOR = 3


def spec_of(**fields):
    asked = {"template": {"metadata": {"labels": {"version": "4.2"}}}} if "by" in fields else {"restart": "2"}
    return Spec("web", "bluegreen", bluegreen=BlueGreen("web", **fields), **asked)


def scene_of(spec, gated=True, replicas=4, autoscaler="", floor=FLOOR):
    """One plain Deployment with its Service, nothing of ours yet."""
    pods = tuple(Member(f"web-{n}", f"web-{n}", is_ready=True, is_available=True, is_gated=gated) for n in range(4))
    value = "4.1" if spec.bluegreen.by else ""
    base = Edition("r1", "web", "t1", replicas, pods, is_base=True, is_labelled=bool(value), is_gated=gated)
    base = replace(base, value=value, autoscaler=autoscaler)
    return Scene(0.0, spec, Status(), "t2", replicas, floor, 1, (base,), (Way("web", {"app": "web"}),), generation=1)


class Story:
    """A world, and what has been seen of it. ``dies_after``: so many writes, then the engine is another one."""

    def __init__(self, spec=None, pace=None, dies_after=-1, **scene):
        self.short = []
        self.writes = 0
        self.dies_after = dies_after
        self.moments = []
        self.decision = None
        self.world = World(scene_of(spec or spec_of(), **scene), pace or Pace(), self._decide)
        self._make = self.world.make
        self.world.make = self._made

    def _decide(self, scene):
        self._look(scene)
        self.decision = decide(scene)
        if self.writes == self.dies_after:
            self._died()
            return Decision((), self.decision.status)  # remembered, and nothing of it written
        return self.decision

    def _made(self, step):
        if self.writes == self.dies_after:
            return
        self._make(step)
        self.world.settle()
        self.writes += 1
        self._look(self.world.scene())

    def _died(self):
        """Whatever was asked and not answered yet has to be asked again."""
        self.writes += 1
        self.world._answers = {key: due for key, due in self.world._answers.items() if due <= self.world.now}

    def _look(self, scene):
        way = scene.way("web")
        mark = way.selector.get(key_of(scene.spec))
        ready = sum(one.ready for one in scene.editions if mark in (None, one.mark))
        if ready < scene.floor:
            self.short.append((scene.now, ready))

    def go(self, seconds=None):
        """So many seconds, or until nothing happens any more by itself."""
        if seconds is None:
            return self.until(lambda world: False)
        until = self.world.now + seconds
        self.world.wake(until)
        self.until(lambda world: world.now >= until)
        if self.world.now < until:
            self.world.advance(until)
        return self

    def until(self, holds):
        passed = self.world.now - self.world.began
        self.moments += play(self.world, holds, passed + 7200.0).moments
        return self

    def ask(self, target="", **fields):
        """Somebody asks for something else."""
        self.world.spec = msgspec.structs.replace(self.world.spec, **fields)
        self.world.target = target or self.world.target
        self.world.generation += 1
        self.moments.append(f"--- asked for: {', '.join(sorted(map(str, (*fields.items(), target))))}")
        return self

    def scale(self, revision, count):
        next(one for one in self.world.revs if one.edition.revision == revision).desired = count
        self.world.settle()
        return self

    @property
    def phase(self):
        return self.world.status.phase

    @property
    def status(self):
        return self.world.status

    def serving(self):
        way = self.world.ways["web"]
        return way.get(key_of(self.world.spec), "")

    def counts(self):
        return {one.edition.revision: one.desired for one in self.world.revs}

    def text(self):
        lines = []
        for one in self.moments:
            lines.append(one if isinstance(one, str) else f"{one.at:7.1f} s  {one.pods:3d} pods  {one.text}")
        end = f"end: {self.phase}, svc/web {self.world.ways['web']}, {self.counts()}"
        return "\n".join([*lines, end, ""])
