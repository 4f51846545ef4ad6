"""The pod garbage collector: pods that no kubelet will ever end (pkg/controller/podgc).

Pods bound to a node that is gone for 40 s, terminating pods that were never scheduled, and terminating pods on
a node tainted out-of-service are deleted with grace 0.
"""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import NODES, PODS, Deletion, JsonObject, Patch
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key
from tidegate.lab.controllers.pods import condition, is_terminal, is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.taints import OUT_OF_SERVICE, taints_of
from tidegate.lab.controllers.writes import Amend, Remove
from tidegate.lab.instants import stamp

QUARANTINE_SECONDS = 40.0


class PodCollector(Controller):
    """Keys are pods."""

    component = "pod-garbage-collector"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._nodes, self._pods = self.cache(NODES), self.cache(PODS)
        self._missing_since: dict[str, float] = {}
        self._nodes.subscribe(self._node_changed)
        self._pods.subscribe(self._pod_changed)

    def _node_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        obj = new or old
        assert obj is not None
        name = obj["metadata"]["name"]
        if new is not None:
            self._missing_since.pop(name, None)
            if old is None or taints_of(old) == taints_of(new):
                return
        for pod in self._pods.all():
            if pod["spec"].get("nodeName") == name:
                self.enqueue(pod)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None:
            return
        node = new["spec"].get("nodeName") or ""
        if is_terminating(new) or (node and self._nodes.get(("", node)) is None):
            self.enqueue(new)

    async def reconcile(self, key: Key) -> float | None:
        pod = self._pods.get(key)
        if pod is None:
            return None
        name = pod["spec"].get("nodeName") or ""
        if not name:
            if is_terminating(pod):
                await self._remove(key, pod)
            return None
        node = self._nodes.get(("", name))
        if node is not None:
            ready = condition(node, "Ready")
            is_out = any(taint["key"] == OUT_OF_SERVICE for taint in taints_of(node))
            if is_terminating(pod) and is_out and (ready is None or ready["status"] != "True"):
                await self._remove(key, pod)
            return None
        now = asyncio.get_running_loop().time()
        left = self._missing_since.setdefault(name, now) + QUARANTINE_SECONDS - now
        if left > 0:
            return left
        if await self._is_really_gone(name):
            await self._remove(key, pod)
        return None

    async def _is_really_gone(self, node: str) -> bool:
        try:
            await self.api.get(NODES, node)
        except ApiError as error:
            if error.is_not_found:
                return True
            raise
        return False

    async def _remove(self, key: Key, pod: JsonObject) -> None:
        """Fail a pod that did not end by itself, then delete it at once."""
        try:
            if not is_terminal(pod) and not is_terminating(pod):
                status = {**(pod.get("status") or {}), "phase": "Failed"}
                text = "PodGC: node no longer exists"
                said = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": text}
                kept = [one for one in status.get("conditions") or () if one["type"] != "DisruptionTarget"]
                status["conditions"] = [*kept, {**said, "lastTransitionTime": stamp(vtime.now())}]
                await self.carry_out(key, Amend(PODS, key, Patch({"status": status}, subresource="status")))
            options = Deletion(grace_seconds=0, uid=pod["metadata"]["uid"])
            await self.carry_out(key, Remove(PODS, key, options))
        except ApiError as error:
            if not error.is_not_found:
                raise
