"""Anything may happen in any order: once it stops, the cluster is what the objects ask for.

Every storm is one seed: it draws the acts, perturbs the loop's schedule and names the pods. A failing seed is in
the test's name and repeats to the letter.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, NODES, PODS, REPLICASETS, SERVICES, Deletion, Patch
from tidegate.kube.errors import ApiError
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.run import run_controllers

from .controller_world import NAMESPACE, Cluster, Habits, deployment, image, service
from .test_replicasets import LateApi


class Storm:
    """Random acts on one Deployment, its pods, its Service and the nodes."""

    def __init__(self, cluster, rng):
        self.cluster, self.rng = cluster, rng

    async def act(self):
        acts = (self.scale, self.roll, self.pause, self.cut, self.restore, self.kill, self.cordon, self.swap_service)
        try:
            await self.rng.choice(acts)()
        except ApiError as error:
            assert error.code in (404, 409), error

    async def scale(self):
        await self.cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": self.rng.randint(0, 6)}})

    async def roll(self):
        await self.cluster.patch(DEPLOYMENTS, "web", image(f"app:{self.rng.randint(1, 4)}"), "json")

    async def pause(self):
        await self.cluster.patch(DEPLOYMENTS, "web", {"spec": {"paused": self.rng.random() < 0.5}})

    async def cut(self):
        await self._relabel("app=web", "cut")

    async def restore(self):
        await self._relabel("app=cut", "web")

    async def _relabel(self, of, to):
        pods = await self.cluster.pods(of)
        if pods:
            name = self.rng.choice(pods)["metadata"]["name"]
            await self.cluster.patch(PODS, name, {"metadata": {"labels": {"app": to}}})

    async def kill(self):
        pods = await self.cluster.pods()
        if pods:
            name = self.rng.choice(pods)["metadata"]["name"]
            grace = self.rng.choice([None, 0])
            await self.cluster.api.delete(PODS, name, NAMESPACE, Deletion(grace_seconds=grace))

    async def cordon(self):
        node = self.rng.choice(["node-1", "node-2"])
        await self.cluster.api.patch(NODES, node, Patch({"spec": {"unschedulable": self.rng.random() < 0.5}}))

    async def swap_service(self):
        await self.cluster.api.delete(SERVICES, "web", NAMESPACE)
        await self.cluster.create(SERVICES, service())


async def weather(cluster, seed):
    rng = random.Random(f"storm {seed}")
    await cluster.create(SERVICES, service())
    await cluster.create(DEPLOYMENTS, deployment(3))
    storm = Storm(cluster, rng)
    for _ in range(60):
        await storm.act()
        await asyncio.sleep(rng.choice([0, 0, 0.05, 0.4, 2]))
    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"paused": False}})
    try:
        await cluster.get(SERVICES, "web")
    except ApiError:
        await cluster.create(SERVICES, service())
    await asyncio.sleep(60)


async def is_as_asked(cluster):
    obj = await cluster.get(DEPLOYMENTS, "web")
    wanted, status = obj["spec"]["replicas"], obj["status"]
    assert status["observedGeneration"] == obj["metadata"]["generation"]
    fields = ("replicas", "updatedReplicas", "availableReplicas", "unavailableReplicas", "terminatingReplicas")
    assert [status.get(field, 0) for field in fields] == [wanted, wanted, wanted, 0, 0]
    assert sorted((await cluster.sizes()).values(), reverse=True)[:2] in ([wanted], [wanted, 0])
    pods = await cluster.pods()
    owners = {one["metadata"]["uid"] for one in await cluster.listed(REPLICASETS)}
    assert len(pods) == wanted
    assert {ref["uid"] for pod in pods for ref in pod["metadata"]["ownerReferences"]} <= owners
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} <= {
        obj["spec"]["template"]["spec"]["containers"][0]["image"]
    }
    listed = {one["targetRef"]["uid"]: one["conditions"] for one in await cluster.endpoints()}
    assert set(listed) == {pod["metadata"]["uid"] for pod in pods}
    assert all(one == {"ready": True, "serving": True, "terminating": False} for one in listed.values())
    for pod in await cluster.pods("app=cut"):
        assert not pod["metadata"].get("ownerReferences")


@pytest.mark.parametrize("seed", range(6))
def test_after_a_storm_the_cluster_is_what_was_asked_for(seed, caplog):
    async def story():
        async with Cluster(seed=seed, habits=Habits(start_seconds=0.5, stop_seconds=1.5)) as cluster:
            await weather(cluster, seed)
            await is_as_asked(cluster)

    vtime.run(story(), seed=seed)
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]


@pytest.mark.parametrize("seed", range(6, 9))
def test_after_a_storm_seen_late_the_cluster_is_what_was_asked_for(seed, caplog):
    async def story():
        async with Cluster(seed=seed, with_controllers=False) as cluster:
            late = LateApi(cluster.api, 0.03)
            cluster.start(run_controllers(late, LabConfig()))
            await asyncio.sleep(1)
            await weather(cluster, seed)
            await is_as_asked(cluster)

    vtime.run(story(), seed=seed)
    assert not [entry for entry in caplog.records if entry.levelname == "ERROR"]
