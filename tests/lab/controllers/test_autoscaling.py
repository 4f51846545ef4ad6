"""HorizontalPodAutoscalers on a metric that a story sets: how many, when, and what is said about it."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, DEPLOYMENTS, EVENTS, Patch, Resource
from tidegate.lab.controllers.autoscaler import AUTOSCALERS
from tidegate.lab.controllers.autoscaling import Bounds, Memory, Samples, Tolerance, decided, per_pod

from .controller_world import NAMESPACE, Cluster, Habits, deployment

PODS_METRIC = {
    "type": "Pods",
    "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "100"}},
}


def autoscaler(metric=PODS_METRIC, **spec):
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    wanted = {"scaleTargetRef": ref, "minReplicas": 2, "maxReplicas": 10, "metrics": [metric], **spec}
    meta = {"name": "web", "annotations": {}}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": wanted}


async def tell(cluster, **annotations):
    found = {f"lab.tidegate.dev/{name}": value for name, value in annotations.items()}
    await cluster.api.patch(AUTOSCALERS, "web", Patch({"metadata": {"annotations": found}}), NAMESPACE)


async def replicas(cluster):
    return (await cluster.get(DEPLOYMENTS, "web"))["spec"]["replicas"]


async def conditions(cluster):
    status = (await cluster.get(AUTOSCALERS, "web"))["status"]
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


async def begun(cluster, size=3, **spec):
    """A Deployment of ``size`` and its autoscaler, with its first sync to come in 15 s."""
    await cluster.create(DEPLOYMENTS, deployment(size))
    await cluster.rolled_out()
    await cluster.create(AUTOSCALERS, autoscaler(**spec))


def test_a_load_that_is_shared_makes_as_many_pods_as_bring_each_to_its_target():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster)
            await tell(cluster, load="560")
            await asyncio.sleep(14)
            assert await replicas(cluster) == 3
            await asyncio.sleep(2)
            assert await replicas(cluster) == 6
            status = (await cluster.get(AUTOSCALERS, "web"))["status"]
            assert status["currentReplicas"] == 3 and status["desiredReplicas"] == 6 and status["lastScaleTime"]
            assert await conditions(cluster) == {
                "AbleToScale": ("True", "SucceededRescale"),
                "ScalingActive": ("True", "ValidMetricFound"),
                "ScalingLimited": ("False", "DesiredWithinRange"),
            }
            await asyncio.sleep(60)
            assert await replicas(cluster) == 6
            status = (await cluster.get(AUTOSCALERS, "web"))["status"]
            assert status["currentMetrics"][0]["pods"]["current"] == {"averageValue": "93333m"}
            said = [one["message"] for one in await cluster.listed(EVENTS) if one["reason"] == "SuccessfulRescale"]
            assert said == ["New size: 6; reason: pods metric rps above target"]

    vtime.run(story())


def test_what_is_within_a_tenth_of_the_target_changes_nothing():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster)
            await tell(cluster, metric="109")
            await asyncio.sleep(31)
            assert await replicas(cluster) == 3
            await tell(cluster, metric="111")
            await asyncio.sleep(16)
            assert await replicas(cluster) == 4

    vtime.run(story())


def test_scaling_down_waits_until_nothing_of_the_last_five_minutes_asked_for_more():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 6)
            await tell(cluster, load="600")
            await asyncio.sleep(16)
            await tell(cluster, load="200")
            await asyncio.sleep(285)
            assert await replicas(cluster) == 6
            assert (await conditions(cluster))["AbleToScale"] == ("True", "ScaleDownStabilized")
            await asyncio.sleep(31)
            assert await replicas(cluster) == 2

    vtime.run(story())


def test_a_behavior_sets_the_window_and_the_pace():
    async def story():
        async with Cluster() as cluster:
            slow = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}], "stabilizationWindowSeconds": 0}
            await begun(cluster, 6, behavior={"scaleDown": slow, "scaleUp": slow})
            await tell(cluster, load="200")
            await asyncio.sleep(16)
            assert await replicas(cluster) == 5
            assert (await conditions(cluster))["ScalingLimited"] == ("True", "ScaleDownLimit")
            await asyncio.sleep(30)
            assert await replicas(cluster) == 5
            await asyncio.sleep(45)
            assert await replicas(cluster) == 4

    vtime.run(story())


def test_pods_that_are_not_ready_hold_a_scale_up_back():
    """Three at twice their target ask for six; with three more that are measured at nothing yet, six are enough."""
    tolerance = Tolerance()
    assert per_pod(3, Samples((200, 200, 200)), 100, tolerance) == (6, 200)
    assert per_pod(6, Samples((200, 200, 200), unready=3), 100, tolerance) == (6, 200)
    assert per_pod(6, Samples((50, 50, 50), unready=3), 100, tolerance) == (2, 50)


def test_a_target_of_no_replicas_is_left_alone():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 0)
            await tell(cluster, load="900")
            await asyncio.sleep(31)
            assert await replicas(cluster) == 0
            assert (await conditions(cluster))["ScalingActive"] == ("False", "ScalingDisabled")

    vtime.run(story())


def test_a_size_outside_of_the_bounds_is_brought_within_them_whatever_is_measured():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 1)
            await asyncio.sleep(16)
            assert await replicas(cluster) == 2
            await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 12}})
            await asyncio.sleep(16)
            assert await replicas(cluster) == 10

    vtime.run(story())


@pytest.mark.parametrize(
    ("told", "expected"),
    [({"load": "10k"}, (6, "ScaleUpLimit")), ({"metric": "0"}, (3, "DesiredWithinRange"))],
    ids=["twice as many at most", "recently more"],
)
def test_what_is_wanted_is_limited(told, expected):
    async def story():
        async with Cluster() as cluster:
            await begun(cluster, 3)
            await tell(cluster, **told)
            await asyncio.sleep(16)
            assert (await replicas(cluster), (await conditions(cluster))["ScalingLimited"][1]) == expected

    vtime.run(story())


def test_without_a_metric_it_says_what_it_cannot_compute_and_scales_nothing():
    async def story():
        async with Cluster() as cluster:
            await begun(cluster)
            await asyncio.sleep(16)
            assert await replicas(cluster) == 3
            assert (await conditions(cluster))["ScalingActive"] == ("False", "FailedGetPodsMetric")
            reasons = {one["reason"] for one in await cluster.listed(EVENTS)}
            assert {"FailedGetPodsMetric", "FailedComputeMetricsReplicas"} <= reasons

    vtime.run(story())


def test_without_its_target_it_is_not_able_to_scale():
    async def story():
        async with Cluster() as cluster:
            await cluster.create(AUTOSCALERS, autoscaler())
            await asyncio.sleep(16)
            found = (await cluster.get(AUTOSCALERS, "web"))["status"]["conditions"]
            assert [(one["type"], one["reason"]) for one in found] == [("AbleToScale", "FailedGetScale")]
            words = "the HPA controller was unable to get the target's current scale: "
            assert found[0]["message"] == f'{words}deployments.apps "web" not found'

    vtime.run(story())


def test_an_amount_in_all_is_shared_by_the_replicas_there_are():
    async def story():
        async with Cluster() as cluster:
            queue = {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}}
            await begun(cluster, metric={"type": "External", "external": queue})
            await cluster.api.patch(
                AUTOSCALERS,
                "web",
                Patch({"metadata": {"annotations": {"lab.tidegate.dev/load.queue": "130"}}}),
                NAMESPACE,
            )
            await asyncio.sleep(16)
            assert await replicas(cluster) == 5

    vtime.run(story())


def test_the_busiest_of_several_metrics_counts():
    async def story():
        async with Cluster() as cluster:
            cpu = {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }
            queue = {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "10"}}
            await begun(cluster, metrics=[PODS_METRIC, {"type": "External", "external": queue}, cpu])
            found = {"lab.tidegate.dev/load.rps": "400", "lab.tidegate.dev/load.queue": "20"}
            await cluster.api.patch(AUTOSCALERS, "web", Patch({"metadata": {"annotations": found}}), NAMESPACE)
            await asyncio.sleep(16)
            assert await replicas(cluster) == 6  # one metric is missing, and the others ask for more

    vtime.run(story())


def test_without_a_behavior_the_highest_recommendation_of_five_minutes_holds():
    memory = Memory([(8, 100.0)])
    held = decided(3, Bounds(1, 10, 8, 399.0), None, memory)
    assert (held.replicas, held.able[0]) == (8, "ScaleDownStabilized")
    held = decided(3, Bounds(1, 10, 8, 401.0), None, memory)
    assert (held.replicas, held.able[0]) == (3, "ReadyForNewScale")


def test_a_policy_of_percent_rounds_up_when_it_adds_and_down_when_it_takes_away():
    half = {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}
    behavior = {
        "scaleUp": {**half, "stabilizationWindowSeconds": 0},
        "scaleDown": {**half, "stabilizationWindowSeconds": 0},
    }
    assert decided(9, Bounds(1, 10, 5, 0.0), behavior, Memory()).replicas == 8
    assert decided(1, Bounds(1, 10, 5, 0.0), behavior, Memory()).replicas == 2


def test_a_pod_that_never_gets_ready_does_not_count_for_its_cpu():
    async def story():
        habits = Habits(ready=lambda pod: False)
        async with Cluster(habits=habits) as cluster:
            cpu = {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }
            await cluster.create(DEPLOYMENTS, deployment(3))
            await cluster.create(AUTOSCALERS, autoscaler(cpu))
            await tell(cluster, metric="200")
            await asyncio.sleep(16)
            assert await replicas(cluster) == 3
            found = await conditions(cluster)
            assert found["ScalingActive"] == ("False", "FailedGetResourceMetric")

    vtime.run(story())


def test_a_custom_kind_with_a_scale_is_scaled_where_its_definition_says():
    async def story():
        async with Cluster() as cluster:
            number = {"type": "integer"}
            schema = {
                "type": "object",
                "properties": {
                    "spec": {"type": "object", "properties": {"crew": number}},
                    "status": {"type": "object", "properties": {"crew": number, "selector": {"type": "string"}}},
                },
            }
            paths = {
                "specReplicasPath": ".spec.crew",
                "statusReplicasPath": ".status.crew",
                "labelSelectorPath": ".status.selector",
            }
            version = {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": paths},
            }
            names = {"plural": "boats", "singular": "boat", "kind": "Boat"}
            spec = {"group": "tides.example", "names": names, "scope": "Namespaced", "versions": [version]}
            definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
            definition |= {"metadata": {"name": "boats.tides.example"}, "spec": spec}
            await cluster.api.create(CUSTOMRESOURCEDEFINITIONS, definition)
            await asyncio.sleep(1)
            boats = Resource("tides.example", "v1", "boats", "Boat")
            boat = {"apiVersion": "tides.example/v1", "kind": "Boat", "metadata": {"name": "b"}, "spec": {"crew": 3}}
            await cluster.create(boats, boat)
            status = {"status": {"crew": 3, "selector": "app=web"}}
            await cluster.api.patch(boats, "b", Patch(status, subresource="status"), NAMESPACE)
            await cluster.create(DEPLOYMENTS, deployment(3))
            await cluster.rolled_out()
            ref = {"apiVersion": "tides.example/v1", "kind": "Boat", "name": "b"}
            await cluster.create(AUTOSCALERS, autoscaler(scaleTargetRef=ref))
            await tell(cluster, load="500")
            await asyncio.sleep(16)
            assert (await cluster.get(boats, "b"))["spec"]["crew"] == 5

    vtime.run(story())


def test_autoscalers_that_mean_the_same_pods_scale_nothing():
    """Two Deployments whose selectors share a pod: both autoscalers stand still until one is gone."""

    async def story():
        async with Cluster() as cluster:
            await begun(cluster)
            other = deployment(2)
            other["metadata"]["name"] = "web-green"
            labels = {"app": "web", "colour": "green"}
            other["spec"]["selector"] = {"matchLabels": labels}
            other["spec"]["template"]["metadata"]["labels"] = labels
            await cluster.create(DEPLOYMENTS, other)
            ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-green"}
            second = autoscaler(scaleTargetRef=ref)
            second["metadata"] = {"name": "green", "annotations": {"lab.tidegate.dev/load": "900"}}
            await cluster.create(AUTOSCALERS, second)
            await tell(cluster, load="900")
            await asyncio.sleep(31)
            status, reason = (await conditions(cluster))["ScalingActive"]
            assert (status, reason) == ("False", "AmbiguousSelector")
            found = (await cluster.get(AUTOSCALERS, "web"))["status"]["conditions"]
            words = next(one["message"] for one in found if one["type"] == "ScalingActive")
            named = f"[{NAMESPACE}/green {NAMESPACE}/web]"
            assert words == f"pods by selector app=web are controlled by multiple HPAs: {named}"
            before = await replicas(cluster)
            await cluster.api.delete(AUTOSCALERS, "green", NAMESPACE)
            await asyncio.sleep(16)
            assert await replicas(cluster) > before

    vtime.run(story())
