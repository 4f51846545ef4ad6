"""Pods of a DaemonSet: which nodes want one, what is missing or too much on each, and the pod for a node.

Follows pkg/controller/daemon/daemon_controller.go (podsShouldBeOnNode, NodeShouldRunDaemonPod) and util.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.affinity import bound_for, fits_selectors, target_node
from tidegate.lab.controllers.fenceposts import scaled
from tidegate.lab.controllers.history import HASH_LABEL
from tidegate.lab.controllers.keeper import pod_from_template
from tidegate.lab.controllers.labels import annotations_of, labels_of
from tidegate.lab.controllers.pods import is_available, is_ready, is_terminal, is_terminating, phase
from tidegate.lab.controllers.taints import NOT_READY, UNREACHABLE, UNSCHEDULABLE, taints_of, untolerated

GENERATION = "deprecated.daemonset.template.generation"
GENERATION_LABEL = "pod-template-generation"
_NODE = "node.kubernetes.io/"
_TOLERATED = (
    (NOT_READY, "NoExecute"),
    (UNREACHABLE, "NoExecute"),
    (f"{_NODE}disk-pressure", "NoSchedule"),
    (f"{_NODE}memory-pressure", "NoSchedule"),
    (f"{_NODE}pid-pressure", "NoSchedule"),
    (UNSCHEDULABLE, "NoSchedule"),
)
"""What every pod of a DaemonSet puts up with, for ever."""


@dataclass(frozen=True, slots=True)
class View:
    """All that one pass may look at. ``pods`` are claimed; ``digest`` is the hash of the current revision."""

    daemonset: JsonObject
    nodes: tuple[JsonObject, ...]
    pods: tuple[JsonObject, ...]
    digest: str
    now: datetime

    @property
    def patience(self) -> int:
        return int(self.daemonset["spec"].get("minReadySeconds") or 0)

    def by_node(self) -> dict[str, list[JsonObject]]:
        """The pods by the node they are on or meant for; what has ended and is being deleted is left out."""
        found: dict[str, list[JsonObject]] = {}
        for pod in self.pods:
            if (is_terminal(pod) and is_terminating(pod)) or not (node := target_node(pod)):
                continue
            found.setdefault(node, []).append(pod)
        return found

    def is_available(self, pod: JsonObject) -> bool:
        return is_available(pod, self.patience, self.now)

    def is_updated(self, pod: JsonObject) -> bool:
        """Of the current template, by its hash or by the generation that older clients count."""
        labels, generation = labels_of(pod), annotations_of(self.daemonset).get(GENERATION)
        if generation is not None and labels.get(GENERATION_LABEL) == generation:
            return True
        return bool(self.digest) and labels.get(HASH_LABEL) == self.digest


@dataclass(frozen=True, slots=True)
class Difference:
    """Nodes to create a pod on and pods to delete; why a pod that ended goes (``fallen``); when to look again."""

    create: tuple[str, ...] = ()
    delete: tuple[JsonObject, ...] = ()
    fallen: tuple[JsonObject, ...] = ()
    after_seconds: float | None = None


def tolerant(spec: JsonObject) -> JsonObject:
    """A pod spec with the tolerations every daemon has."""
    wanted = [*_TOLERATED, *([(f"{_NODE}network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else [])]
    tolerations = list(spec.get("tolerations") or ())
    for key, effect in wanted:
        new = {"key": key, "operator": "Exists", "effect": effect}
        same = [index for index, held in enumerate(tolerations) if _is_like(held, new)]
        if same:
            tolerations[same[0]] = new
        else:
            tolerations.append(new)
    return {**spec, "tolerations": tolerations}


def _is_like(held: JsonObject, new: JsonObject) -> bool:
    return all((held.get(key) or "") == (new.get(key) or "") for key in ("key", "operator", "effect", "value"))


def new_pod(view: View, node: str) -> JsonObject:
    """The pod for one node: the scheduler binds it there by name."""
    daemonset = view.daemonset
    pod = pod_from_template(daemonset, daemonset["spec"]["template"])
    labels = dict(labels_of(pod))
    generation = annotations_of(daemonset).get(GENERATION)
    if generation is not None and generation.lstrip("-").isdigit():
        labels[GENERATION_LABEL] = generation
    labels[HASH_LABEL] = view.digest
    spec = bound_for(tolerant(pod["spec"]), node)
    return {**pod, "metadata": {**pod["metadata"], "labels": labels}, "spec": spec}


def wants(daemonset: JsonObject, node: JsonObject) -> tuple[bool, bool]:
    """Whether a pod should start on the node, and whether one that is there may stay."""
    spec = tolerant(daemonset["spec"]["template"]["spec"])
    named = spec.get("nodeName")
    pod = {"metadata": {}, "spec": spec}
    if (named and named != node["metadata"]["name"]) or not fits_selectors(pod, node):
        return False, False
    taints = taints_of(node)
    if untolerated(pod, taints, ("NoSchedule", "NoExecute")) is None:
        return True, True
    return False, untolerated(pod, taints, ("NoExecute",)) is None


def surges(daemonset: JsonObject) -> bool:
    """True when a node may have an old and a new pod at once."""
    return limits(daemonset, 1)[0] > 0


def limits(daemonset: JsonObject, desired: int) -> tuple[int, int]:
    """maxSurge and maxUnavailable as counts; percentages round up, and two zeros would never end."""
    strategy = daemonset["spec"].get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    surge = scaled(rolling.get("maxSurge"), desired, up=True)
    return surge, scaled(rolling.get("maxUnavailable"), desired, up=True)


def age(pod: JsonObject) -> tuple[bool, str, str]:
    """Sort key: scheduled first, then the oldest, then by name."""
    meta = pod["metadata"]
    return not pod["spec"].get("nodeName"), meta.get("creationTimestamp") or "", meta["name"]


def difference(view: View, held_seconds: Callable[[str], float]) -> Difference:
    """What to create and delete on each node. ``held_seconds``: how long a failed pod on a node must stay yet."""
    by_node, create = view.by_node(), []
    delete: list[JsonObject] = []
    fallen: list[JsonObject] = []
    waits: list[float] = []
    for node in view.nodes:
        name = node["metadata"]["name"]
        should_run, may_stay = wants(view.daemonset, node)
        pods = by_node.get(name, [])
        if should_run and not pods:
            create.append(name)
        elif may_stay:
            ended = [pod for pod in pods if is_terminal(pod) and not is_terminating(pod)]
            if any(phase(pod) == "Failed" for pod in ended) and (held := held_seconds(name)):
                waits.append(held)
                ended = [pod for pod in ended if phase(pod) != "Failed"]
            fallen += ended
            running = [pod for pod in pods if not is_terminal(pod) and not is_terminating(pod)]
            delete += [*ended, *_excess(view, sorted(running, key=age))]
            if surges(view.daemonset) and not running and should_run:
                create.append(name)
        else:
            delete += [pod for pod in pods if not is_terminating(pod)]
    known = {node["metadata"]["name"] for node in view.nodes}
    delete += [pod for name, pods in by_node.items() if name not in known for pod in pods if _is_unbound(pod)]
    return Difference(tuple(create), tuple(delete), tuple(fallen), min(waits, default=None))


def _is_unbound(pod: JsonObject) -> bool:
    """Meant for a node that is not there: no scheduler will place it and no kubelet will end it."""
    return not pod["spec"].get("nodeName")


def _excess(view: View, running: list[JsonObject]) -> list[JsonObject]:
    """All but the oldest; surging, all but the oldest of either version, and the old one once it is not needed."""
    if not surges(view.daemonset):
        return running[1:]
    if len(running) <= 1:
        return []
    new = [pod for pod in running if labels_of(pod).get(HASH_LABEL) == view.digest]
    old = [pod for pod in running if labels_of(pod).get(HASH_LABEL) != view.digest]
    kept = [*new[:1], *old[:1]]
    excess = [pod for pod in running if pod not in kept]
    if new and old and (not is_ready(old[0]) or view.is_available(new[0])):
        excess.append(old[0])
    return excess
