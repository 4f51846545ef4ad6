"""The ReplicaSet controller: keeps the number of its pods, adopts matching orphans, releases what it lost."""

from __future__ import annotations

from tidegate import vtime
from tidegate.kube.api import REPLICASETS, JsonObject
from tidegate.kube.errors import KubeError
from tidegate.kube.reflector import Key
from tidegate.lab.controllers.keeper import PodKeeper, is_namespace_going, pod_from_template
from tidegate.lab.controllers.owners import controller_uid
from tidegate.lab.controllers.replicas import (
    Difference,
    Failure,
    View,
    difference,
    seconds_to_available,
    status,
)
from tidegate.lab.controllers.shell import World
from tidegate.lab.controllers.writes import Replace


class ReplicaSetController(PodKeeper):
    """Level-triggered over ReplicaSets and pods."""

    component = "replicaset-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world, REPLICASETS)

    async def reconcile(self, key: Key) -> float | None:
        replicaset = self.owners.get(key)
        if replicaset is None:
            return None
        pods = await self.claimed(key, replicaset)
        view = View(replicaset, tuple(pods), tuple(self._related(replicaset)), vtime.now())
        failure, error = await self._manage(key, replicaset, difference(view))
        wanted = status(view, failure)
        if wanted != (replicaset.get("status") or {}):
            await self.carry_out(key, Replace(REPLICASETS, {**replicaset, "status": wanted}, "status"))
        if error is not None:
            raise error
        return seconds_to_available(view)

    def _related(self, replicaset: JsonObject) -> list[JsonObject]:
        """Pods of all ReplicaSets of the same Deployment: who crowds which node."""
        owner = controller_uid(replicaset)
        family = self.owners.owned_by(owner) if owner else [replicaset]
        return [pod for one in family for pod in self.pods.owned_by(one["metadata"]["uid"])]

    async def _manage(
        self, key: Key, replicaset: JsonObject, work: Difference
    ) -> tuple[Failure | None, KubeError | None]:
        """Create or delete; what went wrong is both a condition of the status and a reason to try again."""
        if work.missing:
            template = replicaset["spec"]["template"]
            error = (
                await self.create_pods(key, replicaset, [pod_from_template(replicaset, template)] * work.missing)
            ).error
            if is_namespace_going(error):
                return None, None
            return (Failure("FailedCreate", str(error)), error) if error else (None, None)
        first = (await self.delete_pods(key, replicaset, work.surplus)).error
        return (Failure("FailedDelete", str(first)), first) if first else (None, None)
