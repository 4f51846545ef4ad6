"""The scheduler: where pods go, why they cannot, and that they go as soon as they can."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, EVENTS, NODES, PODS, Patch
from tidegate.lab.scheduler import View, choose

from .controller_world import NAMESPACE, Cluster, deployment

NOW = vtime.now()


def node(name, labels=None, **spec):
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": {"conditions": ready}}


def pod(**spec):
    return {"metadata": {"name": "p", "namespace": "n"}, "spec": spec}


def choice(wanted, *nodes, **load):
    return choose(View(wanted, nodes, {name.replace("_", "-"): count for name, count in load.items()}, NOW))


def test_the_least_loaded_node_is_chosen_and_the_first_by_name_among_equals():
    nodes = [node("node-2"), node("node-1"), node("node-3")]
    assert choice(pod(), *nodes).node == "node-1"
    assert choice(pod(), *nodes, node_1=2, node_2=1, node_3=1).node == "node-2"


@pytest.mark.parametrize(
    ("spec", "facts", "why"),
    [
        ({}, {"unschedulable": True}, "1 node(s) were unschedulable"),
        ({}, {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "1 node(s) had untolerated taint(s)"),
        ({"nodeSelector": {"disk": "ssd"}}, {}, "1 node(s) didn't match Pod's node affinity/selector"),
    ],
    ids=["cordon", "taint", "selector"],
)
def test_a_node_that_will_not_have_the_pod_says_why(spec, facts, why):
    message = choice(pod(**spec), node("node-1", **facts)).message
    assert message == (
        f"0/1 nodes are available: {why}. no new claims to deallocate, "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


def test_a_toleration_a_label_or_an_affinity_term_opens_a_node():
    taint = {"key": "a", "effect": "NoSchedule"}
    assert choice(pod(tolerations=[{"key": "a", "operator": "Exists"}]), node("n", taints=[taint])).node == "n"
    assert choice(pod(nodeSelector={"disk": "ssd"}), node("n", {"disk": "ssd"})).node == "n"
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert choice(pod(affinity={"nodeAffinity": required}), node("m"), node("n")).node == "n"


def test_a_deployment_is_spread_evenly_and_each_pod_is_said_to_be_scheduled():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(DEPLOYMENTS, deployment(7))
            await cluster.rolled_out()
            where = Counter(one["spec"]["nodeName"] for one in await cluster.pods())
            assert sorted(where.values()) == [2, 2, 3]
            said = [one for one in await cluster.listed(EVENTS) if one["reason"] == "Scheduled"]
            assert len(said) == 7
            event = said[0]
            name = event["involvedObject"]["name"]
            bound = (await cluster.get(PODS, name))["spec"]["nodeName"]
            assert event["message"] == f"Successfully assigned {NAMESPACE}/{name} to {bound}"
            assert (event["action"], event["source"], event["reportingComponent"]) == (
                "Binding",
                {},
                "default-scheduler",
            )

    vtime.run(story())


def test_a_pod_nobody_will_have_says_so_and_goes_the_moment_a_node_opens():
    async def story():
        async with Cluster() as cluster:
            for name in ("node-1", "node-2", "node-3"):
                await cluster.api.patch(NODES, name, Patch({"spec": {"unschedulable": True}}))
            await asyncio.sleep(0.1)
            await cluster.create(DEPLOYMENTS, deployment(1))
            await asyncio.sleep(5)
            (stuck,) = await cluster.pods()
            (condition,) = stuck["status"]["conditions"]
            assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
            assert condition["message"].startswith("0/3 nodes are available: 3 node(s) were unschedulable.")
            assert [one for one in await cluster.listed(EVENTS) if one["reason"] == "FailedScheduling"]
            await cluster.api.patch(NODES, "node-2", Patch({"spec": {"unschedulable": None}}))
            assert await cluster.rolled_out(seconds=2) < 1
            (placed,) = await cluster.pods()
            assert placed["spec"]["nodeName"] == "node-2"

    vtime.run(story())


def test_pods_that_end_make_room_again():
    async def story():
        async with Cluster() as cluster:
            for name in ("node-1", "node-2", "node-3"):
                small = {"status": {"allocatable": {"pods": "1"}}}
                await cluster.api.patch(NODES, name, Patch(small, subresource="status"))
            await cluster.create(DEPLOYMENTS, deployment(4))
            await asyncio.sleep(5)
            stuck = [one for one in await cluster.pods() if not one["spec"].get("nodeName")]
            assert "3 Too many pods" in stuck[0]["status"]["conditions"][0]["message"]
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}})
            await cluster.rolled_out(seconds=5)

    vtime.run(story())
