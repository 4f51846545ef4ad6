"""ReplicaSets: adoption and release, whom they delete, and that they never make a pod too many."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tidegate import vtime
from tidegate.kube.api import CONFIGMAPS, DEPLOYMENTS, EVENTS, PODS, REPLICASETS, SERVICES, Patch
from tidegate.kube.errors import ApiError
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.ranking import victims
from tidegate.lab.controllers.run import run_controllers
from tidegate.lab.instants import stamp

from .controller_world import NAMESPACE, Cluster, Habits, deployment, service
from .transcript import Transcript

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
COST = "controller.kubernetes.io/pod-deletion-cost"


def pod(name, **facts):
    """A pod as the ranking sees it: running and ready for an hour on node-1 unless said otherwise."""
    ready_for = facts.get("ready_for", 3600)
    conditions = []
    if ready_for is not None:
        since = stamp(NOW - timedelta(seconds=ready_for))
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    meta = {"name": name, "uid": facts.get("uid", name), "namespace": NAMESPACE}
    meta["creationTimestamp"] = stamp(NOW - timedelta(seconds=facts.get("age", 7200)))
    if "cost" in facts:
        meta["annotations"] = {COST: facts["cost"]}
    statuses = [{"restartCount": facts.get("restarts", 0)}]
    status = {"phase": facts.get("phase", "Running"), "conditions": conditions, "containerStatuses": statuses}
    node = facts.get("node", "node-1")
    return {"metadata": meta, "spec": {"nodeName": node} if node else {}, "status": status}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (pod("z", node=""), pod("a", cost="-5")),
        (pod("z", phase="Pending", ready_for=None), pod("a", ready_for=None)),
        (pod("z", ready_for=None, cost="100"), pod("a", cost="-100")),
        (pod("z", cost="-1"), pod("a", node="node-2", ready_for=1)),
        (pod("z", ready_for=60), pod("a", ready_for=86400)),
        (pod("z", restarts=3), pod("a")),
        (pod("z", age=60), pod("a", age=86400)),
    ],
    ids=["unassigned", "pending", "unready", "cost", "younger ready", "restarts", "younger"],
)
def test_of_two_pods_the_one_that_serves_less_goes_first(first, then):
    # Neither list order nor the order of names and uids decides.
    assert victims([then, first], [], 1, NOW) == [first]
    assert victims([first, then], [], 1, NOW) == [first]


def test_pods_on_the_most_crowded_node_go_before_older_ones_elsewhere():
    alone, crowded = pod("alone", node="node-2", ready_for=10), pod("crowded")
    assert victims([alone, crowded], [crowded, pod("sibling"), alone], 1, NOW) == [crowded]


def test_within_one_bucket_of_readiness_the_uid_decides_as_on_a_real_cluster():
    older, younger = pod("older", uid="1", ready_for=3000), pod("younger", uid="2", ready_for=2900)
    assert victims([younger, older], [], 1, NOW) == [older]


def test_a_malformed_cost_counts_as_none():
    odd, cheap = pod("odd", cost="+5"), pod("cheap", cost="-1")
    assert victims([odd, cheap], [], 1, NOW) == [cheap]
    huge, plain = pod("huge", cost="99999999999", ready_for=86400), pod("plain")
    assert victims([huge, plain], [], 1, NOW) == [plain]


async def begun(cluster, replicas=3):
    await cluster.create(SERVICES, service())
    await cluster.create(DEPLOYMENTS, deployment(replicas))
    await cluster.rolled_out()


def test_a_label_cut_releases_the_pod_and_replaces_it_and_a_restore_ends_the_cheaper_one(golden):
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 2)
            await asyncio.sleep(5)
            transcript = Transcript(cluster)
            await asyncio.sleep(0.01)
            name = next(one for one in await cluster.pods() if one["spec"]["nodeName"] == "node-1")["metadata"]["name"]
            transcript.tell("label the pod on node-1 app=web-cut")
            await cluster.patch(PODS, name, {"metadata": {"labels": {"app": "web-cut"}}})
            await asyncio.sleep(5)
            assert len(await cluster.pods()) == 2
            assert "ownerReferences" not in (await cluster.get(PODS, name))["metadata"]
            assert name not in {one["targetRef"]["name"] for one in await cluster.endpoints()}
            transcript.tell("annotate it with a high deletion cost; label it app=web")
            await cluster.patch(PODS, name, {"metadata": {"annotations": {COST: "1000"}}})
            await cluster.patch(PODS, name, {"metadata": {"labels": {"app": "web"}}})
            await asyncio.sleep(5)
            left = {one["metadata"]["name"] for one in await cluster.pods()}
            assert name in left
            assert len(left) == 2
            return transcript.text()

    golden("controllers/label-cut-and-restore.txt", vtime.run(story()))


def test_a_pod_of_another_controller_is_never_adopted():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 1)
            holder = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "holder"}}
            uid = (await cluster.create(CONFIGMAPS, holder))["metadata"]["uid"]
            foreign = {"apiVersion": "v1", "kind": "ConfigMap", "name": "holder", "uid": uid, "controller": True}
            labels = (await cluster.pods())[0]["metadata"]["labels"]
            meta = {"name": "stray", "labels": labels, "ownerReferences": [foreign]}
            spec = {"containers": [{"name": "c", "image": "app:1"}]}
            await cluster.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
            await asyncio.sleep(5)
            assert (await cluster.get(PODS, "stray"))["metadata"]["ownerReferences"] == [foreign]
            assert len(await cluster.pods()) == 2

    vtime.run(story())


class LateApi:
    """Another client's view of the API: every watch event arrives ``seconds`` late."""

    def __init__(self, api, seconds):
        self._api, self._seconds = api, seconds

    def __getattr__(self, name):
        return getattr(self._api, name)

    async def watch(self, *args, **kwargs):
        async for event in self._api.watch(*args, **kwargs):
            await asyncio.sleep(self._seconds)
            yield event


