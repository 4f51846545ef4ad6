"""The ReplicaSet controller: keeps the number of its pods, adopts matching orphans, releases what it lost."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import PODS, REPLICASETS, Deletion, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.owners import adoption, claims, controller_uid, without_owners
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.replicas import (
    Difference,
    Failure,
    View,
    difference,
    new_pod,
    seconds_to_available,
    status,
)
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.waking import claimants
from tidegate.lab.controllers.writes import Amend, Create, Remove, Replace
from tidegate.lab.events import Event

_SLOW_START = 1
"""First batch of pod creations; each batch that succeeds doubles the next (slowStartBatch): a quota that refuses
all is asked once, not five hundred times."""


class ReplicaSetController(Controller):
    """Level-triggered over ReplicaSets and pods."""

    component = "replicaset-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._pods, self._sets = self.cache(PODS), self.cache(REPLICASETS)
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    def _set_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None:
            self.enqueue(new)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        for replicaset in claimants(old, new, self._sets, "ReplicaSet"):
            self.enqueue(replicaset)

    async def reconcile(self, key: Key) -> float | None:
        replicaset = self._sets.get(key)
        if replicaset is None:
            return None
        pods = await self._claimed(key, replicaset)
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
        family = self._sets.owned_by(owner) if owner else [replicaset]
        return [pod for one in family for pod in self._pods.owned_by(one["metadata"]["uid"])]

    async def _claimed(self, key: Key, replicaset: JsonObject) -> list[JsonObject]:
        """The pods that are this ReplicaSet's, after adopting and releasing."""
        uid, namespace = replicaset["metadata"]["uid"], key[0]
        orphans = (pod for pod in self._pods.owned_by("") if pod["metadata"]["namespace"] == namespace)
        claim = claims(replicaset, [*self._pods.owned_by(uid), *orphans])
        owned = list(claim.owned)
        if claim.adopt:
            live = await self.api.get(REPLICASETS, key[1], namespace)
            may_adopt = live["metadata"]["uid"] == uid and not is_terminating(live)
            for pod in claim.adopt if may_adopt else ():
                answer = await self._patched(key, Amend(PODS, key_of(pod), adoption(replicaset, pod)))
                owned += [answer] if answer else []
        for pod in claim.release:
            await self._patched(key, Amend(PODS, key_of(pod), without_owners(pod, frozenset({uid}))))
        return owned

    async def _patched(self, key: Key, write: Amend) -> JsonObject | None:
        try:
            return await self.carry_out(key, write)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def _manage(
        self, key: Key, replicaset: JsonObject, work: Difference
    ) -> tuple[Failure | None, KubeError | None]:
        """Create or delete; what went wrong is both a condition of the status and a reason to try again."""
        if work.missing:
            error = await self._create(key, replicaset, work.missing)
            if error is not None and _is_namespace_going(error):
                return None, None
            return (Failure("FailedCreate", str(error)), error) if error else (None, None)
        errors = await asyncio.gather(*(self._delete(key, replicaset, pod) for pod in work.surplus))
        first = next((error for error in errors if error is not None), None)
        return (Failure("FailedDelete", str(first)), first) if first else (None, None)

    async def _create(self, key: Key, replicaset: JsonObject, missing: int) -> KubeError | None:
        batch = _SLOW_START
        while missing:
            batch = min(batch, missing)
            errors = await asyncio.gather(*(self._create_one(key, replicaset) for _ in range(batch)))
            first = next((error for error in errors if error is not None), None)
            if first is not None:
                return first
            missing -= batch
            batch *= 2
        return None

    async def _create_one(self, key: Key, replicaset: JsonObject) -> KubeError | None:
        try:
            pod = await self.carry_out(key, Create(PODS, new_pod(replicaset)))
        except KubeError as error:
            if not _is_namespace_going(error):
                self.recorder.event(replicaset, Event("Warning", "FailedCreate", f"Error creating: {error}"))
            return error
        assert pod is not None
        said = Event("Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        self.recorder.event(replicaset, said)
        return None

    async def _delete(self, key: Key, replicaset: JsonObject, pod: JsonObject) -> KubeError | None:
        name = pod["metadata"]["name"]
        try:
            await self.carry_out(key, Remove(PODS, key_of(pod), Deletion(uid=pod["metadata"]["uid"])))
        except KubeError as error:
            if isinstance(error, ApiError) and error.is_not_found:
                return None
            self.recorder.event(replicaset, Event("Warning", "FailedDelete", f"Error deleting: {error}"))
            return error
        self.recorder.event(replicaset, Event("Normal", "SuccessfulDelete", f"Deleted pod: {name}"))
        return None


def _is_namespace_going(error: KubeError) -> bool:
    """The namespace is being deleted: nothing can be created there any more, and nothing should be said."""
    causes = (error.status.get("details") or {}).get("causes") or () if isinstance(error, ApiError) else ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
