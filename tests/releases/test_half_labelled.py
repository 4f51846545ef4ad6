"""An engine is killed while labels are put in place: whatever is asked for then, that is brought to its end first."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from scene import play
from stage import NS, deployment
from test_canary_weights import gateway
from troupe import SPECS, V2, ask_for, at_rest, at_work, requests, serving

from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.labels import free_labellings
from tidegate.client.uninstall import carry_out_uninstall, plan_uninstall
from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.model.names import PREPARED
from tidegate.release.spec import Canary, CanaryStep, Spec

WEIGHED = Spec(
    "echo",
    "canary",
    images=V2,
    progress_seconds=60,
    canary=Canary(service="echo", steps=(CanaryStep(50, 1.0), CanaryStep(100, 1.0)), router="httproute", route="echo"),
)
STRATEGIES = {"bluegreen": SPECS["bluegreen"], "canary": WEIGHED, "rainbow": SPECS["rainbow"]}
WRITES = range(1, 9)
"""Pause, the ReplicaSet's template, three pods, the Deployment's template, resume, the ReplicaSet's annotation."""


class Counted:
    """The way to the API of a process that is killed after its ``last`` write on the way to a label."""

    def __init__(self, exchange, last):
        self.exchange, self.left, self.died = exchange, last, asyncio.Event()

    async def __call__(self, request):
        if self.died.is_set():
            await asyncio.get_running_loop().create_future()
        answer = await self.exchange(request)
        if request.method == "PATCH" and request.path.split("/")[-2] in ("deployments", "replicasets", "pods"):
            self.left -= 1
            if not self.left:
                self.died.set()
                await asyncio.get_running_loop().create_future()
        return answer


async def killed(stage, spec, writes):
    """A release written down whose engine is killed then; no lease is given back."""
    book = ConfigMapBook(stage.client, NS, "echo")
    await book.begin(spec)
    counted = Counted(stage.lab.lab.exchange, writes)
    async with at_work(stage, "echo", "killed", client=KubeClient(counted, "lab")) as made:

        async def nothing():
            pass

        made.leave = nothing
        running = asyncio.create_task(made.run(90))
        async with asyncio.timeout(60):
            await counted.died.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return book


async def held(stage):
    """What stands in the way of whoever comes next."""
    found = await stage.api.get(DEPLOYMENTS, "echo", NS)
    own = (await stage.api.list(REPLICASETS, Selection(NS))).items
    marked = [one["kind"] for one in (found, *own) if PREPARED in (one["metadata"].get("annotations") or {})]
    return [*marked, *(["paused"] if found["spec"].get("paused") else [])]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("writes", WRITES)
def test_an_abort_leaves_nothing_half_labelled_and_the_next_strategy_goes_through(strategy, writes):
    async def story(stage):
        async with gateway(stage), requests(stage, pause=0.1) as seen:
            before = sorted(one["metadata"]["name"] for one in await stage.pods())
            book = await killed(stage, STRATEGIES[strategy], writes)
            await ask_for(book, wish="abort")
            async with at_work(stage, "echo", "second") as made:
                await at_rest(made, book, ("aborted",))
                assert await held(stage) == []
                await asyncio.sleep(10)
                assert sorted(one["metadata"]["name"] for one in await stage.pods()) == before, "no rollout"
                entry = await book.read()
                await book.ask(entry, msgspec.structs.replace(SPECS["rolling"], images=V2))
                await at_rest(made, book)
            assert await serving(stage) == {"v2"}
            assert await held(stage) == []
        assert seen.lost == []

    play(story, deployment(gate=False), limit=400)


@pytest.mark.parametrize("writes", WRITES)
def test_another_strategy_is_asked_for_midway(writes):
    async def story(stage):
        async with requests(stage, pause=0.1) as seen:
            book = await killed(stage, SPECS["bluegreen"], writes)
            entry = await book.read()
            await book.ask(entry, SPECS["rolling"])
            async with at_work(stage, "echo", "second") as made:
                await at_rest(made, book)
            assert await serving(stage) == {"v2"}
            assert await held(stage) == []
            assert all(ref for one in await stage.pods() if (ref := one["metadata"].get("ownerReferences")))
        assert seen.lost == []

    play(story, deployment(gate=False), limit=400)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("writes", WRITES)
def test_tidegate_is_taken_away_midway_and_no_rollout_begins(strategy, writes):
    async def story(stage):
        before = sorted(one["metadata"]["name"] for one in await stage.pods())
        async with gateway(stage):
            await killed(stage, STRATEGIES[strategy], writes)
            told = []
            plan = await plan_uninstall(stage.client, [], is_forced=True)
            await carry_out_uninstall(stage.client, plan, None, 60, told.append)
            assert await held(stage) == []
            assert any("has its label" in one for one in told) == (writes < WRITES[-1]), told
            assert await free_labellings(stage.client) == {}
        await asyncio.sleep(20)
        assert sorted(one["metadata"]["name"] for one in await stage.pods()) == before
        assert len((await stage.api.list(REPLICASETS, Selection(NS))).items) == 1, "another would be a rollout"

    play(story, deployment(gate=False), limit=600)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_deployment_that_its_user_paused_is_not_resumed_for_a_label(strategy):
    async def story(stage):
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"paused": True}}), NS)
        await asyncio.sleep(1)
        async with gateway(stage):
            book = ConfigMapBook(stage.client, NS, "echo")
            await book.begin(STRATEGIES[strategy])
            async with at_work(stage, "echo") as made:
                await made.run(10)
                assert "kubectl rollout resume deploy/echo" in (await book.read()).status.reason
                assert await held(stage) == ["paused"]
                await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"paused": None}}), NS)
                await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    play(story, deployment(gate=False), limit=400)
