"""What every controller that owns pods does alike: claim them, create them in growing batches, delete them.

Follows pkg/controller/controller_ref_manager.go and RealPodControl, with their events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.kube.api import PODS, Deletion, JsonObject, Resource
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.cache import Cache
from tidegate.lab.controllers.owners import adoption, anyone, claims, reference_to, without_owners
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.waking import claimants
from tidegate.lab.controllers.writes import Amend, Create, Remove
from tidegate.lab.events import Event

_SLOW_START = 1
"""First batch of pod creations; each batch that succeeds doubles the next (slowStartBatch): a quota that refuses
all is asked once, not five hundred times."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many pods were created, and the first error: what was after it was not tried."""

    count: int = 0
    error: KubeError | None = None


class PodKeeper(Controller):
    """Keys are objects of ``resource``, woken by their own changes and by those of the pods they have or could have.

    ``finalizer`` stands on each of its pods from adoption to release.
    """

    finalizer = ""

    def __init__(self, world: World, resource: Resource) -> None:
        super().__init__(world)
        self.resource = resource
        self.owners, self.pods = self.cache(resource), self.cache(PODS)
        self.owners.subscribe(self.owner_changed)
        self.pods.subscribe(self.pod_changed)

    def owner_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """Told of every change of an object of ``resource``."""
        if new is not None:
            self.enqueue(new)

    def pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """Told of every change of a pod."""
        for owner in claimants(old, new, self.owners, self.resource.kind):
            self.pod_concerns(owner)

    def pod_concerns(self, owner: JsonObject) -> None:
        """A pod of ``owner`` changed, or one that it could adopt."""
        self.enqueue(owner)

    async def claimed(
        self, key: Key, owner: JsonObject, is_member: Callable[[JsonObject], bool] = anyone
    ) -> list[JsonObject]:
        """The pods that are the owner's, after adopting and releasing."""
        return await self.claimed_of(key, owner, self.pods, is_member)

    async def claimed_of(
        self, key: Key, owner: JsonObject, things: Cache, is_member: Callable[[JsonObject], bool] = anyone
    ) -> list[JsonObject]:
        """The objects of another copy that are the owner's, after adopting and releasing."""
        uid, namespace = owner["metadata"]["uid"], key[0]
        orphans = (one for one in things.owned_by("") if one["metadata"]["namespace"] == namespace)
        claim = claims(owner, [*things.owned_by(uid), *orphans], is_member)
        owned = list(claim.owned)
        if claim.adopt and await self.may_adopt(key, owner):
            for one in claim.adopt:
                taken = Amend(things.resource, key_of(one), adoption(owner, one, self.finalizer))
                answer = await self.patched(key, taken)
                owned += [answer] if answer else []
        for one in claim.release:
            left = without_owners(one, frozenset({uid}), self.finalizer)
            await self.patched(key, Amend(things.resource, key_of(one), left))
        return owned

    async def may_adopt(self, key: Key, owner: JsonObject) -> bool:
        """Ask the server itself whether the owner still lives (#42639)."""
        live = await self.api.get(self.resource, key[1], key[0])
        return bool(live["metadata"]["uid"] == owner["metadata"]["uid"]) and not is_terminating(live)

    async def patched(self, key: Key, write: Amend) -> JsonObject | None:
        """The object as patched; None when it is gone."""
        try:
            return await self.carry_out(key, write)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def create_pods(self, key: Key, owner: JsonObject, pods: Sequence[JsonObject]) -> Outcome:
        """Create pods in batches of one, two, four..., up to the first that fails."""
        done, batch = 0, _SLOW_START
        while done < len(pods):
            errors = await asyncio.gather(
                *(self._create_pod(key, owner, pod) for pod in pods[done : done + batch]),
            )
            failed = [error for error in errors if error is not None]
            if failed:
                return Outcome(done + len(errors) - len(failed), failed[0])
            done += len(errors)
            batch *= 2
        return Outcome(done)

    async def _create_pod(self, key: Key, owner: JsonObject, wanted: JsonObject) -> KubeError | None:
        try:
            pod = await self.carry_out(key, Create(PODS, wanted))
        except KubeError as error:
            if not is_namespace_going(error):
                self.recorder.event(owner, Event("Warning", "FailedCreate", f"Error creating: {error}"))
            return error
        assert pod is not None
        said = Event("Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        self.recorder.event(owner, said)
        return None

    async def delete_pods(self, key: Key, owner: JsonObject, pods: Sequence[JsonObject]) -> Outcome:
        """Delete pods, all at once; ``count`` are those that are deleted or were gone already."""
        errors = await asyncio.gather(*(self._delete_pod(key, owner, pod) for pod in pods))
        failed = [error for error in errors if error is not None]
        return Outcome(len(pods) - len(failed), failed[0] if failed else None)

    async def _delete_pod(self, key: Key, owner: JsonObject, pod: JsonObject) -> KubeError | None:
        name = pod["metadata"]["name"]
        try:
            await self.carry_out(key, Remove(PODS, key_of(pod), Deletion(uid=pod["metadata"]["uid"])))
        except KubeError as error:
            if isinstance(error, ApiError) and error.is_not_found:
                return None
            self.recorder.event(owner, Event("Warning", "FailedDelete", f"Error deleting: {error}"))
            return error
        self.recorder.event(owner, Event("Normal", "SuccessfulDelete", f"Deleted pod: {name}"))
        return None


def pod_from_template(owner: JsonObject, template: JsonObject) -> JsonObject:
    """A pod of a template, owned by ``owner``. The server draws its name (GetPodFromTemplate)."""
    meta = template.get("metadata") or {}
    kept = {key: meta[key] for key in ("labels", "annotations", "finalizers") if meta.get(key)}
    name, namespace = owner["metadata"]["name"], owner["metadata"]["namespace"]
    own = {"generateName": f"{name}-", "namespace": namespace, "ownerReferences": [reference_to(owner)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**own, **kept}, "spec": template["spec"]}


def is_namespace_going(error: KubeError | None) -> bool:
    """The namespace is being deleted: nothing can be created there any more, and nothing should be said."""
    causes = (error.status.get("details") or {}).get("causes") or () if isinstance(error, ApiError) else ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
