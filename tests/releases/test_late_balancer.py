"""Releases behind a load balancer that checks a new target for 40 s before it sends to it: what AWS's own pod readiness
gate exists for. Old pods are let go of when it sends to the new ones, and not when nodes do."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
import yaml
from stage import NS, deployment, is_ready, play
from tests.observers.fake_clouds import ARN, AWS, FakeAws, credentials
from troupe import SPECS, at_rest, engine

from tidegate import vtime
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import plan_release
from tidegate.kube import wire
from tidegate.kube.api import ENDPOINTSLICES, PODS, Patch, Selection
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Request

LATE_SECONDS = 40.0
READY_FOR = "target-health.elbv2.k8s.aws/web"
OBSERVER = {
    "name": "aws",
    "kind": "aws-target-group",
    "settleSeconds": 5.0,
    "options": {"targetGroups": {ARN: f"{NS}/echo"}},
}


class Balancer:
    """The load balancer and its controller: it sends to healthy targets, in turn, and answers 503 where none is."""

    def __init__(self, stage, fake):
        self.stage, self.fake, self.lost, self.sent = stage, fake, [], 0

    async def control(self):
        """Ready endpoints are targets, and pods that wait for being one; those are told once they are healthy."""
        while True:
            select = Selection(NS, labels="kubernetes.io/service-name=echo")
            slices = (await self.stage.api.list(ENDPOINTSLICES, select)).items
            endpoints = [one for obj in slices for one in obj.get("endpoints") or () if one["conditions"]["ready"]]
            waiting = [pod for pod in await self.stage.pods() if pod["spec"].get("readinessGates")]
            wanted = [one["addresses"][0] for one in endpoints]
            wanted += [pod["status"]["podIP"] for pod in waiting if pod["status"].get("podIP")]
            self.fake.register(*wanted)
            self.fake.deregister(*[address for address, _ in self.fake.targets if address not in wanted])
            for pod in waiting:
                if (pod["status"].get("podIP"), 8080) in self.healthy():
                    told = {"status": {"conditions": [{"type": READY_FOR, "status": "True"}]}}
                    await self.stage.api.patch(PODS, pod["metadata"]["name"], Patch(told, "strategic", "status"), NS)
            await asyncio.sleep(1.0)

    def healthy(self):
        return [(address, port) for address, port, state, _ in self.fake.health() if state == "healthy"]

    async def send(self):
        while True:
            self.sent += 1
            targets = self.healthy()
            try:
                if not targets:
                    raise KubeError("503: no healthy target")
                address, port = targets[self.sent % len(targets)]
                await wire.fetch(wire.Peer(address, port, "127.16.0.12", 5.0), Request("GET", "/"))
            except KubeError as error:
                self.lost.append((self.stage.now, str(error)))
            await asyncio.sleep(0.25)


@contextlib.asynccontextmanager
async def balanced(stage):
    fake = FakeAws("HTTP")
    fake.initial_seconds = LATE_SECONDS
    vtime.hosted()[AWS] = fake.exchange
    made = Balancer(stage, fake)
    running = [asyncio.ensure_future(made.control())]
    await asyncio.sleep(LATE_SECONDS + 2.0)
    running.append(asyncio.ensure_future(made.send()))
    try:
        yield made
    finally:
        for one in running:
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await one


def observed(tmp_path, monkeypatch, observer):
    """Options of a lab whose coordinator asks ``observer``."""
    credentials(monkeypatch)
    if observer is None:
        return {}
    file = tmp_path / "observers.yaml"
    file.write_text(yaml.safe_dump({"observers": [observer]}))
    return {"addon_options": (("observers", str(file)),)}


def released(tmp_path, monkeypatch, spec, observer=OBSERVER):
    """(requests lost by the load balancer, seconds from the first new pod's readiness to the first old one's end, the
    status at the end, what it waited for)."""
    options = observed(tmp_path, monkeypatch, observer)

    async def story(stage):
        async with balanced(stage) as seen:
            old = {pod["metadata"]["name"] for pod in await stage.pods()}
            moments, told = {}, []

            async def watch():
                while True:
                    pods = (await stage.api.list(PODS, Selection(NS))).items
                    for pod in pods:
                        name = pod["metadata"]["name"]
                        if name not in old and is_ready(pod):
                            moments.setdefault("ready", stage.now)
                        if name in old and "deletionTimestamp" in pod["metadata"]:
                            moments.setdefault("left", stage.now)
                    await asyncio.sleep(0.1)

            watching = asyncio.ensure_future(watch())
            asked = msgspec.structs.replace(spec, progress_seconds=300)
            async with engine(stage, asked) as (made, book):
                made.heard = lambda turn: told.append(turn.decision.status.reason)
                status = await at_rest(made, book, within=500.0)
            await asyncio.sleep(LATE_SECONDS)
            watching.cancel()
            assert seen.sent > 20
            return seen.lost, moments.get("left", stage.now) - moments["ready"], status, told

    return play(story, deployment(grace=300), limit=1500, **options)


TOGETHER = msgspec.structs.replace(
    SPECS["bluegreen"], bluegreen=msgspec.structs.replace(SPECS["bluegreen"].bluegreen, together=True)
)


def question(status, kind="routed"):
    return next(one for key, one in status.asked.items() if key.startswith(f"{kind}/"))


@pytest.mark.parametrize("spec", [SPECS["canary"], TOGETHER], ids=["canary", "bluegreen --together"])
def test_old_pods_serve_until_the_load_balancer_sends_to_the_new_ones(tmp_path, monkeypatch, spec):
    lost, seconds, status, told = released(tmp_path, monkeypatch, spec)
    assert (status.phase, lost) == ("done", []) and seconds >= LATE_SECONDS
    assert question(status).verdict == "yes"
    assert any("aws/web: does not list pod/echo-r2-" in text for text in told), "status names it"
    assert any("initial" in text for text in told), "and says why"


@pytest.mark.parametrize("spec", [SPECS["canary"], TOGETHER], ids=["canary", "bluegreen --together"])
def test_they_would_not_if_nobody_asked_it(tmp_path, monkeypatch, spec):
    lost, _, status, _ = released(tmp_path, monkeypatch, spec, observer=None)
    assert status.phase == "done" and len(lost) > 100


@pytest.mark.parametrize("strategy", ["bluegreen", "rainbow"])
def test_behind_a_flip_at_once_old_pods_stay_for_the_way_back_until_it_sends_to_the_new_ones(
    tmp_path, monkeypatch, strategy
):
    """The Service drops the old ones in the same write: what keeps traffic is ``--together``, or a readiness gate."""
    _, seconds, status, _ = released(tmp_path, monkeypatch, SPECS[strategy])
    assert status.phase == "done" and seconds >= LATE_SECONDS
    assert question(status).seconds >= LATE_SECONDS, "and until then it is not said to be done"


def test_an_advisory_load_balancer_is_not_waited_for_and_named(tmp_path, monkeypatch):
    observer = {**OBSERVER, "policy": "advisory"}
    _, seconds, status, _ = released(tmp_path, monkeypatch, SPECS["canary"], observer)
    assert status.phase == "done" and seconds < LATE_SECONDS
    assert question(status).verdict == "assumed" and "aws/web: advisory, not waited for" in question(status).assumed[0]


def with_readiness_gate():
    template = deployment(grace=300)["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "tidegate/echo:v2"
    template["spec"]["readinessGates"] = [{"conditionType": READY_FOR}]
    return msgspec.structs.replace(SPECS["rolling"], images={}, template=template)


@pytest.mark.parametrize(("spec", "is_lossless"), [(SPECS["rolling"], False), (with_readiness_gate(), True)])
def test_rolling_goes_by_readiness_so_there_the_pods_own_readiness_gate_is_what_waits(
    tmp_path, monkeypatch, spec, is_lossless
):
    """The Deployment controller deletes old pods, and deletion takes them away from the load balancer: to hold their
    processes any longer would bring no request back to them."""
    lost, _, status, _ = released(tmp_path, monkeypatch, spec)
    assert status.phase == "done" and (not lost) is is_lossless


@pytest.mark.parametrize(
    ("spec", "way_out"),
    [
        (SPECS["rolling"], "readiness gate"), (SPECS["bluegreen"], "--together"),
        (SPECS["rainbow"], "canary by the ratio"),
        (SPECS["canary"], ""), (TOGETHER, ""), (with_readiness_gate(), ""),
    ],
    ids=["rolling", "bluegreen", "rainbow", "canary", "together", "readiness gate"],
)  # fmt: skip
def test_the_plan_says_where_a_strategy_does_not_wait_for_it(tmp_path, monkeypatch, spec, way_out):
    async def story(stage):
        vtime.hosted()[AWS] = FakeAws("HTTP").exchange
        plan = await plan_release(stage.client, ConfigMapBook(stage.client, NS, "echo"), NS, spec)
        assert not plan.refusals
        return [note for note in plan.notes if note.startswith("aws/web may send to new pods of svc/echo late: ")]

    found = play(story, deployment(grace=300), limit=300, **observed(tmp_path, monkeypatch, OBSERVER))
    assert (len(found) == 1 and way_out in found[0]) if way_out else not found
