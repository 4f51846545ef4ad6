"""The scheduler: gives each pending pod a node, the least loaded of those that will have it.

Filters are those of the real one that a lab can be asked about (cordon, taints, nodeSelector, required node
affinity, host ports, the pods a node takes); the score is the number of pods, then the node's name, so that a seed's
run repeats. A pod no node will have waits for a node or a pod to change; nothing polls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tidegate import vtime
from tidegate.kube.api import NODES, PODS, Api, JsonObject, Patch
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.affinity import fits_selectors
from tidegate.lab.controllers.cache import Caches
from tidegate.lab.controllers.labels import labels_of
from tidegate.lab.controllers.pods import condition, is_terminal, is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.taints import UNSCHEDULABLE, untolerated, wanted_taints
from tidegate.lab.events import Event, Recorder, Source
from tidegate.lab.instants import stamp
from tidegate.vtime import Nursery

NAME = "default-scheduler"
_PODS_MAX = 110
"""Pods on a node that does not say (kubelet's maxPods)."""

_BLIND_ALLEY = "Preemption is not helpful for scheduling."


HostPorts = frozenset[tuple[str, int]]
"""(protocol, port) on a node's own address: hostPort, and every port of a hostNetwork pod."""


def host_ports(pod: JsonObject) -> HostPorts:
    """The ports a pod takes of its node (plugins/nodeports)."""
    spec = pod["spec"]
    sidecars = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    declared = [port for one in (*spec.get("containers", ()), *sidecars) for port in one.get("ports") or ()]
    return frozenset((port.get("protocol") or "TCP", port["hostPort"]) for port in declared if port.get("hostPort"))


@dataclass(frozen=True, slots=True)
class View:
    """One pod, the nodes, and how many pods each node has."""

    pod: JsonObject
    nodes: tuple[JsonObject, ...]
    load: Mapping[str, int]
    now: datetime
    host_ports: Mapping[str, HostPorts] = field(default_factory=dict)
    """What is taken on each node."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The node chosen, or why none was (``message`` as the real scheduler words it)."""

    node: str
    message: str = ""


def obstacle(view: View, node: JsonObject) -> str:
    """Why a node will not have the pod; "" when it will."""
    taint = untolerated(view.pod, wanted_taints(node, view.now), ("NoSchedule", "NoExecute"))
    if taint is not None:
        unschedulable = taint["key"] == UNSCHEDULABLE
        return "node(s) were unschedulable" if unschedulable else "node(s) had untolerated taint(s)"
    if not fits_selectors(view.pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    if host_ports(view.pod) & view.host_ports.get(node["metadata"]["name"], frozenset()):
        return "node(s) didn't have free ports for the requested pod ports"
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    if view.load.get(node["metadata"]["name"], 0) >= int(allocatable.get("pods") or _PODS_MAX):
        return "Too many pods"
    return ""


def choose(view: View) -> Choice:
    """The least loaded node without an obstacle, by name among equals."""
    if not view.nodes:
        return Choice("", "no nodes available to schedule pods")
    obstacles = {node["metadata"]["name"]: obstacle(view, node) for node in view.nodes}
    fitting = [name for name, why in obstacles.items() if not why]
    if fitting:
        return Choice(min(fitting, key=lambda name: (view.load.get(name, 0), name)))
    reasons = Counter(obstacles.values())
    total = f"0/{len(view.nodes)} nodes are available"
    said = ", ".join(sorted(f"{count} {why}" for why, count in reasons.items()))
    hopeless = f"preemption: {total}: {len(view.nodes)} {_BLIND_ALLEY}"
    return Choice("", f"{total}: {said}. no new claims to deallocate, {hopeless}")


class Scheduler(Controller):
    """Keys are pods."""

    component = NAME
    workers = 1

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.recorder = Recorder(world.api, Source(NAME, host="lab", modern=True))
        self._pods, self._nodes = self.cache(PODS), self.cache(NODES)
        self._placed: dict[Key, str] = {}
        self._load: Counter[str] = Counter()
        self._stuck: dict[Key, None] = {}
        self._pods.subscribe(self._pod_changed)
        self._nodes.subscribe(self._node_changed)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        obj = new or old
        assert obj is not None
        key, node = key_of(obj), obj["spec"].get("nodeName") or ""
        if new is None or is_terminal(new):
            self._stuck.pop(key, None)
            if self._place(key, ""):
                self._wake(self._stuck)
        elif node:
            self._place(key, node)
        elif is_pending(new) and (old is None or old["spec"] != new["spec"]):
            self.queue.add(key)

    def _node_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None and (old is None or _scheduling_inputs(old) != _scheduling_inputs(new)):
            self._wake(self._stuck)

    def _wake(self, keys: Iterable[Key]) -> None:
        for key in list(keys):
            self.queue.add(key)

    def _place(self, key: Key, node: str) -> bool:
        """Count the pod on ``node`` ("" = nowhere), from its binding on; True when it left a node."""
        before = self._placed.pop(key, "")
        if before:
            self._load[before] -= 1
        if node:
            self._placed[key] = node
            self._load[node] += 1
        return bool(before) and before != node

    async def reconcile(self, key: Key) -> float | None:
        pod = self._pods.get(key)
        if pod is None or not is_pending(pod):
            self._stuck.pop(key, None)
            return None
        choice = choose(View(pod, tuple(self._nodes.all()), self._load, vtime.now(), self._taken(pod)))
        if not choice.node:
            self._stuck[key] = None
            await self._refuse(key, pod, choice.message)
            return None
        self._stuck.pop(key, None)
        await self._bind(key, pod, choice.node)
        return None

    def _taken(self, pod: JsonObject) -> dict[str, HostPorts]:
        """Host ports in use by node; not worked out for a pod that wants none."""
        taken: dict[str, HostPorts] = {}
        if host_ports(pod):
            for key, node in self._placed.items():
                held = self._pods.get(key)
                if held is not None:
                    taken[node] = taken.get(node, frozenset()) | host_ports(held)
        return taken

    async def _bind(self, key: Key, pod: JsonObject, node: str) -> None:
        self._place(key, node)
        meta = {"name": key[1], "namespace": key[0], "uid": pod["metadata"]["uid"]}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        try:
            await self.api.create(PODS, binding, key[0], "binding")
        except ApiError as error:
            self._place(key, "")
            if error.is_not_found or error.is_conflict:
                return
            raise
        text = f"Successfully assigned {key[0]}/{key[1]} to {node}"
        self.recorder.event(pod, Event("Normal", "Scheduled", text, action="Binding"))

    async def _refuse(self, key: Key, pod: JsonObject, message: str) -> None:
        before = condition(pod, "PodScheduled")
        self.recorder.event(pod, Event("Warning", "FailedScheduling", message, action="Scheduling"))
        if before is not None and before["status"] == "False" and before.get("message") == message:
            return
        since = before["lastTransitionTime"] if before and before["status"] == "False" else stamp(vtime.now())
        made = {"type": "PodScheduled", "status": "False", "lastProbeTime": None, "lastTransitionTime": since}
        made |= {"reason": "Unschedulable", "message": message}
        kept = [one for one in (pod.get("status") or {}).get("conditions") or () if one["type"] != "PodScheduled"]
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [*kept, made]}}
        try:
            await self.api.patch(PODS, key[1], Patch(body, subresource="status"), key[0])
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise


def is_pending(pod: JsonObject) -> bool:
    """True for a pod of ours that waits for a node."""
    spec = pod["spec"]
    ours = (spec.get("schedulerName") or NAME) == NAME and not spec.get("schedulingGates")
    return ours and not spec.get("nodeName") and not is_terminating(pod) and not is_terminal(pod)


def _scheduling_inputs(node: JsonObject) -> tuple[object, ...]:
    status = node.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    return node.get("spec"), labels_of(node), status.get("allocatable"), conditions


async def run_scheduler(api: Api) -> None:
    """Schedule for ever. Nothing is drawn at random: a choice follows from load and names alone."""
    world = World(api, Caches(api), LabConfig())
    scheduler = Scheduler(world)
    async with Nursery() as nursery:
        nursery.start(world.caches.run(), name="scheduler's caches")
        nursery.start(scheduler.run(), name=NAME)
