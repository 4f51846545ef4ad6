"""The StatefulSet controller: asks ``statefulset_plan.plan`` what comes next and carries it out.

A pod that loses its labels is released and keeps its name, so its successor cannot be created while it lives: the
real controller says nothing about that, tries again 5 ms later and then ever more slowly, up to 1000 s apart, and
hears of the end of a pod that is no longer its own from nobody. The lab does the same.
"""

from __future__ import annotations

import asyncio
from functools import partial

from tidegate import vtime
from tidegate.kube.api import PODS, Deletion, JsonObject, Resource
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers import history
from tidegate.lab.controllers.keeper import PodKeeper
from tidegate.lab.controllers.kinds import CLAIMS, REVISIONS, STATEFULSETS
from tidegate.lab.controllers.labels import labels_of, matches
from tidegate.lab.controllers.owners import adoption, controller_uid
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.replicas import next_available
from tidegate.lab.controllers.shell import World
from tidegate.lab.controllers.statefulset_plan import Act, End, Furnish, Make, Mend, Step, View, plan
from tidegate.lab.controllers.statefulset_pods import claims_of, is_member, ordinal, revision_of
from tidegate.lab.controllers.writes import Amend, Create, Remove, Replace
from tidegate.lab.events import Event

_COMPARED = (
    "replicas",
    "currentReplicas",
    "readyReplicas",
    "updatedReplicas",
    "currentRevision",
    "availableReplicas",
    "updateRevision",
)


