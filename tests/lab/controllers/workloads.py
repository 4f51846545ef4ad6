"""StatefulSets, DaemonSets and Jobs to tell stories about, and what pods of theirs may do."""

from __future__ import annotations

from typing import Any

from tidegate import vtime
from tidegate.kube.api import PODS, JsonObject, Patch
from tidegate.lab.controllers.kinds import DAEMONSETS
from tidegate.lab.instants import stamp

from .controller_world import NAMESPACE, Cluster, deployment

UID_LABEL = "batch.kubernetes.io/controller-uid"


def stateful(replicas: int = 3, image: str = "app:1", **spec: Any) -> JsonObject:
    return {**deployment(replicas, image, serviceName="web", **spec), "kind": "StatefulSet"}


def daemon(image: str = "app:1", **spec: Any) -> JsonObject:
    made = {**deployment(1, image, **spec), "kind": "DaemonSet"}
    del made["spec"]["replicas"]
    return made


def job(name: str = "work", **spec: Any) -> JsonObject:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:1"}]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def labelled(value: str, key: str = "app") -> JsonObject:
    return {"metadata": {"labels": {key: value}}}


async def finish(cluster: Cluster, pod: str, phase: str = "Succeeded") -> None:
    """The pod's containers have ended."""
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": stamp(vtime.now())}
    body = {"status": {"phase": phase, "conditions": [ready]}}
    await cluster.api.patch(PODS, pod, Patch(body, "strategic", "status"), NAMESPACE)


async def status(cluster: Cluster, resource: Any, name: str = "web") -> JsonObject:
    found: JsonObject = (await cluster.get(resource, name))["status"]
    return found


async def rolled_out(cluster: Cluster, resource: Any, wanted: int, seconds: float = 120.0) -> float:
    """Until ``wanted`` pods of the current template are ready."""

    async def is_done() -> bool:
        obj = await cluster.get(resource, "web")
        found = obj["status"]
        if found.get("observedGeneration") != obj["metadata"]["generation"]:
            return False
        names = ("updatedNumberScheduled", "numberAvailable") if resource is DAEMONSETS else _STATEFUL_COUNTS
        return all((found.get(name) or 0) == wanted for name in names)

    return await cluster.until(is_done, seconds)


_STATEFUL_COUNTS = ("updatedReplicas", "readyReplicas", "replicas")
