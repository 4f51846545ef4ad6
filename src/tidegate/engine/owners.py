"""Who owns a pod: its controllers, from the nearest to the topmost."""

from __future__ import annotations

from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, Api, Resource
from tidegate.kube.errors import ApiError
from tidegate.model import workload
from tidegate.model.pod import Pod
from tidegate.model.workload import Workload

KINDS: dict[str, Resource] = {
    "ReplicaSet": REPLICASETS,
    "Deployment": DEPLOYMENTS,
    "StatefulSet": Resource("apps", "v1", "statefulsets", "StatefulSet"),
    "DaemonSet": Resource("apps", "v1", "daemonsets", "DaemonSet"),
    "Job": Resource("batch", "v1", "jobs", "Job"),
}
DEEP_MAX = 3


async def of(api: Api, pod: Pod) -> tuple[Workload, ...]:
    """The controllers of ``pod``, nearest first; ends at a kind we do not know. Raises ``KubeError``, ``Malformed``."""
    found: list[Workload] = []
    owner = pod.owner
    while owner is not None and owner.kind in KINDS and len(found) < DEEP_MAX:
        try:
            obj = await api.get(KINDS[owner.kind], owner.name, pod.namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            break
        found.append(workload.decode({"kind": owner.kind, **obj}))
        owner = found[-1].owner
    return tuple(found)
