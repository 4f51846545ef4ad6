"""canary by an HTTPRoute's weights on a virtual lab, behind a gateway of the story's own: it hears late, and shows its
weights nowhere, so that its controller's word and a while are all that can be had."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from gateway_kinds import _ROUTE, HTTPROUTES, definition
from scene import NODES, Mortal, play
from stage import NS
from troupe import V2, V3, answered, ask_for, at_rest, at_work, doing, engine, resting

from tidegate.client.release.book import ConfigMapBook
from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, SERVICES, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.release.spec import Canary, CanaryStep, Spec

CONTROLLER = "example.net/gateway"
LATE_SECONDS = 1.0
ROUTE = {
    "apiVersion": HTTPROUTES.api_version,
    "kind": "HTTPRoute",
    "metadata": {"name": "echo", "namespace": NS},
    "spec": {"parentRefs": [{"name": "gate"}], "rules": [{"backendRefs": [{"name": "echo", "port": 8080}]}]},
}


class Gateway:
    """Takes an HTTPRoute in after a while, says so in its status, and divides requests by it."""

    def __init__(self, stage, seed=1):
        self.stage, self.rng = stage, random.Random(seed)
        self.weights, self.lost, self.versions, self.seen = {}, [], {}, []

    async def follow(self):
        while True:
            obj = await self.stage.client.get(HTTPROUTES, "echo", NS)
            generation = obj["metadata"]["generation"]
            said = ((obj.get("status") or {}).get("parents") or [{}])[0].get("conditions") or [{}]
            if said[0].get("observedGeneration") != generation:
                refs = obj["spec"]["rules"][0]["backendRefs"]
                conditions = [
                    {"type": kind, "status": "True", "observedGeneration": generation, "reason": "Ok"}
                    for kind in ("Accepted", "ResolvedRefs")
                ]
                parent = {"parentRef": {"name": "gate"}, "controllerName": CONTROLLER, "conditions": conditions}
                await asyncio.sleep(LATE_SECONDS)
                self.weights = {one["name"]: one.get("weight", 1) for one in refs}
                self.seen.append(dict(self.weights))
                await self.stage.client.patch(
                    HTTPROUTES, "echo", Patch({"status": {"parents": [parent]}}, subresource="status"), NS
                )
            await asyncio.sleep(0.1)

    async def client(self, node):
        while True:
            names = sorted(self.weights)
            try:
                service = self.rng.choices(names, [self.weights[one] for one in names])[0]
                version = await answered(self.stage, node, service)
                self.versions[version] = self.versions.get(version, 0) + 1
            except Exception as error:
                self.lost.append(repr(error))
            await asyncio.sleep(0.08)

    async def session(self, node, heard):
        """One client after a cookie's Service: as long as the route names it, at the weight 0 too (GEP-1619, Traffic
        Splitting: "even if the weight is set to 0"). ``heard`` gets (Service, version)."""
        service = ""
        while True:
            try:
                if service not in self.weights:
                    names = sorted(self.weights)
                    service = self.rng.choices(names, [self.weights[one] for one in names])[0]
                heard.append((service, await answered(self.stage, node, service)))
            except Exception as error:
                self.lost.append(repr(error))
            await asyncio.sleep(0.08)

    async def shares(self, seconds=10.0):
        self.versions.clear()
        await asyncio.sleep(seconds)
        total = sum(self.versions.values())
        return {version: round(100 * count / total) for version, count in self.versions.items()}


@contextlib.asynccontextmanager
async def gateway(stage):
    await stage.api.create(CUSTOMRESOURCEDEFINITIONS, definition(HTTPROUTES, schema=_ROUTE))
    await asyncio.sleep(0.5)
    await stage.client.create(HTTPROUTES, ROUTE)
    made = Gateway(stage)
    async with doing([made.follow()]):
        await asyncio.sleep(2 * LATE_SECONDS)
        async with doing(made.client(node) for node in sorted(NODES)):
            yield made


def spec(*steps, images=V2):
    made = tuple(CanaryStep(weight, pause) for weight, pause in steps)
    weights = Canary(service="echo", steps=made, router="httproute", route="echo")
    return Spec("echo", "canary", images=images, progress_seconds=60, canary=weights)


async def as_before(stage):
    """Nothing of the release is left on the route, nor beside the Service."""
    found = await stage.client.get(HTTPROUTES, "echo", NS)
    assert [(one["name"], one["weight"]) for one in found["spec"]["rules"][0]["backendRefs"]] == [("echo", 1)]
    assert not found["metadata"].get("annotations")
    assert [one["metadata"]["name"] for one in (await stage.api.list(SERVICES, Selection(NS))).items] == ["echo"]


def test_weights_step_by_step_and_what_cannot_be_asked_is_assumed_after_a_while():
    async def story(stage):
        async with gateway(stage) as gate, engine(stage, spec((20, None), (60, None))) as (made, book):
            status = await resting(made, book, "paused")
            said = next(one for key, one in status.asked.items() if key.startswith("weighed-20"))
            assert (said.verdict, said.seconds) == ("assumed", 15.0)
            assert said.assumed == (f"{CONTROLLER}: its data plane cannot be asked for weights",)
            assert abs((await gate.shares())["v2"] - 20) <= 5
            await ask_for(book, promoted=1)
            await resting(made, book, "paused")
            assert abs((await gate.shares())["v2"] - 60) <= 5
            await ask_for(book, promoted=2)
            await at_rest(made, book)
            assert await gate.shares(3.0) == {"v2": 100}
            assert gate.lost == []
            await as_before(stage)
            return gate.seen

    seen = play(story, limit=2000)
    assert [one.get("echo-canary") for one in seen] == [None, 20, 60, 100, None]


@contextlib.asynccontextmanager
async def sessions(gate, count=24):
    """Clients that a cookie keeps; what each heard, newest last."""
    heard = [[] for _ in range(count)]
    nodes = sorted(NODES)
    tasks = [asyncio.create_task(gate.session(nodes[number % 3], one)) for number, one in enumerate(heard)]
    try:
        yield heard
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("end", ["done", "aborted"])
def test_sessions_outlive_changes_of_weights_and_are_let_go_before_their_pods_are(end):
    """A gateway keeps persistent sessions where they are whatever the weights say (peers S40): 0 % is not nobody."""

    async def story(stage):
        async with gateway(stage) as gate, engine(stage, spec((50, None), (80, None))) as (made, book):
            await resting(made, book, "paused")
            async with sessions(gate) as heard:
                await asyncio.sleep(3.0)
                at_first = [one[-1] for one in heard]
                assert {version for _, version in at_first} == {"v1", "v2"}
                await ask_for(book, promoted=1)
                await resting(made, book, "paused")
                await asyncio.sleep(3.0)
                assert [one[-1] for one in heard] == at_first
                await ask_for(book, **({"promoted": 2} if end == "done" else {"wish": "abort"}))
                await at_rest(made, book, (end,))
                await asyncio.sleep(3.0)
                assert {one[-1] for one in heard} == {("echo", "v2" if end == "done" else "v1")}
            assert gate.lost == []

    play(story, limit=2000)


def test_an_abort_and_a_third_revision_take_the_weights_back_before_a_pod_goes():
    async def story(stage):
        async with gateway(stage) as gate, engine(stage, spec((50, None))) as (made, book):
            await resting(made, book, "paused")
            await ask_for(book, images=V3)
            await resting(made, book, "paused")
            assert set(await gate.shares(5.0)) == {"v1", "v3"}
            await ask_for(book, wish="abort")
            await resting(made, book, "aborted")
            assert await gate.shares(3.0) == {"v1": 100}
            assert gate.lost == []
            # The last endpoint of a Service could not be drained verified: theirs had another by then.
            assert {stage.result(name)["result"] for name in made.endings.of_round} == {"verified"}
            await as_before(stage)

    play(story, limit=2000)


def test_somebody_else_s_weights_are_not_fought():
    async def story(stage):
        async with gateway(stage) as gate, engine(stage, spec((50, None))) as (made, book):
            await resting(made, book, "paused")
            found = await stage.client.get(HTTPROUTES, "echo", NS)
            refs = found["spec"]["rules"][0]["backendRefs"]
            refs = [{**refs[0], "weight": 90}, {**refs[1], "weight": 10}]
            await stage.client.patch(
                HTTPROUTES,
                "echo",
                Patch([{"op": "replace", "path": "/spec/rules/0/backendRefs", "value": refs}], "json"),
                NS,
            )
            await made.run(5)
            status = (await book.read()).status
            assert status.phase == "paused" and "httproute/echo gives r2 10 %" in status.reason, status.reason
            await asyncio.sleep(5 * LATE_SECONDS)
            assert gate.seen[-1] == {"echo": 90, "echo-canary": 10}
            await ask_for(book)
            await resting(made, book, "paused")
            assert gate.seen[-1] == {"echo": 50, "echo-canary": 50} and gate.lost == []

    play(story, limit=2000)


def test_a_route_that_is_not_there_or_leads_elsewhere_leaves_everything_as_it_is():
    async def story(stage):
        async with gateway(stage) as gate, engine(stage, spec((50, None))) as (made, book):
            other = [{"name": "other", "port": 8080, "weight": 1}]
            change = Patch([{"op": "replace", "path": "/spec/rules/0/backendRefs", "value": other}], "json")
            await stage.client.patch(HTTPROUTES, "echo", change, NS)
            gate.weights = {"echo": 1}
            await made.run(10)
            status = (await book.read()).status
            assert "$.spec.canary.route: httproute/echo does not lead to svc/echo" in status.reason
            await stage.client.delete(HTTPROUTES, "echo", NS)
            await made.run(5)
            status = (await book.read()).status
            assert "there is no HTTPRoute echo in namespace demo" in status.reason
            assert len(await stage.pods()) == 3
            assert [one["metadata"]["name"] for one in (await stage.api.list(SERVICES, Selection(NS))).items] == [
                "echo"
            ]

    play(story, limit=600)


def test_engines_that_are_killed_again_and_again_bring_it_to_its_end():
    async def story(stage):
        async with gateway(stage) as gate:
            async with engine(stage, spec((50, 1.0))) as (made, book):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(6):
                        await made.run()
            for number, seconds in enumerate((3.0, 9.0, 17.0, 5.0, 21.0, 8.0, 13.0), 2):
                async with at_work(stage, "echo", f"engine-{number}", number) as made:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            await made.run()
            async with at_work(stage, "echo", "engine-last", 99) as made:
                await at_rest(made, book)
            assert await gate.shares(3.0) == {"v2": 100}
            assert gate.lost == []
            await as_before(stage)

    play(story, limit=2000)


@pytest.mark.parametrize("last", (6, 13, 20))
def test_an_engine_that_is_killed_after_any_of_its_writes_is_followed_by_one_that_goes_on(last):
    async def story(stage):
        async with gateway(stage) as gate:
            book = ConfigMapBook(stage.client, NS, "echo")
            await book.begin(spec((50, 1.0)))
            mortal = Mortal(stage.lab.lab.exchange, last)
            async with at_work(stage, "echo", client=KubeClient(mortal, "lab")) as made:
                running = asyncio.create_task(made.run(200))
                dying = asyncio.create_task(mortal.died.wait())
                await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
                dying.cancel()
                running.cancel()
                mortal.died.set()
                with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                    async with asyncio.timeout(1):
                        await running
            async with at_work(stage, "echo", "engine-2", 2) as other:
                await at_rest(other, book)
            assert await gate.shares(3.0) == {"v2": 100}
            assert gate.lost == [], mortal.writes[-1]
            await as_before(stage)

    play(story, limit=2000)
