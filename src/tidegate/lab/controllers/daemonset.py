"""The DaemonSet controller: one pod on every node that wants one, a new one where a pod was released."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import NODES, PODS, JsonObject, Patch
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers import history
from tidegate.lab.controllers.affinity import target_node
from tidegate.lab.controllers.daemonset_nodes import Difference, View, difference, new_pod, wants
from tidegate.lab.controllers.daemonset_rollout import rollout, status
from tidegate.lab.controllers.keeper import PodKeeper, is_namespace_going
from tidegate.lab.controllers.kinds import DAEMONSETS, REVISIONS
from tidegate.lab.controllers.labels import is_everything, labels_of
from tidegate.lab.controllers.owners import controller_uid
from tidegate.lab.controllers.pods import is_terminating, phase
from tidegate.lab.controllers.replicas import next_available
from tidegate.lab.controllers.revisions import template_hash
from tidegate.lab.controllers.shell import World
from tidegate.lab.controllers.taints import taints_of
from tidegate.lab.controllers.waking import claimants
from tidegate.lab.controllers.writes import Amend, Create, Remove, Replace, with_metadata
from tidegate.lab.events import Event

BURST = 250
_FAILED_SECONDS = (1.0, 900.0)
"""First and longest wait before a failed pod is deleted again (kube-controller-manager's failedPodsBackoff)."""


class DaemonSetController(PodKeeper):
    """Level-triggered over DaemonSets, their pods and nodes."""

    component = "daemonset-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world, DAEMONSETS)
        self._nodes, self._revisions = self.cache(NODES), self.cache(REVISIONS)
        self._failed: dict[tuple[str, int, str], tuple[float, float]] = {}
        self._nodes.subscribe(self._node_changed)
        self._revisions.subscribe(self._revision_changed)

    def _node_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """Wake those for which the node begins or ceases to count (syncNodeUpdate)."""
        if new is None:
            return
        if old is not None and labels_of(old) == labels_of(new) and taints_of(old) == taints_of(new):
            return
        for daemonset in self.owners.all():
            should_run, may_stay = wants(daemonset, new)
            mine = self.pods.owned_by(daemonset["metadata"]["uid"])
            is_there = any(pod["spec"].get("nodeName") == new["metadata"]["name"] for pod in mine)
            strayed = (daemonset.get("status") or {}).get("numberMisscheduled")
            if (should_run and not is_there) or (is_there and (not may_stay or strayed)):
                self.enqueue(daemonset)

    def _revision_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """A revision that was changed or deleted behind the controller's back is put right, an orphan adopted."""
        if old is None and new is not None and controller_uid(new):
            return
        for owner in claimants(old, new, self.owners, "DaemonSet"):
            self.enqueue(owner)

    async def reconcile(self, key: Key) -> float | None:
        daemonset = self.owners.get(key)
        if daemonset is None or is_terminating(daemonset):
            return None
        if is_everything(daemonset["spec"].get("selector")):
            text = "This daemon set is selecting all pods. A non-empty selector is required."
            self.recorder.event(daemonset, Event("Warning", "SelectingAll", text))
            return None
        current, old = await self._history(key, daemonset)
        pods = await self.claimed(key, daemonset)
        digest = labels_of(current).get(history.HASH_LABEL, "")
        view = View(daemonset, tuple(self._nodes.all()), tuple(pods), digest, vtime.now())
        work = difference(view, lambda node: self._held_seconds(daemonset, node))
        self._say_fallen(daemonset, work)
        error = await self._carry_out(key, view, work)
        is_quiet = not work.create and not work.delete
        if error is None and is_quiet and daemonset["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            error = await self._carry_out(key, view, rollout(view))
        if error is None:
            await self._forget(key, daemonset, old, pods)
        wanted = status(view)
        if wanted != (daemonset.get("status") or {}):
            await self.carry_out(key, Replace(DAEMONSETS, {**daemonset, "status": wanted}, "status"))
        if error is not None:
            raise error
        soon = next_available(pods, view.patience, view.now) if view.patience else None
        return min((one for one in (soon, work.after_seconds) if one is not None), default=None)

    # -- pods

    async def _carry_out(self, key: Key, view: View, work: Difference) -> KubeError | None:
        wanted = [new_pod(view, node) for node in work.create[:BURST]]
        created = (await self.create_pods(key, view.daemonset, wanted)).error
        deleted = (await self.delete_pods(key, view.daemonset, work.delete[:BURST])).error
        return deleted if created is None or is_namespace_going(created) else created

    def _held_seconds(self, daemonset: JsonObject, node: str) -> float:
        """How long a failed pod on this node must stay; 0 lets it go, and makes the next wait twice as long."""
        generation = int((daemonset.get("status") or {}).get("observedGeneration") or 0)
        place = (daemonset["metadata"]["uid"], generation, node)
        first, longest = _FAILED_SECONDS
        now = asyncio.get_running_loop().time()
        known = self._failed.get(place)
        if known is not None and now - known[1] < known[0]:
            return known[0]
        is_fresh = known is None or now - known[1] > 2 * longest
        self._failed[place] = (first if known is None or is_fresh else min(2 * known[0], longest), now)
        return 0.0

    def _say_fallen(self, daemonset: JsonObject, work: Difference) -> None:
        for pod in work.fallen:
            meta, is_failed = pod["metadata"], phase(pod) == "Failed"
            name = f"{meta['namespace']}/{meta['name']} on node {target_node(pod)}"
            said = Event("Normal", "SucceededDaemonPod", f"Found succeeded daemon pod {name}, will try to delete it")
            if is_failed:
                said = Event("Warning", "FailedDaemonPod", f"Found failed daemon pod {name}, will try to kill it")
            self.recorder.event(daemonset, said)

    # -- revisions

    async def _history(self, key: Key, daemonset: JsonObject) -> tuple[JsonObject, list[JsonObject]]:
        """The revision of the template as it is (found, renumbered or made), and all others (constructHistory)."""
        found = [await self._labelled(key, one) for one in await self.claimed_of(key, daemonset, self._revisions)]
        data = history.snapshot(daemonset)
        same = history.in_order(one for one in found if one["data"] == data)
        old = [one for one in found if one["data"] != data]
        number = history.next_number(old)
        if not same:
            return await self._made(key, daemonset, number), old
        current = same[-1]
        if len(same) > 1:
            await self._merge(key, daemonset, same)
        if current["revision"] < number:
            await self.carry_out(key, Replace(REVISIONS, {**current, "revision": number}))
        return current, old

    async def _labelled(self, key: Key, revision: JsonObject) -> JsonObject:
        """The revision with its hash label; one that an older client made lacks it."""
        labels = labels_of(revision)
        if history.HASH_LABEL in labels:
            return revision
        named = {**labels, history.HASH_LABEL: revision["metadata"]["name"]}
        answer = await self.carry_out(key, Replace(REVISIONS, with_metadata(revision, labels=named)))
        assert answer is not None
        return answer

    async def _merge(self, key: Key, daemonset: JsonObject, same: list[JsonObject]) -> None:
        """Several revisions of one template: the pods are relabelled to the last, the others go."""
        digest = labels_of(same[-1])[history.HASH_LABEL]
        for pod in await self.claimed(key, daemonset):
            if labels_of(pod).get(history.HASH_LABEL) != digest:
                body = {"metadata": {"labels": {history.HASH_LABEL: digest}}}
                await self.carry_out(key, Amend(PODS, key_of(pod), Patch(body)))
        for one in same[:-1]:
            await self.carry_out(key, Remove(REVISIONS, key_of(one)))

    async def _made(self, key: Key, daemonset: JsonObject, number: int) -> JsonObject:
        """A new revision. A name that another template has raises the collision count and the error."""
        wanted = history.new_revision(daemonset, number, template_hash(daemonset), history.HASH_LABEL)
        try:
            answer = await self.carry_out(key, Create(REVISIONS, wanted))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            taken = await self.api.get(REVISIONS, wanted["metadata"]["name"], key[0])
            if taken["data"] == wanted["data"]:
                return taken
            before = daemonset.get("status") or {}
            bumped = {**before, "collisionCount": int(before.get("collisionCount") or 0) + 1}
            await self.carry_out(key, Replace(DAEMONSETS, {**daemonset, "status": bumped}, "status"))
            raise
        assert answer is not None
        return answer

    async def _forget(self, key: Key, daemonset: JsonObject, old: list[JsonObject], pods: list[JsonObject]) -> None:
        """Delete the oldest revisions beyond the limit that no pod is of."""
        limit = daemonset["spec"].get("revisionHistoryLimit")
        surplus = len(old) - (10 if limit is None else int(limit))
        hashes = {labels_of(pod).get(history.HASH_LABEL) for pod in pods}
        idle = [one for one in history.in_order(old) if labels_of(one).get(history.HASH_LABEL) not in hashes]
        for one in idle[: max(0, surplus)]:
            await self.carry_out(key, Remove(REVISIONS, key_of(one)))
