"""StatefulSets, DaemonSets and Jobs whose controllers see everything late, or two of which see it together."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import PODS
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.kinds import DAEMONSETS, JOBS, STATEFULSETS
from tidegate.lab.controllers.run import run_controllers

from .controller_world import Cluster, image
from .test_replicasets import LateApi
from .transcript import Transcript
from .workloads import daemon, finish, job, labelled, rolled_out, stateful, status


async def most_active(cluster, seconds):
    most = 0
    for _ in range(int(seconds / 0.1)):
        await asyncio.sleep(0.1)
        pods = await cluster.listed(PODS)
        most = max(most, sum(not one["metadata"].get("deletionTimestamp") for one in pods))
    return most


@pytest.mark.parametrize(
    ("resource", "made"),
    [
        (STATEFULSETS, stateful(3, podManagementPolicy="Parallel")),
        (DAEMONSETS, daemon()),
        (JOBS, job("web", completions=5, parallelism=3)),
    ],
    ids=["StatefulSet", "DaemonSet", "Job"],
)
def test_a_stale_copy_never_makes_a_pod_too_many(resource, made):
    async def story():
        async with Cluster(with_controllers=False) as cluster:
            cluster.start(run_controllers(LateApi(cluster.api, 0.7), LabConfig()))
            await asyncio.sleep(30)
            await cluster.create(resource, made)
            return await most_active(cluster, 30)

    assert vtime.run(story()) == 3


def test_a_pod_that_ends_while_the_copy_is_stale_is_counted_once():
    async def story():
        async with Cluster(with_controllers=False) as cluster:
            cluster.start(run_controllers(LateApi(cluster.api, 0.7), LabConfig()))
            await asyncio.sleep(30)
            await cluster.create(JOBS, job(completions=4, parallelism=2))
            for _ in range(40):
                await asyncio.sleep(1.5)
                for one in await cluster.listed(PODS):
                    if one["status"]["phase"] == "Running":
                        await finish(cluster, one["metadata"]["name"])
            found = await status(cluster, JOBS, "work")
            return found["succeeded"], len(await cluster.listed(PODS)), found["conditions"][-1]["type"]

    assert vtime.run(story()) == (4, 4, "Complete")


def test_one_seed_tells_one_story():
    async def story():
        async with Cluster(seed=7) as cluster:
            transcript = Transcript(cluster, STATEFULSETS, DAEMONSETS, JOBS, PODS)
            await asyncio.sleep(0.01)
            await cluster.create(STATEFULSETS, stateful(2))
            template = {**daemon()["spec"]["template"], "metadata": {"labels": {"app": "every"}}}
            spec = {**daemon()["spec"], "selector": {"matchLabels": {"app": "every"}}, "template": template}
            await cluster.create(DAEMONSETS, {**daemon(), "metadata": {"name": "every"}, "spec": spec})
            await cluster.create(JOBS, job(completions=3, parallelism=2))
            await rolled_out(cluster, STATEFULSETS, 2)
            await cluster.patch(DAEMONSETS, "every", image("app:2"), "json")
            await cluster.patch(PODS, "web-0", labelled("cut"))
            await asyncio.sleep(20)
            names = " ".join(sorted(one["metadata"]["name"] for one in await cluster.listed(PODS)))
            return transcript.text() + names

    assert vtime.run(story()) == vtime.run(story())
