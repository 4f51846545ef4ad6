"""Engines killed after any of their writes, where pods have no gate yet: nothing is lost, nothing is left over."""

from __future__ import annotations

import asyncio

import pytest
from scene import Mortal, play
from stage import NS, deployment
from troupe import SPECS, at_work, requests, serving

from tidegate.client.release.book import ConfigMapBook
from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.model.names import DRAINING_SERVICE
from tidegate.release.strategies import STRATEGIES

NAMES = sorted(STRATEGIES)


async def killed():
    """The end of a process that has none."""


async def mortals(stage, book, lives, phases=("done",)):
    """Engines that carry the release one after the other; ``lives`` says after how many writes each is killed."""
    for number, last in enumerate(lives):
        mortal = Mortal(stage.lab.lab.exchange, last)
        async with at_work(stage, "echo", f"engine-{number}", client=KubeClient(mortal, "lab")) as made:
            made.leave = killed  # a process that is killed gives no lease back
            running = asyncio.create_task(made.run(90))
            dying = asyncio.create_task(mortal.died.wait())
            await asyncio.wait((running, dying), return_when=asyncio.FIRST_COMPLETED)
            is_over = running.done()
            for task in (running, dying):
                task.cancel()
            await asyncio.gather(running, dying, return_exceptions=True)
        if is_over and (await book.read()).status.phase in phases:
            return number
    raise AssertionError(f"never done: {(await book.read()).status}")


async def left_over(stage):
    """What nobody looks after: pods without an owner, paused Deployments, Services of a release."""
    found = [f"pod/{one['metadata']['name']} has no owner" for one in await stage.pods()
             if not any(ref.get("controller") for ref in one["metadata"].get("ownerReferences") or ())]  # fmt: skip
    for obj in (await stage.api.list(DEPLOYMENTS, Selection(NS))).items:
        if obj["spec"].get("paused"):
            found.append(f"deployment/{obj['metadata']['name']} is paused")
    for obj in (await stage.api.list(SERVICES, Selection(NS))).items:
        if obj["metadata"]["name"] not in ("echo", DRAINING_SERVICE):  # which the next verb that drains takes away
            found.append(f"svc/{obj['metadata']['name']} is left")
    for obj in (await stage.api.list(REPLICASETS, Selection(NS))).items:
        if not obj["metadata"].get("ownerReferences"):
            found.append(f"replicaset/{obj['metadata']['name']} has no owner")
    return found


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("life", [2, 3])
def test_pods_without_a_gate_and_an_engine_killed_again_and_again(strategy, life):
    async def story(stage):
        async with requests(stage) as seen:
            book = ConfigMapBook(stage.client, NS, "echo")
            await book.begin(SPECS[strategy])
            await mortals(stage, book, [life + 2 * n for n in range(30)])
            await asyncio.sleep(3)
            assert await serving(stage) == {"v2"}
            assert await left_over(stage) == []
        assert seen.lost == []

    play(story, deployment(gate=False), limit=2000)
