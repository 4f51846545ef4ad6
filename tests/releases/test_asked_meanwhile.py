"""Pods that leave while it is asked about them: the question is put anew about those that are there."""

from __future__ import annotations

import asyncio

import pytest
from scene import play
from troupe import SPECS, at_rest, engine


async def of_image(stage, tag):
    """Names of the pods of one version."""
    pods = [pod for pod in await stage.pods() if pod["spec"]["containers"][0]["image"].endswith(tag)]
    return sorted(pod["metadata"]["name"] for pod in pods)


async def asked(stage, book, kind):
    """Until somebody has not said yes to a question of that kind."""
    for _ in range(600):
        found = (await book.read()).status.asked
        if any(key.startswith(f"{kind}/") and one.verdict == "no" for key, one in found.items()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody asked whether anything is {kind}")


@pytest.mark.parametrize("strategy", ["bluegreen", "canary", "rainbow"])
def test_a_new_pod_that_leaves_while_it_is_asked_whether_it_is_routed_holds_up_nothing(strategy):
    async def story(stage):
        stage.fault("proxy-freeze", "node-2", 20)
        async with engine(stage, SPECS[strategy]) as (made, book):
            running = asyncio.create_task(at_rest(made, book, within=200))
            await asked(stage, book, "routed")
            await stage.delete((await of_image(stage, "v2"))[0])
            assert (await running).unverified == ()

    play(story, limit=900)
