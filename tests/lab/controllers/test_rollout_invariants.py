"""Whatever the numbers and however pods behave, a rollout stays within maxSurge and maxUnavailable and ends.

The plan is asked again and again against a model of ReplicaSets whose pods become ready in any order; every
random run is a hypothesis example, so a breach prints the numbers that made it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.lab.controllers.fenceposts import fenceposts, replicas
from tidegate.lab.controllers.rollout import View, plan
from tidegate.lab.controllers.writes import Create, Remove, Replace

from .controller_world import deployment

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PERCENT_OR_COUNT = st.one_of(st.integers(0, 6), st.integers(0, 100).map(lambda share: f"{share}%"))


class Model:
    """ReplicaSets that do what a rollout plan writes, and pods that are ready or not."""

    def __init__(self, obj):
        meta = {"namespace": "tides", "uid": "d", "generation": 1, "resourceVersion": "1"}
        self.deployment = {**obj, "metadata": {**obj["metadata"], **meta}, "status": {}}
        self.sets = {}
        self.ready = {}
        self.now = BEGIN
        self.born = 0

    def step(self):
        """One pass of the controller; answers whether it wrote anything."""
        view = View(self.deployment, tuple(self.sets.values()), (), self.now)
        writes = plan(view).writes
        for write in writes:
            match write:
                case Create(_, obj):
                    self.born += 1
                    made = (BEGIN + timedelta(seconds=self.born)).strftime("%Y-%m-%dT%H:%M:%SZ")
                    name = obj["metadata"]["name"]
                    meta = {**obj["metadata"], "uid": name, "creationTimestamp": made, "generation": 1}
                    self.sets[name] = {**obj, "metadata": meta, "status": {"replicas": 0}}
                    self.ready[name] = 0
                case Replace(_, obj, "status"):
                    self.deployment = obj
                case Replace(_, obj, ""):
                    self.sets[obj["metadata"]["name"]] = obj
                case Remove(_, (_, name)):
                    del self.sets[name]
            self.shrink()
        return bool(writes)

    def shrink(self):
        """A ReplicaSet scaled down ends its unready pods first, at once."""
        for name, one in self.sets.items():
            self.ready[name] = min(self.ready[name], replicas(one))

    def report(self, name):
        """The ReplicaSet controller has seen what there is."""
        one, ready = self.sets[name], self.ready[name]
        generation = one["metadata"]["generation"]
        counts = {"replicas": replicas(one), "readyReplicas": ready, "availableReplicas": ready}
        self.sets[name] = {**one, "status": {**counts, "observedGeneration": generation}}

    def make_ready(self, name):
        self.ready[name] = min(replicas(self.sets[name]), self.ready[name] + 1)

    def settle(self):
        """Everything gets ready and reported, with the controller asked in between, until nothing changes."""
        for _ in range(300):
            before = (self.deployment, dict(self.sets))
            for name in self.sets:
                self.make_ready(name)
                self.report(name)
            while self.step():
                self.check()
            if before == (self.deployment, self.sets):
                return
        raise AssertionError("it never settles")

    def check(self):
        posts, desired = fenceposts(self.deployment), replicas(self.deployment)
        total = sum(replicas(one) for one in self.sets.values())
        assert total <= max(desired + posts.surge, self.allowed_total), "surge"
        assert sum(self.ready.values()) >= min(desired - posts.unavailable, self.floor), "unavailable"

    def begin(self, image):
        """Patch the template; from here the bounds hold as the rollout found things."""
        self.floor = sum(self.ready.values())
        self.allowed_total = sum(replicas(one) for one in self.sets.values())
        spec = self.deployment["spec"]
        container = {**spec["template"]["spec"]["containers"][0], "image": image}
        pod = {**spec["template"]["spec"], "containers": [container]}
        template = {**spec["template"], "spec": pod}
        meta = {**self.deployment["metadata"], "generation": self.deployment["metadata"]["generation"] + 1}
        self.deployment = {**self.deployment, "metadata": meta, "spec": {**spec, "template": template}}


def rolled_out_model(count, surge, unavailable):
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    model = Model(deployment(count, strategy=strategy, progressDeadlineSeconds=600))
    model.floor = model.allowed_total = 0
    model.settle()
    return model


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), PERCENT_OR_COUNT, PERCENT_OR_COUNT, st.data())
def test_no_step_of_a_rollout_breaks_surge_or_availability(count, surge, unavailable, data):
    model = rolled_out_model(count, surge, unavailable)
    for edition in range(2, data.draw(st.integers(2, 4), "editions") + 1):
        model.begin(f"app:{edition}")
        for _ in range(data.draw(st.integers(0, 25), "disturbances")):
            names = sorted(model.sets)
            act = data.draw(st.sampled_from([model.make_ready, model.report, None]), "act")
            if act is None:
                model.step()
            else:
                act(data.draw(st.sampled_from(names), "of"))
            model.check()
    model.settle()
    sizes = sorted(replicas(one) for one in model.sets.values())
    assert sum(sizes) == count
    assert sizes[-1] == count
    assert model.deployment["status"].get("updatedReplicas", 0) == count
    assert model.deployment["status"]["conditions"][-1]["reason"] in (
        "NewReplicaSetAvailable",
        "MinimumReplicasAvailable",
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10), st.integers(0, 30), PERCENT_OR_COUNT, st.integers(0, 8))
def test_scaling_in_the_middle_of_a_rollout_fills_exactly_what_is_allowed(count, new_count, surge, steps):
    model = rolled_out_model(count, surge, 0)
    model.begin("app:2")
    for _ in range(steps):
        model.step()
        for name in model.sets:
            model.report(name)
    meta = {**model.deployment["metadata"], "generation": 9}
    spec = {**model.deployment["spec"], "replicas": new_count}
    model.deployment = {**model.deployment, "metadata": meta, "spec": spec}
    active = sum(1 for one in model.sets.values() if replicas(one))
    while model.step():
        pass
    total = sum(replicas(one) for one in model.sets.values())
    allowed = new_count + fenceposts(model.deployment).surge if new_count else 0
    if active > 1:
        assert total <= allowed
    model.floor, model.allowed_total = 0, 10**6
    model.settle()
    assert sum(replicas(one) for one in model.sets.values()) == new_count
