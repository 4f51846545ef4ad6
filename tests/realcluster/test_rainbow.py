"""Rainbow against kube-controller-manager: whom a shrinking Deployment deletes when pods have just been marked, and one
whole release."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import pytest
from tests.realcluster.fake_kubelet import fake_kubelet
from tests.realcluster.objects import service
from tests.realcluster.stories_controllers import web

from tidegate.client.options import Identity
from tidegate.client.release import asking
from tidegate.client.release.activity import Work
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.ground import Ground
from tidegate.client.release.run import Engine
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, PODS, SERVICES, Patch, Selection
from tidegate.kube.connect import open_api
from tidegate.release.scene import DELETION_COST
from tidegate.release.shrinking import BUSY_COST, IDLE_COST, MARK_SECONDS
from tidegate.release.spec import Rainbow, Spec

pytestmark = pytest.mark.realcluster
TRIALS = int(os.environ.get("TIDEGATE_MARK_TRIALS", "5"))


class Side:
    """A Deployment of pods that are Ready and nothing else."""

    def __init__(self, api, namespace):
        self.api, self.namespace = api, namespace
        self.book = ConfigMapBook(api, namespace, "web")

    async def pods(self, prefix="web-"):
        found = (await self.api.list(PODS, Selection(self.namespace))).items
        staying = [one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]]
        return sorted(name for name in staying if name.startswith(prefix))

    async def counts(self):
        found = (await self.api.list(DEPLOYMENTS, Selection(self.namespace))).items
        return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}

    async def scale(self, replicas):
        await self.api.patch(DEPLOYMENTS, "web", Patch({"spec": {"replicas": replicas}}), self.namespace)
        async with asyncio.timeout(30):
            while len(await self.ready()) != replicas or len(await self.pods()) != replicas:
                await asyncio.sleep(0.02)

    async def ready(self):
        found = (await self.api.list(PODS, Selection(self.namespace))).items
        return [one for one in found if any(c["type"] == "Ready" and c["status"] == "True" for c in _conditions(one))]

    async def mark(self, name, cost):
        body = {"metadata": {"annotations": {DELETION_COST: str(cost)}}}
        await self.api.patch(PODS, name, Patch(body), self.namespace)


def _conditions(obj):
    return (obj.get("status") or {}).get("conditions") or ()


@contextlib.asynccontextmanager
async def staged(plane, name, replicas):
    namespace = f"rainbow-{name}"
    async with open_api(kubeconfig=str(plane.kubeconfig)) as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        async with fake_kubelet(api, namespace):
            side = Side(api, namespace)
            await api.create(SERVICES, service("web"), namespace)
            await api.create(DEPLOYMENTS, web(replicas=replicas), namespace)
            async with asyncio.timeout(30):
                while len(await side.ready()) != replicas:
                    await asyncio.sleep(0.1)
            yield side


async def wrong_picks(side, seconds, trials):
    """How often another pod went than the one that had just been marked the cheapest."""
    rng, wrong = random.Random(0), 0
    for _ in range(trials):
        names = await side.pods()
        chosen = rng.choice(names)
        for name in names:
            await side.mark(name, IDLE_COST if name == chosen else BUSY_COST)
        await asyncio.sleep(seconds)
        await side.scale(len(names) - 1)
        wrong += chosen in await side.pods()
        await side.scale(len(names))
    return wrong


def test_a_pod_marked_two_seconds_before_is_the_one_that_goes(real_cluster):
    async def whole():
        async with staged(real_cluster, "marks", 6) as side:
            print("at once:", await wrong_picks(side, 0.0, TRIALS), "of", TRIALS)
            return await wrong_picks(side, MARK_SECONDS, TRIALS)

    assert asyncio.run(whole()) == 0


def test_the_busy_pod_of_a_revision_is_left_and_the_rest_go(real_cluster, monkeypatch, tmp_path):
    busy = set()

    async def counted(self, sight, pods, has_agents):
        return {one.uid: int(one.name in busy) for one in pods}

    monkeypatch.setattr(Work, "_counted", counted)
    # Nobody can be asked here; a node without a kubelet makes its pods unready after 50 s, and those go first.
    monkeypatch.setattr(asking, "SETTLE_SECONDS", 1.0)

    async def whole():
        async with staged(real_cluster, "whole", 4) as side:
            kept = (await side.pods())[2]
            busy.add(kept)
            spec = Spec("web", "rainbow", {"app": "app:2"}, rainbow=Rainbow("web", retire_seconds=1.0))
            await side.book.begin(spec)
            engine = Engine(
                side.book,
                Ground(side.api, Identity("tester@here", "engine-1"), Ledger(str(tmp_path / "ledger.jsonl")), seed=1),
            )
            running = asyncio.create_task(engine.run(180))
            async with asyncio.timeout(60):
                while (await side.counts())["web"] != 1:
                    await asyncio.sleep(0.2)
            await asyncio.sleep(3)
            left = [name for name in await side.pods() if not name.startswith("web-r2-")]
            busy.clear()
            status = await running
            return kept, left, status, await side.counts()

    kept, left, status, counts = asyncio.run(whole())
    assert left == [kept]
    assert status.phase == "done" and counts == {"web": 0, "web-r2": 4}, status.reason
