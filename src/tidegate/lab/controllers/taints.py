"""Taints and tolerations: what a node asks for, what a pod puts up with, and for how long."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.pods import condition
from tidegate.lab.instants import parse_stamp, stamp

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
}
_MANAGED = frozenset({UNSCHEDULABLE, NOT_READY, UNREACHABLE, *_PRESSURES.values()})


def taints_of(node: JsonObject) -> list[JsonObject]:
    """spec.taints; empty when absent."""
    return node["spec"].get("taints") or [] if node.get("spec") else []


def wanted_taints(node: JsonObject, now: datetime) -> list[JsonObject]:
    """The node's taints with those that follow from its conditions and cordon put right.

    Foreign taints stay where they are; a taint that stays keeps its timeAdded.
    """
    needed: list[tuple[str, str]] = []
    ready = condition(node, "Ready")
    if ready is not None and ready["status"] != "True":
        key = NOT_READY if ready["status"] == "False" else UNREACHABLE
        needed += [(key, "NoSchedule"), (key, "NoExecute")]
    for kind, key in _PRESSURES.items():
        found = condition(node, kind)
        if found is not None and found["status"] == "True":
            needed.append((key, "NoSchedule"))
    if (node.get("spec") or {}).get("unschedulable"):
        needed.append((UNSCHEDULABLE, "NoSchedule"))
    kept = [
        taint for taint in taints_of(node) if taint["key"] not in _MANAGED or (taint["key"], taint["effect"]) in needed
    ]
    present = {(taint["key"], taint["effect"]) for taint in kept}
    added = [
        {"key": key, "effect": effect, "timeAdded": stamp(now)}
        for key, effect in needed
        if (key, effect) not in present
    ]
    return [*kept, *added]


def tolerates(toleration: JsonObject, taint: JsonObject) -> bool:
    """Toleration.ToleratesTaint: empty effect and key match all; Exists ignores the value."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def untolerated(pod: JsonObject, taints: Iterable[JsonObject], effects: Iterable[str]) -> JsonObject | None:
    """The first taint with one of ``effects`` that the pod does not put up with."""
    tolerations, wanted = pod["spec"].get("tolerations") or (), tuple(effects)
    for taint in taints:
        if taint["effect"] in wanted and not any(tolerates(one, taint) for one in tolerations):
            return taint
    return None


def evicted_at(pod: JsonObject, taints: Iterable[JsonObject], now: datetime) -> datetime | None:
    """When NoExecute taints end the pod: now, the shortest toleration after, or never (None)."""
    deadline: datetime | None = None
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in taints:
        if taint["effect"] != "NoExecute":
            continue
        fitting = [one for one in tolerations if tolerates(one, taint)]
        if not fitting:
            return now
        limits = [one["tolerationSeconds"] for one in fitting if one.get("tolerationSeconds") is not None]
        if limits:
            since = parse_stamp(taint.get("timeAdded")) or now
            ends = since + timedelta(seconds=max(0, min(limits)))
            deadline = ends if deadline is None else min(deadline, ends)
    return deadline
