"""How many pods a pod's controller wants: the finders of pkg/controller/disruption, in their order."""

from __future__ import annotations

from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, JsonObject, Resource
from tidegate.lab.controllers.cache import Cache
from tidegate.lab.controllers.fenceposts import replicas
from tidegate.lab.controllers.kinds import STATEFULSETS
from tidegate.lab.controllers.owners import controller_of
from tidegate.lab.controllers.shell import World

REPLICATIONCONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController")

_WITHOUT_SCALE = {
    "DaemonSet": "daemonsets.apps",
    "Job": "jobs.batch",
    "CronJob": "cronjobs.batch",
    "Node": "nodes",
    "ConfigMap": "configmaps",
    "Service": "services",
    "Pod": "pods",
}
"""Owners that a pod may have and that nobody can ask for a scale; one of these makes a budget fail its sync."""


class NoScaleError(Exception):
    """Nobody says how many pods there should be; the message is the controller's own."""


class Scales:
    """The scales of pods' controllers, from the shared copies."""

    def __init__(self, world: World) -> None:
        kinds = (REPLICATIONCONTROLLERS, DEPLOYMENTS, REPLICASETS, STATEFULSETS)
        self._copies: dict[str, Cache] = {one.kind: world.caches.of(one) for one in kinds}

    def expected(self, pods: tuple[JsonObject, ...]) -> tuple[int, list[str]]:
        """(the replicas of the pods' distinct controllers, the names of pods without one). Raises ``NoScaleError``."""
        scales: dict[str, int] = {}
        unmanaged: list[str] = []
        for pod in pods:
            ref = controller_of(pod)
            if ref is None:
                unmanaged.append(pod["metadata"]["name"])
                continue
            found = self._found(ref, pod["metadata"]["namespace"])
            if found is None:
                raise NoScaleError(f'found no controllers for pod "{pod["metadata"]["name"]}"')
            scales[found["metadata"]["uid"]] = replicas(found)
        return sum(scales.values()), unmanaged

    def _found(self, ref: JsonObject, namespace: str) -> JsonObject | None:
        """The controller, seen through a ReplicaSet to its Deployment; None when it is gone or another of its name."""
        kind = ref["kind"]
        if kind not in self._copies:
            if kind in _WITHOUT_SCALE:
                raise NoScaleError(f"{_WITHOUT_SCALE[kind]} does not implement the scale subresource")
            raise NoScaleError(f'no matches for kind "{kind}" in version "{ref["apiVersion"]}"')
        found = self._copies[kind].get((namespace, ref["name"]))
        if found is None or found["metadata"]["uid"] != ref["uid"]:
            return None
        above = controller_of(found) if kind == "ReplicaSet" else None
        if above is None or above["kind"] != "Deployment":
            return found
        # With its Deployment gone, a ReplicaSet still answers for itself by its scale subresource.
        return self._found(above, namespace) or found