def test_a_stale_copy_never_makes_a_pod_too_many():
    async def story():
        async with Cluster(with_controllers=False) as cluster:
            late = LateApi(cluster.api, 0.7)
            cluster.start(run_controllers(late, LabConfig()))
            await asyncio.sleep(30)
            await cluster.create(DEPLOYMENTS, deployment(3))
            most = 0
            for _ in range(200):
                await asyncio.sleep(0.1)
                most = max(most, len(await cluster.pods()))
            assert most == 3
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}})
            await asyncio.sleep(30)
            assert len(await cluster.pods()) == 1

    vtime.run(story())


class RefusingApi:
    """Refuses to create pods, as a quota does."""

    def __init__(self, api):
        self._api, self.refusing, self.refused = api, True, 0

    def __getattr__(self, name):
        return getattr(self._api, name)

    async def create(self, resource, obj, namespace="", subresource=""):
        if self.refusing and resource is PODS and not subresource:
            self.refused += 1
            raise ApiError(403, "Forbidden", 'pods "web-" is forbidden: exceeded quota')
        return await self._api.create(resource, obj, namespace, subresource)


def test_a_refused_pod_is_asked_for_once_at_a_time_and_said_aloud_until_it_is_allowed():
    async def story():
        async with Cluster(with_controllers=False) as cluster:
            api = RefusingApi(cluster.api)
            cluster.start(run_controllers(api, LabConfig()))
            await asyncio.sleep(0.1)
            await cluster.create(DEPLOYMENTS, deployment(50))
            await asyncio.sleep(1)
            assert api.refused < 12
            (owner,) = await cluster.listed(REPLICASETS)
            (failure,) = owner["status"]["conditions"]
            assert (failure["type"], failure["reason"]) == ("ReplicaFailure", "FailedCreate")
            conditions = (await cluster.get(DEPLOYMENTS, "web"))["status"]["conditions"]
            assert "ReplicaFailure" in {one["type"] for one in conditions}
            said = [one for one in await cluster.listed(EVENTS) if one["reason"] == "FailedCreate"]
            assert said[0]["message"] == 'Error creating: pods "web-" is forbidden: exceeded quota'
            assert said[0]["count"] == api.refused
            api.refusing = False
            await cluster.rolled_out(seconds=30)
            (owner,) = await cluster.listed(REPLICASETS)
            assert "conditions" not in owner["status"]

    vtime.run(story())


def test_a_failed_pod_is_replaced_and_stays_to_be_looked_at():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 2)
            name = (await cluster.pods())[0]["metadata"]["name"]
            body = {"status": {"phase": "Failed", "reason": "Evicted"}}
            await cluster.api.patch(PODS, name, Patch(body, subresource="status"), NAMESPACE)
            await asyncio.sleep(2)
            assert len(await cluster.pods()) == 3
            assert len(await cluster.endpoints()) == 2

    vtime.run(story())


def test_an_unready_pod_is_the_first_to_go_when_the_set_shrinks():
    async def story():
        chosen = []

        def is_ready(pod):
            chosen.append(pod["metadata"]["name"])
            return len(chosen) != 2

        async with Cluster(habits=Habits(ready=is_ready)) as cluster:
            await cluster.create(DEPLOYMENTS, deployment(3))
            await asyncio.sleep(5)
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 2}})
            await asyncio.sleep(5)
            assert chosen[1] not in {one["metadata"]["name"] for one in await cluster.pods()}

    vtime.run(story())
