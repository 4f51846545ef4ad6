"""The node lifecycle controller: a node that is not heard of becomes Unknown, and is tainted accordingly.

Event-driven: every lease renewal moves the instant at which the node counts as lost; nothing polls. The grace
is the real one since 1.32 (pkg/controller/nodelifecycle, node-monitor-grace-period 50 s).
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from tidegate import vtime
from tidegate.kube.api import LEASES, NODES, PODS, JsonObject, Patch
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.pods import condition, is_ready
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.taints import taints_of, wanted_taints
from tidegate.lab.controllers.writes import Amend, Replace
from tidegate.lab.events import Event
from tidegate.lab.instants import stamp

GRACE_SECONDS = 50.0
LEASE_NAMESPACE = "kube-node-lease"
_UNKNOWN_KINDS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def lost(node: JsonObject, now: datetime) -> list[JsonObject]:
    """The node's conditions once its kubelet is silent."""
    conditions = list((node.get("status") or {}).get("conditions") or ())
    words = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
    result = []
    for found in conditions:
        if found["type"] in _UNKNOWN_KINDS and found["status"] != "Unknown":
            found = {**found, "status": "Unknown", "lastTransitionTime": stamp(now), **words}
        result.append(found)
    return result


def unready(pod: JsonObject, now: datetime) -> list[JsonObject]:
    """The pod's conditions on a node that is not ready: Ready is False, the rest stands."""
    return [
        {**found, "status": "False", "lastTransitionTime": stamp(now)}
        if found["type"] == "Ready" and found["status"] == "True"
        else found
        for found in (pod.get("status") or {}).get("conditions") or ()
    ]


class NodeController(Controller):
    """Keys are ("", node name)."""

    component = "node-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._nodes, self._leases, self._pods = map(self.cache, (NODES, LEASES, PODS))
        self._heard: dict[str, float] = {}
        self._nodes.subscribe(self._node_changed)
        self._leases.subscribe(self._lease_changed)

    def _node_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None:
            assert old is not None
            self._heard.pop(old["metadata"]["name"], None)
            return
        ready, before = condition(new, "Ready"), condition(old, "Ready") if old else None
        if ready is not None and (before or {}).get("lastHeartbeatTime") != ready.get("lastHeartbeatTime"):
            self._hear(new["metadata"]["name"])
        self.enqueue(new)

    def _lease_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """A renewal is only noted: the alarm of the node, when it rings, looks at the latest note."""
        if new is None or new["metadata"]["namespace"] != LEASE_NAMESPACE:
            return
        name = new["metadata"]["name"]
        self._hear(name)
        if old is None:
            self.queue.add(("", name))

    def _hear(self, node: str) -> None:
        self._heard[node] = asyncio.get_running_loop().time()

    async def reconcile(self, key: Key) -> float | None:
        node = self._nodes.get(key)
        if node is None:
            return None
        now, name = vtime.now(), key[1]
        left = self._seconds_left(name)
        ready = condition(node, "Ready")
        if left is not None and left <= 0 and ready is not None and ready["status"] != "Unknown":
            status = {**node["status"], "conditions": lost(node, now)}
            said = Event("Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
            self.recorder.event(node, said)
            await self.carry_out(key, Replace(NODES, {**node, "status": status}, "status"))
            return 0.0
        wanted = wanted_taints(node, now)
        if wanted != taints_of(node):
            body = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}}
            body["spec"] = {"taints": wanted or None}
            await self.carry_out(key, Amend(NODES, key, Patch(body)))
        if ready is not None and ready["status"] != "True":
            await self._mark_pods(key, now)
        return max(left, 0.001) if left is not None and left > 0 else None

    def _seconds_left(self, name: str) -> float | None:
        """Until the node counts as lost; None for a node without a lease (nothing is known of its kubelet)."""
        if self._leases.get((LEASE_NAMESPACE, name)) is None or name not in self._heard:
            return None
        return self._heard[name] + GRACE_SECONDS - asyncio.get_running_loop().time()

    async def _mark_pods(self, key: Key, now: datetime) -> None:
        """Take the pods of a silent node out of their Services (MarkPodsNotReady)."""
        for pod in list(self._pods.all()):
            if pod["spec"].get("nodeName") == key[1] and is_ready(pod):
                status = {**pod["status"], "conditions": unready(pod, now)}
                self.recorder.event(pod, Event("Warning", "NodeNotReady", "Node is not ready"))
                body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
                await self.carry_out(key, Amend(PODS, key_of(pod), Patch(body, subresource="status")))