class StatefulSetController(PodKeeper):
    """Level-triggered over StatefulSets and pods."""

    component = "statefulset-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world, STATEFULSETS)
        self._revisions, self._claims = self.cache(REVISIONS), self.cache(CLAIMS)

    async def reconcile(self, key: Key) -> float | None:
        stateful = self.owners.get(key)
        if stateful is None:
            return None
        revisions = await self._history(key, stateful)
        pods = await self.claimed(key, stateful, partial(is_member, stateful))
        update, collisions = await self._latest(key, stateful, revisions)
        named = (stateful.get("status") or {}).get("currentRevision")
        current = next((one for one in revisions if one["metadata"]["name"] == named), update)
        view = View(stateful, tuple(pods), current, update, vtime.now(), collisions)
        step = plan(view)
        error = await self._carry_out(key, stateful, step)
        await self._report(key, stateful, step.failed_status if error else step.status)
        live = {one["metadata"]["name"] for one in (current, update)} | {revision_of(pod) for pod in pods}
        limit = stateful["spec"].get("revisionHistoryLimit")
        for one in history.superfluous(revisions, 10 if limit is None else limit, frozenset(live)):
            await self.carry_out(key, Remove(REVISIONS, key_of(one)))
        if error is not None:
            raise error
        return next_available(pods, view.patience, view.now) if view.patience else None

    # -- revisions

    async def _history(self, key: Key, stateful: JsonObject) -> list[JsonObject]:
        """The set's revisions by number; orphans that fit its selector are adopted first."""
        selector = stateful["spec"].get("selector")
        orphans = (one for one in self._revisions.owned_by("") if one["metadata"]["namespace"] == key[0])
        mine = self._revisions.owned_by(stateful["metadata"]["uid"])
        found = [one for one in (*mine, *orphans) if matches(selector, labels_of(one))]
        lost = [one for one in found if not controller_uid(one)]
        if lost and await self.may_adopt(key, stateful):
            for one in lost:
                await self.patched(key, Amend(REVISIONS, key_of(one), adoption(stateful, one)))
        return history.in_order(found)

    async def _latest(self, key: Key, stateful: JsonObject, revisions: list[JsonObject]) -> tuple[JsonObject, int]:
        """The revision of the template as it is (found, renumbered or made), and the collisions of names so far."""
        collisions = int((stateful.get("status") or {}).get("collisionCount") or 0)
        data, number = history.snapshot(stateful), history.next_number(revisions)
        equal = [one for one in revisions if one["data"] == data]
        if equal and equal[-1] is revisions[-1]:
            return equal[-1], collisions
        if equal:
            answer = await self.carry_out(key, Replace(REVISIONS, {**equal[-1], "revision": number}))
            assert answer is not None
            return answer, collisions
        label = history.data_hash(data, collisions)
        while True:
            digest = history.data_hash(data, collisions)
            wanted = history.new_revision(stateful, number, digest, history.DATA_HASH_LABEL)
            wanted["metadata"]["labels"][history.DATA_HASH_LABEL] = label
            try:
                answer = await self.carry_out(key, Create(REVISIONS, wanted))
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
                taken = await self.api.get(REVISIONS, wanted["metadata"]["name"], key[0])
                if taken["data"] == data:
                    return taken, collisions
                collisions += 1
                continue
            assert answer is not None
            return answer, collisions

    # -- status

    async def _report(self, key: Key, stateful: JsonObject, status: JsonObject) -> None:
        """Write the status when a count or a revision differs (inconsistentStatus)."""
        before = stateful.get("status") or {}
        is_newer = status.get("observedGeneration", 0) > (before.get("observedGeneration") or 0)
        if is_newer or any((status.get(name) or 0) != (before.get(name) or 0) for name in _COMPARED):
            await self.carry_out(key, Replace(STATEFULSETS, {**stateful, "status": status}, "status"))

    # -- pods

    async def _carry_out(self, key: Key, stateful: JsonObject, step: Step) -> KubeError | None:
        """The stages in order; in each one pod after the other, or (Parallel) in batches of one, two, four..."""
        is_parallel = stateful["spec"].get("podManagementPolicy") == "Parallel"
        for stage in (step.replicas, step.condemned, step.updated):
            done, batch = 0, 1
            while done < len(stage):
                tried = stage[done : done + batch]
                errors = await asyncio.gather(*(self._act(key, stateful, acts) for acts in tried))
                failed = [error for error in errors if error is not None]
                if failed:
                    return failed[0]
                done += len(tried)
                batch = batch * 2 if is_parallel else 1
        return None

    async def _act(self, key: Key, stateful: JsonObject, acts: tuple[Act, ...]) -> KubeError | None:
        try:
            for act in acts:
                match act:
                    case Make(pod):
                        await self._make(key, stateful, pod)
                    case Furnish(pod):
                        await self._furnish(key, stateful, pod)
                    case Mend(pod):
                        await self._said(key, stateful, "Update", Replace(PODS, pod))
                    case End(pod):
                        await self._end(key, stateful, pod)
        except KubeError as error:
            return error
        return None

    async def _make(self, key: Key, stateful: JsonObject, pod: JsonObject) -> None:
        try:
            await self._furnish(key, stateful, pod)
        except KubeError as error:
            self._say(stateful, "Create", pod, error)
            raise
        try:
            await self.carry_out(key, Create(PODS, pod))
        except KubeError as error:
            if not (isinstance(error, ApiError) and error.reason == "AlreadyExists"):
                self._say(stateful, "Create", pod, error)
            raise
        self._say(stateful, "Create", pod)

    async def _end(self, key: Key, stateful: JsonObject, pod: JsonObject) -> None:
        try:
            await self._said(key, stateful, "Delete", Remove(PODS, key_of(pod), Deletion(uid=pod["metadata"]["uid"])))
        except ApiError as error:
            if not error.is_not_found:
                raise

    async def _said(self, key: Key, stateful: JsonObject, verb: str, write: Replace | Remove) -> None:
        """Carry a write out and say how it went; a pod that is gone already was deleted well."""
        pod = write.obj if isinstance(write, Replace) else {"metadata": {"name": write.key[1]}}
        try:
            await self.carry_out(key, write)
        except KubeError as error:
            is_done = verb == "Delete" and isinstance(error, ApiError) and error.is_not_found
            self._say(stateful, verb, pod, None if is_done else error)
            raise
        self._say(stateful, verb, pod)

    def _say(self, stateful: JsonObject, verb: str, pod: JsonObject, error: KubeError | None = None) -> None:
        text = f"{verb} Pod {pod['metadata']['name']} in StatefulSet {stateful['metadata']['name']}"
        if error is None:
            self.recorder.event(stateful, Event("Normal", f"Successful{verb}", f"{text} successful"))
        else:
            self.recorder.event(stateful, Event("Warning", f"Failed{verb}", f"{text} failed error: {error}"))

    async def _furnish(self, key: Key, stateful: JsonObject, pod: JsonObject) -> None:
        """Create the claims a pod lacks; one that is being deleted is in its way."""
        for claim in claims_of(stateful, ordinal(pod)).values():
            known = self._claims.get(key_of(claim))
            if known is not None:
                if is_terminating(known):
                    raise _in_the_way(CLAIMS, claim)
                continue
            text = f"Create Claim {claim['metadata']['name']} Pod {pod['metadata']['name']}"
            text += f" in StatefulSet {stateful['metadata']['name']} success"
            try:
                await self.carry_out(key, Create(CLAIMS, claim))
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    failed = text.replace(" Pod ", " for Pod ").removesuffix("success") + f"failed error: {error}"
                    self.recorder.event(stateful, Event("Warning", "FailedCreate", failed))
                raise
            self.recorder.event(stateful, Event("Normal", "SuccessfulCreate", text))


def _in_the_way(resource: Resource, claim: JsonObject) -> ApiError:
    return ApiError(409, "Conflict", f"pvc {claim['metadata']['name']} is being deleted")
