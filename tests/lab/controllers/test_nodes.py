"""Nodes: cordons become taints, silence becomes Unknown, and what is bound to a dead node ends."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, LEASES, NODES, PODS, SERVICES, Patch
from tidegate.lab.controllers.taints import evicted_at, tolerates
from tidegate.lab.instants import micro_stamp

from .controller_world import NAMESPACE, Cluster, deployment, service


async def lease(cluster, name):
    spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_stamp(vtime.now())}
    meta = {"name": name, "namespace": "kube-node-lease"}
    obj = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
    await cluster.api.create(LEASES, obj, "kube-node-lease")


async def beat(cluster, name):
    while True:
        await asyncio.sleep(10)
        body = {"spec": {"renewTime": micro_stamp(vtime.now())}}
        await cluster.api.patch(LEASES, name, Patch(body), "kube-node-lease")


async def ready_of(cluster, name):
    node = await cluster.api.get(NODES, name)
    return next(one for one in node["status"]["conditions"] if one["type"] == "Ready")


async def taints_of(cluster, name):
    node = await cluster.api.get(NODES, name)
    return {(taint["key"].split("/")[1], taint["effect"]) for taint in node["spec"].get("taints") or ()}


def test_a_cordon_is_a_taint_and_an_uncordon_takes_it_off_but_no_foreign_one():
    async def story():
        async with Cluster() as cluster:
            foreign = {"key": "example.org/mine", "effect": "NoSchedule"}
            await cluster.api.patch(NODES, "node-1", Patch({"spec": {"taints": [foreign], "unschedulable": True}}))
            await asyncio.sleep(0.01)
            assert await taints_of(cluster, "node-1") == {("unschedulable", "NoSchedule"), ("mine", "NoSchedule")}
            await cluster.api.patch(NODES, "node-1", Patch({"spec": {"unschedulable": None}}))
            await asyncio.sleep(0.01)
            assert await taints_of(cluster, "node-1") == {("mine", "NoSchedule")}

    vtime.run(story())


def test_a_silent_node_is_unknown_after_fifty_seconds_and_its_pods_leave_their_services():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(SERVICES, service())
            await cluster.create(DEPLOYMENTS, deployment())
            await cluster.rolled_out()
            await lease(cluster, "node-1")
            beating = cluster.start(beat(cluster, "node-1"))
            await asyncio.sleep(195)
            assert (await ready_of(cluster, "node-1"))["status"] == "True"
            beating.cancel()
            await asyncio.sleep(40)
            assert (await ready_of(cluster, "node-1"))["status"] == "True"
            await asyncio.sleep(10)
            assert (await ready_of(cluster, "node-1"))["reason"] == "NodeStatusUnknown"
            assert await taints_of(cluster, "node-1") == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
            serving = {one["nodeName"]: one["conditions"] for one in await cluster.endpoints()}
            assert serving["node-1"] == {"ready": False, "serving": False, "terminating": False}
            assert serving["node-2"]["ready"]
            await asyncio.sleep(310)
            where = {
                one["spec"]["nodeName"] for one in await cluster.pods() if not one["metadata"].get("deletionTimestamp")
            }
            assert where == {"node-2", "node-3"}, "the default toleration is 300 s"

    vtime.run(story())


def test_a_node_that_comes_back_loses_its_taints():
    async def story():
        async with Cluster() as cluster:
            await lease(cluster, "node-1")
            await asyncio.sleep(60)
            assert await taints_of(cluster, "node-1")
            body = {
                "status": {
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T01:00:00Z"}]
                }
            }
            await cluster.api.patch(NODES, "node-1", Patch(body, subresource="status"))
            await asyncio.sleep(0.01)
            assert await taints_of(cluster, "node-1") == set()

    vtime.run(story())


def test_pods_of_a_deleted_node_are_collected_after_the_quarantine_and_replaced():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment())
            await cluster.rolled_out()
            await cluster.api.delete(NODES, "node-1")
            await asyncio.sleep(35)
            assert "node-1" in {one["spec"]["nodeName"] for one in await cluster.pods()}
            await asyncio.sleep(10)
            assert {one["spec"]["nodeName"] for one in await cluster.pods()} == {"node-2", "node-3"}
            assert len(await cluster.pods()) == 3

    vtime.run(story())


def test_a_terminating_pod_on_an_out_of_service_node_is_force_deleted():
    async def story():
        async with Cluster() as cluster:
            cluster.kubelets.habits.stop_seconds = 10_000
            await cluster.create(DEPLOYMENTS, deployment(1))
            await cluster.rolled_out()
            (pod,) = await cluster.pods()
            await cluster.api.delete(PODS, pod["metadata"]["name"], NAMESPACE)
            node = pod["spec"]["nodeName"]
            broken = {
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
            }
            await cluster.api.patch(NODES, node, Patch({"status": broken}, subresource="status"))
            await asyncio.sleep(30)
            assert pod["metadata"]["name"] in {one["metadata"]["name"] for one in await cluster.pods()}
            out = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
            taints = (await cluster.api.get(NODES, node))["spec"].get("taints") or []
            await cluster.api.patch(NODES, node, Patch({"spec": {"taints": [*taints, out]}}))
            await asyncio.sleep(1)
            assert pod["metadata"]["name"] not in {one["metadata"]["name"] for one in await cluster.pods()}

    vtime.run(story())


def test_a_toleration_matches_by_key_effect_and_value_and_an_empty_key_matches_all():
    taint = {"key": "a", "value": "1", "effect": "NoExecute"}
    assert tolerates({"operator": "Exists"}, taint)
    assert tolerates({"key": "a", "operator": "Equal", "value": "1"}, taint)
    assert not tolerates({"key": "a", "value": "2"}, taint)
    assert not tolerates({"key": "a", "operator": "Exists", "effect": "NoSchedule"}, taint)


def test_the_shortest_toleration_ends_a_pod_and_a_boundless_one_never_does():
    now = vtime.now()
    taint = {"key": "a", "effect": "NoExecute"}

    def pod(*tolerations):
        return {"spec": {"tolerations": list(tolerations)}}

    patient = {"key": "a", "operator": "Exists"}
    assert evicted_at(pod(), [taint], now) == now
    assert evicted_at(pod(patient), [taint], now) is None
    late = evicted_at(pod(patient | {"tolerationSeconds": 30}, patient | {"tolerationSeconds": 10}), [taint], now)
    assert (late - now).total_seconds() == 10
    assert evicted_at(pod(), [{"key": "a", "effect": "NoSchedule"}], now) is None
