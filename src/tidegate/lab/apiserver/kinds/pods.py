"""Pods: admission defaults, quality of service, graceful deletion.

Sources: pkg/registry/core/pod/strategy.go and plugin/pkg/admission/{serviceaccount,defaulttolerationseconds,priority,
podtopologylabels}.
"""

from __future__ import annotations

from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.objects import suffix
from tidegate.lab.apiserver.strategy import Strategy, World, keep

TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
TOLERATION_SECONDS = 300
TOPOLOGY = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class PodStrategy(Strategy):
    """``generation`` counts spec changes (1.33 on) but a binding is none (seen on 1.36)."""

    def __init__(self) -> None:
        super().__init__(has_generation=True)

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        spec = obj.setdefault("spec", {})
        _admit_service_account(obj, spec, world)
        _admit_tolerations(spec)
        _admit_priority(obj, spec, world)
        _admit_topology(obj, spec, world)
        obj["status"] = {"phase": "Pending", "qosClass": quality(spec)}

    def prepare_status(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        super().prepare_status(obj, old, world)
        status = obj.get("status")
        keep(obj["metadata"], old["metadata"], "ownerReferences")
        if isinstance(status, dict):
            keep(status, old.get("status") or {}, "qosClass")
            if status.get("podIP") and (status.get("podIPs") or [{}])[0].get("ip") != status["podIP"]:
                status["podIPs"] = [{"ip": status["podIP"]}]  # the old field wins (core/v1 conversion)

    def grace_seconds(self, obj: JsonObject, asked: int | None) -> int | None:
        """CheckGracefulDelete: 0 when unscheduled or ended; a negative period means 1 second."""
        spec = obj.get("spec") or {}
        if not obj["metadata"].get("deletionTimestamp"):
            phase = (obj.get("status") or {}).get("phase")
            if not spec.get("nodeName") or phase in ("Failed", "Succeeded"):
                return 0
        period = spec.get("terminationGracePeriodSeconds", 0) if asked is None else asked
        return 1 if period < 0 else int(period)


def quality(spec: JsonObject) -> str:
    """The pod's QoS class from cpu and memory requests and limits (component-helpers/resource qos)."""
    asked = False
    guaranteed = True
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        requests = {**limits, **(resources.get("requests") or {})}
        asked = asked or any(name in requests for name in ("cpu", "memory"))
        guaranteed = guaranteed and all(
            name in limits and requests.get(name) == limits[name] for name in ("cpu", "memory")
        )
    if not asked:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _refused(obj: JsonObject, why: str, world: World) -> ApiError:
    metadata = obj["metadata"]
    name = metadata.get("name") or metadata.get("generateName", "")
    return failures.forbidden(world.registry.named("", "pods"), name, why)


def _admit_service_account(obj: JsonObject, spec: JsonObject, world: World) -> None:
    """The default account may still be on its way in a new namespace; any other must be there."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    namespace = obj["metadata"]["namespace"]
    accounts = world.store.collection(world.registry.named("", "serviceaccounts"))
    if name != "default" and accounts.get(namespace, name) is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise _refused(obj, why, world)
    if spec.get("automountServiceAccountToken") is False:
        return
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    bare = [
        container
        for container in containers
        if all(mount.get("mountPath") != TOKEN_MOUNT for mount in container.get("volumeMounts") or [])
    ]
    if not bare:
        return
    volumes = spec.setdefault("volumes", [])
    held = next((one["name"] for one in volumes if str(one.get("name")).startswith("kube-api-access-")), "")
    volume = held or f"kube-api-access-{suffix(world.rng)}"
    if not held:
        volumes.append(_token_volume(volume))
    for container in bare:
        mount = {"name": volume, "readOnly": True, "mountPath": TOKEN_MOUNT}
        container.setdefault("volumeMounts", []).append(mount)


def _token_volume(name: str) -> JsonObject:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


def _admit_priority(obj: JsonObject, spec: JsonObject, world: World) -> None:
    """``priority`` and ``preemptionPolicy`` of the named class, or of the class that is everyone's default."""
    collection = world.store.collection(world.registry.named("scheduling.k8s.io", "priorityclasses"))
    name = spec.get("priorityClassName")
    if name:
        version = collection.get("", name)
        if version is None:
            raise _refused(obj, f"no PriorityClass with name {name} was found", world)
    else:
        version = next((held for held in collection.versions() if held.object.get("globalDefault")), None)
        if version is not None:
            spec["priorityClassName"] = version.object["metadata"]["name"]
    chosen = version.object if version is not None else {}
    spec["priority"] = chosen.get("value", 0)
    spec.setdefault("preemptionPolicy", chosen.get("preemptionPolicy") or "PreemptLowerPriority")


def topology_labels(node_name: str, world: World) -> dict[str, str]:
    """What a pod has from the node it is assigned to (PodTopologyLabels): nothing from one that is unknown."""
    node = world.store.collection(world.registry.named("", "nodes")).get("", node_name)
    labels = (node.object["metadata"].get("labels") or {}) if node is not None else {}
    return {name: labels[name] for name in TOPOLOGY if name in labels}


def _admit_topology(obj: JsonObject, spec: JsonObject, world: World) -> None:
    """A pod that names its node is labelled as one that is bound to it."""
    labels = topology_labels(spec["nodeName"], world) if spec.get("nodeName") else {}
    if labels:
        obj["metadata"]["labels"] = {**(obj["metadata"].get("labels") or {}), **labels}


def _admit_tolerations(spec: JsonObject) -> None:
    tolerations = spec.setdefault("tolerations", [])
    for key in TOLERATED:
        if not any(
            held.get("key", key) == key and held.get("effect", "NoExecute") == "NoExecute" for held in tolerations
        ):
            toleration = {
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }
            tolerations.append(toleration)
