"""Who owns a pod: its controllers, from the nearest to the topmost."""

from __future__ import annotations

from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, Api, JsonObject, Resource
from tidegate.kube.errors import ApiError
from tidegate.model import workload
from tidegate.model.pod import Owner, Pod
from tidegate.model.workload import Workload

KINDS: dict[str, Resource] = {
    "ReplicaSet": REPLICASETS,
    "Deployment": DEPLOYMENTS,
    "StatefulSet": Resource("apps", "v1", "statefulsets", "StatefulSet"),
    "DaemonSet": Resource("apps", "v1", "daemonsets", "DaemonSet"),
    "Job": Resource("batch", "v1", "jobs", "Job"),
}
DEEP_MAX = 3


def controller_uid(obj: JsonObject) -> str:
    """Of the controlling owner, "" without one."""
    for one in obj["metadata"].get("ownerReferences") or ():
        if one.get("controller"):
            return str(one["uid"])
    return ""


async def of(api: Api, pod: Pod) -> tuple[Workload, ...]:
    """The controllers of ``pod``, nearest first; ends at a kind we do not know, or at one that is gone
    (``is_ending``). Raises ``KubeError``, ``Malformed``."""
    found: list[Workload] = []
    owner = pod.owner
    while owner is not None and owner.kind in KINDS and len(found) < DEEP_MAX:
        found.append(await _read(api, owner, pod.namespace))
        owner = found[-1].owner
    return tuple(found)


async def _read(api: Api, owner: Owner, namespace: str) -> Workload:
    """The very object a pod names; another of its name is not its owner."""
    try:
        obj = await api.get(KINDS[owner.kind], owner.name, namespace)
    except ApiError as error:
        if not error.is_not_found:
            raise
        return workload.gone(owner, namespace)
    found = workload.decode({"kind": owner.kind, **obj})
    return found if found.uid == owner.uid else workload.gone(owner, namespace)
