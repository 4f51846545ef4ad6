"""The taint eviction controller: pods leave a node whose NoExecute taints they do not (or no longer) tolerate."""

from __future__ import annotations

from tidegate import vtime
from tidegate.kube.api import NODES, PODS, Deletion, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.taints import evicted_at, taints_of
from tidegate.lab.controllers.writes import Remove
from tidegate.lab.events import Event


class TaintEvictionController(Controller):
    """Keys are pods; woken by the taints of their node."""

    component = "taint-eviction-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._nodes, self._pods = self.cache(NODES), self.cache(PODS)
        self._nodes.subscribe(self._node_changed)
        self._pods.subscribe(self._pod_changed)

    def _node_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None or (taints_of(old) if old else []) == taints_of(new):
            return
        for pod in self._pods.all():
            if pod["spec"].get("nodeName") == new["metadata"]["name"]:
                self.enqueue(pod)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None or not new["spec"].get("nodeName"):
            return
        if old is None or not old["spec"].get("nodeName"):
            self.enqueue(new)

    async def reconcile(self, key: Key) -> float | None:
        pod = self._pods.get(key)
        node = self._nodes.get(("", pod["spec"].get("nodeName") or "")) if pod is not None else None
        if pod is None or node is None or is_terminating(pod):
            return None
        now = vtime.now()
        at = evicted_at(pod, taints_of(node), now)
        if at is None:
            return None
        if at > now:
            return (at - now).total_seconds()
        text = f"Marking for deletion Pod {key[0]}/{key[1]}"
        self.recorder.event(pod, Event("Normal", "TaintManagerEviction", text))
        try:
            await self.carry_out(key, Remove(PODS, key, Deletion(uid=pod["metadata"]["uid"])))
        except ApiError as error:
            if not error.is_not_found:
                raise
        return None
