"""DaemonSets: one pod a node, a new one where a pod was cut, updates within their limits."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tidegate import vtime
from tidegate.kube.api import EVENTS, NODES, PODS, SERVICES, Deletion, Patch
from tidegate.lab.controllers.kinds import DAEMONSETS, REVISIONS

from .controller_world import NAMESPACE, Cluster, image, service
from .transcript import Transcript
from .workloads import daemon, finish, labelled, rolled_out, status

TOLD = (DAEMONSETS, REVISIONS, PODS, EVENTS)
EVERYWHERE = {"node-1": 1, "node-2": 1, "node-3": 1}


async def spread(cluster, labels="app=web"):
    return Counter(one["spec"].get("nodeName") for one in await cluster.listed(PODS, labels))


async def on(cluster, node):
    return next(one["metadata"]["name"] for one in await cluster.pods() if one["spec"]["nodeName"] == node)


def test_a_cut_pod_is_replaced_on_its_node_and_a_restored_one_outlives_the_replacement(golden):
    async def story():
        async with Cluster() as cluster:
            transcript = Transcript(cluster, *TOLD)
            await asyncio.sleep(0.01)
            await cluster.create(SERVICES, service())
            await cluster.create(DAEMONSETS, daemon())
            await rolled_out(cluster, DAEMONSETS, 3)
            assert await spread(cluster) == EVERYWHERE
            cut = await on(cluster, "node-2")
            transcript.tell("label the pod on node-2 app=web-cut")
            await cluster.patch(PODS, cut, labelled("web-cut"))
            await asyncio.sleep(5)
            assert await spread(cluster) == EVERYWHERE
            assert cut not in {one["targetRef"]["name"] for one in await cluster.endpoints()}
            transcript.tell("label it app=web")
            await cluster.patch(PODS, cut, labelled("web"))
            await asyncio.sleep(5)
            assert await spread(cluster) == EVERYWHERE
            assert await on(cluster, "node-2") == cut
            return transcript.text()

    golden("controllers/daemonset-cut-and-restore.txt", vtime.run(story()))


@pytest.mark.parametrize(
    ("limits", "least", "most"),
    [
        ({"maxUnavailable": 1}, 2, 3),
        ({"maxUnavailable": "60%"}, 1, 3),
        ({"maxSurge": 1, "maxUnavailable": 0}, 3, 4),
    ],
    ids=["one at a time", "two at a time", "with surge"],
)
def test_an_update_keeps_within_its_limits(limits, least, most):
    async def story():
        async with Cluster() as cluster:
            strategy = {"type": "RollingUpdate", "rollingUpdate": limits}
            await cluster.create(DAEMONSETS, daemon(updateStrategy=strategy))
            await rolled_out(cluster, DAEMONSETS, 3)
            await cluster.patch(DAEMONSETS, "web", image("app:2"), "json")
            ready, staying = [], []

            async def is_done():
                pods = [one for one in await cluster.pods() if not one["metadata"].get("deletionTimestamp")]
                conditions = [one["status"].get("conditions") or () for one in pods]
                ready.append(
                    sum(any(c["type"] == "Ready" and c["status"] == "True" for c in one) for one in conditions)
                )
                staying.append(len(pods))
                images = {one["spec"]["containers"][0]["image"] for one in await cluster.pods()}
                return images == {"app:2"} and ready[-1] == staying[-1] == 3

            await cluster.until(is_done, 60)
            await rolled_out(cluster, DAEMONSETS, 3)
            assert {one["spec"]["containers"][0]["image"] for one in await cluster.pods()} == {"app:2"}
            return min(ready), max(staying)

    assert vtime.run(story()) == (least, most)


def test_nodes_come_and_go_and_taints_decide():
    async def story():
        async with Cluster() as cluster:
            template = daemon()["spec"]["template"]
            template["spec"]["nodeSelector"] = {"disk": "fast"}
            await cluster.create(DAEMONSETS, daemon(template=template))
            await asyncio.sleep(1)
            assert await spread(cluster) == {}
            for name in ("node-1", "node-2"):
                await cluster.api.patch(NODES, name, Patch({"metadata": {"labels": {"disk": "fast"}}}))
            await asyncio.sleep(2)
            assert await spread(cluster) == {"node-1": 1, "node-2": 1}
            await cluster.api.patch(NODES, "node-1", Patch({"spec": {"unschedulable": True}}))
            await cluster.api.delete(PODS, await on(cluster, "node-1"), NAMESPACE)
            await asyncio.sleep(2)
            assert await spread(cluster) == {"node-1": 1, "node-2": 1}  # daemons put up with a cordon
            taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
            await cluster.api.patch(NODES, "node-2", Patch({"spec": {"taints": [taint]}}))
            await cluster.api.delete(PODS, await on(cluster, "node-2"), NAMESPACE)
            await cluster.api.patch(NODES, "node-1", Patch({"metadata": {"labels": {"disk": None}}}))
            await asyncio.sleep(2)
            assert await spread(cluster) == {}
            return await status(cluster, DAEMONSETS)

    assert vtime.run(story())["desiredNumberScheduled"] == 0


def test_a_failed_pod_is_replaced_ever_more_slowly_and_said_aloud():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DAEMONSETS, daemon())
            await rolled_out(cluster, DAEMONSETS, 3)
            waits = []
            for _ in range(3):
                name = await on(cluster, "node-1")
                await finish(cluster, name, "Failed")
                waits.append(await cluster.until(lambda gone=name: is_gone(cluster, gone), 30))
                await rolled_out(cluster, DAEMONSETS, 3)
            said = [one for one in await cluster.listed(EVENTS) if one["reason"] == "FailedDaemonPod"]
            assert "on node node-1, will try to kill it" in said[0]["message"]
            return waits

    first, second, third = vtime.run(story())
    assert first < 0.1
    assert 0.1 < second < 1.1 < third < 2.1


async def is_gone(cluster, name):
    return name not in {one["metadata"]["name"] for one in await cluster.listed(PODS)}


def test_orphans_of_a_daemonset_are_adopted_by_its_successor_with_their_revision():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DAEMONSETS, daemon())
            await rolled_out(cluster, DAEMONSETS, 3)
            before = sorted(one["metadata"]["name"] for one in await cluster.listed(PODS))
            await cluster.api.delete(DAEMONSETS, "web", NAMESPACE, Deletion(propagation="Orphan"))
            await asyncio.sleep(2)
            assert all("ownerReferences" not in one["metadata"] for one in await cluster.listed(PODS))
            await cluster.create(DAEMONSETS, daemon())
            await rolled_out(cluster, DAEMONSETS, 3)
            assert len(await cluster.listed(REVISIONS)) == 1
            return before, sorted(one["metadata"]["name"] for one in await cluster.listed(PODS))

    before, after = vtime.run(story())
    assert before == after
