"""Whether StatefulSets, DaemonSets and Jobs still have something to do, as far as objects tell.

A control plane on a busy machine can be quiet for longer than any rest: what is not yet done is told from the objects.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.affinity import target_node
from tidegate.lab.controllers.labels import labels_of, matches

_HASH = "controller-revision-hash"


def is_over(job: JsonObject) -> bool:
    """Complete or Failed."""
    return any(one["type"] in ("Complete", "Failed") for one in job["status"].get("conditions") or ())


def has_settled(obj: JsonObject, pods: list[JsonObject], ready: Counter[str]) -> bool:
    """Its pods are claimed, made, ended and counted. ``ready`` counts the ready pods by their owners' uids."""
    if obj["kind"] == "Job" and is_over(obj):
        return True
    if any(is_to_be_claimed(pod, obj) for pod in pods):
        return False
    mine = [pod for pod in pods if _is_owned(pod, obj)]
    if obj["kind"] == "Job":
        return _has_counted(obj, mine, ready[obj["metadata"]["uid"]])
    if obj["status"].get("observedGeneration") != obj["metadata"]["generation"]:
        return False
    if obj["kind"] == "DaemonSet":
        return _covers_nodes(obj, mine, ready[obj["metadata"]["uid"]])
    return _has_ordinals(obj, mine, [pod["metadata"]["name"] for pod in pods], ready[obj["metadata"]["uid"]])


def _is_owned(pod: JsonObject, obj: JsonObject) -> bool:
    return any(one["uid"] == obj["metadata"]["uid"] for one in pod["metadata"].get("ownerReferences") or ())


def is_to_be_claimed(pod: JsonObject, obj: JsonObject) -> bool:
    """A pod that it has yet to adopt or to let go."""
    fits = matches(obj["spec"]["selector"], labels_of(pod))
    if obj["kind"] == "StatefulSet":
        fits = fits and bool(re.fullmatch(rf"{obj['metadata']['name']}-\d+", pod["metadata"]["name"]))
    is_foreign = bool(pod["metadata"].get("ownerReferences")) and not _is_owned(pod, obj)
    return fits != _is_owned(pod, obj) and not is_foreign


def _has_counted(job: JsonObject, mine: list[JsonObject], ready: int) -> bool:
    status = job["status"]
    ended = [pod for pod in mine if pod["status"]["phase"] in ("Succeeded", "Failed")]
    if status.get("uncountedTerminatedPods") or any(pod["metadata"].get("finalizers") for pod in ended):
        return False
    counts = (status.get("active", 0), status.get("ready"), status.get("terminating"))
    return counts == (len(mine) - len(ended), ready, 0)


def _covers_nodes(daemonset: JsonObject, mine: list[JsonObject], ready: int) -> bool:
    status, spec = daemonset["status"], daemonset["spec"]
    desired = status["desiredNumberScheduled"]
    updated = desired if spec["updateStrategy"]["type"] == "OnDelete" else status.get("updatedNumberScheduled", 0)
    counts = (status["currentNumberScheduled"], updated, status["numberReady"] + status["numberMisscheduled"])
    alone = all(count == 1 for count in Counter(map(target_node, mine)).values())
    return alone and counts == (desired, desired, ready) and len(mine) == ready


def _has_ordinals(stateful: JsonObject, mine: list[JsonObject], names: Iterable[str], ready: int) -> bool:
    """Every pod it wants, at the revision it wants, and none beyond; or one whose name another has."""
    status, spec = stateful["status"], stateful["spec"]
    if (status.get("replicas"), status.get("readyReplicas", 0)) != (len(mine), ready):
        return False
    start = (spec.get("ordinals") or {}).get("start") or 0
    wanted = [f"{stateful['metadata']['name']}-{start + index}" for index in range(spec["replicas"])]
    held = {pod["metadata"]["name"] for pod in mine}
    if any(name in names and name not in held for name in wanted):
        return True  # in the way: nothing more can be told from here
    strategy = spec["updateStrategy"]
    rolled = (
        strategy.get("rollingUpdate", {}).get("partition", 0) if strategy["type"] == "RollingUpdate" else len(wanted)
    )
    new = {pod["metadata"]["name"] for pod in mine if labels_of(pod).get(_HASH) == status.get("updateRevision")}
    return held == set(wanted) and all(name in new for name in wanted[rolled:])
