"""A story of autoscalers without a metrics API: what they do that needs none, and what they say of the rest."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.realcluster.controllers_twin import World
from tests.realcluster.stories_controllers import web

from tidegate.kube.api import DEPLOYMENTS, EVENTS, HORIZONTALPODAUTOSCALERS, JsonObject, Selection

SYNCS_SECONDS = 33.0
"""Two of its syncs: by the second each knows which pods the others mean."""

CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
SOURCES = {
    "cpu": CPU,
    "memory": {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
    },
    "container": {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": "app",
            "target": {"type": "Utilization", "averageUtilization": 80},
        },
    },
    "pods": {
        "type": "Pods",
        "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1"}},
    },
    "external": {
        "type": "External",
        "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}},
    },
    "object": {
        "type": "Object",
        "object": {
            "metric": {"name": "hits"},
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
            "target": {"type": "Value", "value": "1"},
        },
    },
}


def autoscaler(name: str, target: str = "", metric: JsonObject = CPU, **spec: Any) -> JsonObject:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target or name}
    wanted = {"scaleTargetRef": ref, "minReplicas": 2, "maxReplicas": 3, "metrics": [metric], **spec}
    head = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}}
    return {**head, "spec": wanted}


def named(name: str, replicas: int, **labels: str) -> JsonObject:
    """A Deployment whose pods are its own, unless ``labels`` make them another's, too."""
    made = web(name, replicas=replicas)
    own = labels or {"app": name}
    made["spec"]["selector"] = {"matchLabels": own}
    made["spec"]["template"]["metadata"]["labels"] = own
    return made


async def autoscalers(world: World) -> None:
    """Outside of their bounds, at zero, without a target, without a metric of any kind, and two on the same pods."""
    for name, replicas in (("zero", 0), ("low", 1), ("high", 5), ("within", 2)):
        await world.create(DEPLOYMENTS, named(name, replicas))
        await world.create(HORIZONTALPODAUTOSCALERS, autoscaler(name))
    for name, metric in SOURCES.items():
        await world.create(DEPLOYMENTS, named(name, 2))
        await world.create(HORIZONTALPODAUTOSCALERS, autoscaler(name, metric=metric))
    await world.create(HORIZONTALPODAUTOSCALERS, autoscaler("away"))
    odd = autoscaler("odd")
    odd["spec"]["scaleTargetRef"] = {"apiVersion": "odd.example/v1", "kind": "Odd", "name": "odd"}
    await world.create(HORIZONTALPODAUTOSCALERS, odd)
    await world.create(DEPLOYMENTS, named("blue", 2, app="shared"))
    await world.create(DEPLOYMENTS, named("green", 2, app="shared", colour="green"))
    for name in ("blue", "green"):
        await world.create(HORIZONTALPODAUTOSCALERS, autoscaler(name))
    await asyncio.sleep(SYNCS_SECONDS)
    listed = (await world.api.list(HORIZONTALPODAUTOSCALERS, Selection(world.namespace))).items
    for one in sorted(listed, key=lambda one: one["metadata"]["name"]):
        status = {key: value for key, value in one["status"].items() if key != "lastScaleTime"}
        for condition in status["conditions"]:
            del condition["lastTransitionTime"]
            if condition["reason"] == "AmbiguousSelector":  # Go walks a map of them
                condition["message"] = condition["message"].partition(": [")[0]
        world.tell(one["metadata"]["name"], {**status, "scaled": "lastScaleTime" in one["status"]})
    said = (await world.api.list(EVENTS, Selection(world.namespace))).items
    about = [one for one in said if one["involvedObject"]["kind"] == "HorizontalPodAutoscaler"]
    lines = {
        f"{one['involvedObject']['name']}: {one['type']} {one['reason']}: {one['message'].partition(': [')[0]}"
        for one in about
        # The first of two on the same pods does not know yet of the second: which one that is, is chance.
        if one["involvedObject"]["name"] not in ("blue", "green") or one["reason"] == "AmbiguousSelector"
    }
    world.tell("said", sorted(lines))


STORIES = (autoscalers,)
