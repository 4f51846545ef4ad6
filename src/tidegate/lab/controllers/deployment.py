"""The Deployment controller: asks ``rollout.plan`` what comes next and carries it out."""

from __future__ import annotations

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, PODS, REPLICASETS, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers import conditions, progress
from tidegate.lab.controllers.fenceposts import is_rolling
from tidegate.lab.controllers.labels import is_everything
from tidegate.lab.controllers.owners import adoption, claims, controller_of, controller_uid, without_owners
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.revisions import template_of
from tidegate.lab.controllers.rollout import View, plan
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.waking import claimants, owner_of
from tidegate.lab.controllers.writes import Amend, Create, Replace
from tidegate.lab.events import Event


class DeploymentController(Controller):
    """Level-triggered over Deployments, ReplicaSets and, for Recreate, the end of pods."""

    component = "deployment-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._deployments, self._sets, self._pods = map(self.cache, (DEPLOYMENTS, REPLICASETS, PODS))
        self._deployments.subscribe(self._deployment_changed)
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    def _deployment_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None:
            self.enqueue(new)

    def _set_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        for deployment in claimants(old, new, self._deployments, "Deployment"):
            self.enqueue(deployment)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """Recreate waits for the old pods' end: their deletion, or a terminal phase."""
        ref = controller_of(old) if old is not None else None
        if old is None or ref is None or ref["kind"] != "ReplicaSet":
            return
        if new is not None and (new.get("status") or {}).get("phase") == (old.get("status") or {}).get("phase"):
            return
        replicaset = self._sets.get((old["metadata"]["namespace"], ref["name"]))
        owner = owner_of(replicaset, self._deployments, "Deployment") if replicaset is not None else None
        if owner is not None and not is_rolling(owner):
            self.enqueue(owner)

    async def reconcile(self, key: Key) -> float | None:
        deployment = self._deployments.get(key)
        if deployment is None:
            return None
        if is_everything(deployment["spec"].get("selector")):
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self.recorder.event(deployment, Event("Warning", "SelectingAll", text))
            return None
        sets = await self._claimed(key, deployment)
        pods: list[JsonObject] = []
        if not is_rolling(deployment):
            pods = [pod for one in sets for pod in self._pods.owned_by(one["metadata"]["uid"])]
        step = plan(View(deployment, tuple(sets), tuple(pods), vtime.now()))
        writes = step.writes
        if writes and isinstance(writes[0], Create):
            await self._create(key, deployment, writes[0])
            writes = writes[1:]
        await self.perform(key, writes)
        return step.after_seconds

    async def _claimed(self, key: Key, deployment: JsonObject) -> list[JsonObject]:
        """The ReplicaSets that are this Deployment's, after adopting and releasing."""
        uid, namespace = deployment["metadata"]["uid"], key[0]
        orphans = (one for one in self._sets.owned_by("") if one["metadata"]["namespace"] == namespace)
        claim = claims(deployment, [*self._sets.owned_by(uid), *orphans])
        owned = list(claim.owned)
        if claim.adopt:
            live = await self.api.get(DEPLOYMENTS, key[1], namespace)
            if live["metadata"]["uid"] == uid and not is_terminating(live):
                for one in claim.adopt:
                    answer = await self.carry_out(key, Amend(REPLICASETS, key_of(one), adoption(deployment, one)))
                    owned += [answer] if answer else []
        for one in claim.release:
            await self.carry_out(key, Amend(REPLICASETS, key_of(one), without_owners(one, frozenset({uid}))))
        return owned

    async def _create(self, key: Key, deployment: JsonObject, write: Create) -> None:
        try:
            await self.carry_out(key, write)
        except ApiError as error:
            await self._creation_failed(key, deployment, write.obj, error)
            raise

    async def _creation_failed(self, key: Key, deployment: JsonObject, wanted: JsonObject, error: ApiError) -> None:
        """A name collision draws another hash next time; any other refusal is said aloud."""
        status = dict(progress.status_of(deployment))
        if error.reason == "AlreadyExists":
            taken = await self.api.get(REPLICASETS, wanted["metadata"]["name"], key[0])
            ours = controller_uid(taken) == deployment["metadata"]["uid"]
            if ours and template_of(taken) == template_of(deployment):
                return
            status["collisionCount"] = int(status.get("collisionCount") or 0) + 1
            await self.carry_out(key, Replace(DEPLOYMENTS, {**deployment, "status": status}, "status"))
            return
        causes = (error.status.get("details") or {}).get("causes") or ()
        if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
            return
        text = f'Failed to create new replica set "{wanted["metadata"]["name"]}": {error}'
        self.recorder.event(deployment, Event("Warning", "ReplicaSetCreateError", text))
        if progress.has_deadline(deployment):
            made = conditions.made(progress.PROGRESSING, "False", "ReplicaSetCreateError", text, vtime.now())
            status["conditions"] = conditions.placed(list(status.get("conditions") or []), made)
            await self.carry_out(key, Replace(DEPLOYMENTS, {**deployment, "status": status}, "status"))
