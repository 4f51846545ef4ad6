"""Where a release stands still, it says how it goes on, and that way works."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from scene import play
from stage import NS, deployment, other_node
from test_killed_midway import killed
from troupe import SPECS, ask_for, at_rest, at_work, engine, serving

from tidegate.kube.api import DEPLOYMENTS, Deletion
from tidegate.kube.errors import ApiError


async def vanished(stage, name="echo"):
    await stage.api.delete(DEPLOYMENTS, name, NS, Deletion(propagation="Foreground"))
    for _ in range(600):
        try:
            await stage.api.get(DEPLOYMENTS, name, NS)
        except ApiError:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it is still there")


@pytest.mark.parametrize("strategy", sorted(SPECS))
@pytest.mark.parametrize("seconds", [0, 1.5])
def test_a_deployment_that_is_gone_halts_and_resume_goes_on_once_it_is_back(strategy, seconds):
    async def story(stage):
        # Whose Deployment is deleted beneath it, a pod ends without a proof: agreed to here.
        spec = msgspec.structs.replace(SPECS[strategy], on_unverified="proceed")
        async with engine(stage, spec) as (made, book):
            if seconds:
                await made.run(seconds)
            await vanished(stage)
            status = await made.run(60)
            assert status.phase == "halted", status.reason
            assert "there is no deployment/echo" in status.reason
            assert "`tidegate release resume deploy/echo`" in status.reason
            await stage.api.create(DEPLOYMENTS, deployment())
            await stage.ready(3)
            if seconds:
                assert (await made.run(5)).phase == "halted", "nobody has asked it to go on yet"
            await ask_for(book, paused=False)
            await at_rest(made, book)
        assert await serving(stage) == {"v2"}

    play(story, limit=900)


@pytest.mark.parametrize("is_same_engine", [True, False])
def test_who_lets_pods_go_unverified_after_all_waits_for_no_drain_that_was_begun(is_same_engine):
    """A drain by label has cut a pod, and a node is silent: `ungated: proceed` is the way out, and is told."""

    async def story(stage):
        async with engine(stage, SPECS["rolling"]) as (made, book):
            running = asyncio.create_task(made.run(600))
            while not (held := [one for one in await stage.pods() if is_let_go(one)]):
                await asyncio.sleep(0.1)
            name = held[0]["metadata"]["name"]
            node = await other_node(stage, name)
            stage.fault("proxy-freeze", node, 10000)
            await asyncio.sleep(3)
            if is_same_engine:
                await ask_for(book, ungated="proceed")
                await stage.gone(name, 30)
                stage.fault("clear", node)
                status = await running
            else:
                made.leave = killed
                running.cancel()
        if not is_same_engine:
            await ask_for(book, ungated="proceed")
            async with at_work(stage, "echo", "engine-2") as made:
                running = asyncio.create_task(made.run(600))
                await stage.gone(name, 30)
                stage.fault("clear", node)
                status = await running
        assert status.phase == "done", status.reason
        assert f"pod/{name} ended ungated: it had no gate, so nobody waited" in status.unverified
        assert not [one for one in await stage.pods() if is_let_go(one)]

    play(story, deployment(gate=False), limit=1200)


def is_let_go(pod):
    return "deletionTimestamp" not in pod["metadata"] and not pod["metadata"].get("ownerReferences")
