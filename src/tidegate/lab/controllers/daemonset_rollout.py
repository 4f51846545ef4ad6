"""How a DaemonSet comes to a new template, node by node, and its status (pkg/controller/daemon/update.go)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.daemonset_nodes import Difference, View, age, limits, wants
from tidegate.lab.controllers.pods import is_ready, is_terminating


@dataclass(slots=True)
class _Tally:
    """What one look at all nodes found. ``must`` go or come whatever the limits say, ``may`` within them."""

    busy: int = 0
    available: int = 0
    must_delete: list[JsonObject] = field(default_factory=list)
    may_delete: list[JsonObject] = field(default_factory=list)
    unwanted: list[JsonObject] = field(default_factory=list)
    must_create: list[str] = field(default_factory=list)
    may_create: list[str] = field(default_factory=list)


def rollout(view: View) -> Difference:
    """The old pods to delete now, or (with maxSurge) the nodes to start a new pod on beside the old one."""
    by_node = view.by_node()
    wanting = [node["metadata"]["name"] for node in view.nodes if wants(view.daemonset, node)[0]]
    for name in wanting:
        by_node.setdefault(name, [])
    surge, unavailable = limits(view.daemonset, len(wanting))
    if not surge and not unavailable:
        unavailable = 1
    tally = _Tally()
    if not surge:
        for pods in by_node.values():
            _count_replacing(view, pods, unavailable, tally)
        spare = max(0, unavailable - tally.busy)
        return Difference(delete=(*tally.must_delete, *tally.may_delete[:spare]))
    for name, pods in by_node.items():
        _count_surging(view, name, pods, surge, tally)
    beyond = max(0, tally.available - len(wanting))
    spare = max(0, surge - tally.busy)
    return Difference(
        create=(*tally.must_create, *tally.may_create[:spare]),
        delete=(*tally.must_delete, *tally.unwanted[:beyond]),
    )


def _versions(view: View, pods: list[JsonObject]) -> tuple[JsonObject | None, JsonObject | None] | None:
    """The new and the old pod that stay on a node; None when there is more than one of either."""
    staying = [pod for pod in pods if not is_terminating(pod)]
    new = [pod for pod in staying if view.is_updated(pod)]
    old = [pod for pod in staying if not view.is_updated(pod)]
    if len(new) > 1 or len(old) > 1:
        return None
    return (new[0] if new else None), (old[0] if old else None)


def _count_replacing(view: View, pods: list[JsonObject], unavailable: int, tally: _Tally) -> None:
    """One node of an update without surge: an old pod that serves nobody may go at once."""
    found = _versions(view, pods)
    if found is None or (found[0] is None) == (found[1] is None):
        tally.busy += 1
        return
    new, old = found
    if old is None:
        assert new is not None
        tally.busy += not view.is_available(new)
    elif not view.is_available(old):
        tally.must_delete.append(old)
        tally.busy += 1
    elif tally.busy < unavailable:
        tally.may_delete.append(old)


def _count_surging(view: View, name: str, pods: list[JsonObject], surge: int, tally: _Tally) -> None:
    """One node of an update with surge: the old pod goes when the new one beside it is available."""
    found = _versions(view, pods)
    if found is None:
        tally.busy += 1
        return
    new, old = found
    first = old or new
    tally.available += first is not None and view.is_available(first)
    if old is None:
        return
    if new is not None:
        if view.is_available(new):
            tally.must_delete.append(old)
        else:
            tally.busy += 1
        return
    node = next((one for one in view.nodes if one["metadata"]["name"] == name), None)
    should_run = node is not None and wants(view.daemonset, node)[0]
    if not view.is_available(old):
        if should_run:
            tally.must_create.append(name)
        else:
            tally.must_delete.append(old)
    elif not should_run:
        tally.unwanted.append(old)
    elif tally.busy < surge:
        tally.may_create.append(name)


def status(view: View) -> JsonObject:
    """The status by node; of several pods on one node the oldest counts."""
    by_node = view.by_node()
    counts = dict.fromkeys(("desired", "current", "strayed", "ready", "updated", "available"), 0)
    for node in view.nodes:
        should_run = wants(view.daemonset, node)[0]
        pods = sorted(by_node.get(node["metadata"]["name"], ()), key=age)
        counts["desired"] += should_run
        counts["strayed"] += bool(pods) and not should_run
        if not should_run or not pods:
            continue
        counts["current"] += 1
        counts["ready"] += is_ready(pods[0])
        counts["available"] += view.is_available(pods[0])
        counts["updated"] += view.is_updated(pods[0])
    result: JsonObject = {
        "currentNumberScheduled": counts["current"],
        "numberMisscheduled": counts["strayed"],
        "desiredNumberScheduled": counts["desired"],
        "numberReady": counts["ready"],
    }
    omitted_zeros = {
        "observedGeneration": view.daemonset["metadata"].get("generation") or 0,
        "updatedNumberScheduled": counts["updated"],
        "numberAvailable": counts["available"],
        "numberUnavailable": counts["desired"] - counts["available"],
    }
    kept = {key: value for key, value in (view.daemonset.get("status") or {}).items() if key == "collisionCount"}
    return result | {key: value for key, value in omitted_zeros.items() if value} | kept
