"""What a ReplicaSet does next, as pure questions: how many pods too few or too many, and its status.

Follows pkg/controller/replicaset (replica_set.go manageReplicas, replica_set_utils.go calculateStatus).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers import conditions
from tidegate.lab.controllers.fenceposts import replicas
from tidegate.lab.controllers.labels import has_all, labels_of
from tidegate.lab.controllers.pods import is_active, is_available, is_ready, is_terminal, is_terminating, ready_since
from tidegate.lab.controllers.ranking import victims
from tidegate.lab.instants import stamp

BURST = 500
FAILURE = "ReplicaFailure"


@dataclass(frozen=True, slots=True)
class View:
    """All that one pass may look at: ``pods`` are claimed, ``related`` are those of sibling ReplicaSets."""

    replicaset: JsonObject
    pods: tuple[JsonObject, ...]
    related: tuple[JsonObject, ...]
    now: datetime

    @property
    def active(self) -> list[JsonObject]:
        return [pod for pod in self.pods if is_active(pod)]


@dataclass(frozen=True, slots=True)
class Difference:
    """``missing`` pods are to be created; ``surplus`` ones deleted. Never both."""

    missing: int = 0
    surplus: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why pods could not be made (``FailedCreate``) or deleted (``FailedDelete``)."""

    reason: str
    message: str


def difference(view: View) -> Difference:
    """What is between the active pods and spec.replicas, at most 500 at a time."""
    if is_terminating(view.replicaset):
        return Difference()
    active = view.active
    excess = len(active) - replicas(view.replicaset)
    if excess < 0:
        return Difference(missing=min(-excess, BURST))
    if excess > 0:
        return Difference(surplus=tuple(victims(active, view.related, min(excess, BURST), view.now)))
    return Difference()


def status(view: View, failure: Failure | None) -> JsonObject:
    """The status of the pods as they were before this pass changed their number."""
    spec = view.replicaset["spec"]
    template_labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    patience, active = int(spec.get("minReadySeconds") or 0), view.active
    leaving = [pod for pod in view.pods if is_terminating(pod) and not is_terminal(pod)]
    counts = {
        "fullyLabeledReplicas": sum(has_all(template_labels, labels_of(pod)) for pod in active),
        "readyReplicas": sum(is_ready(pod) for pod in active),
        "availableReplicas": sum(is_available(pod, patience, view.now) for pod in active),
        "observedGeneration": view.replicaset["metadata"].get("generation") or 0,
    }
    result: JsonObject = {"replicas": len(active), "terminatingReplicas": len(leaving)}
    result |= {key: count for key, count in counts.items() if count}
    kept = list((view.replicaset.get("status") or {}).get("conditions") or [])
    kept = _with_failure(kept, failure, view.now)
    return result | ({"conditions": kept} if kept else {})


def _with_failure(kept: conditions.Conditions, failure: Failure | None, now: datetime) -> conditions.Conditions:
    """The first failure stands until a pass without one (its time says since when)."""
    if failure is None:
        return conditions.without(kept, FAILURE)
    if conditions.found(kept, FAILURE) is not None:
        return kept
    said = {"reason": failure.reason, "message": failure.message}
    return [*kept, {"type": FAILURE, "status": "True", "lastTransitionTime": stamp(now), **said}]


def seconds_to_available(view: View) -> float | None:
    """When the next ready pod will have been ready for minReadySeconds; None when none is waiting."""
    patience = int(view.replicaset["spec"].get("minReadySeconds") or 0)
    return next_available(view.active, patience, view.now) if patience else None


def next_available(pods: Sequence[JsonObject], patience: int, now: datetime) -> float | None:
    """Seconds until the first of the ready, not yet available pods becomes available."""
    waiting = [
        (since + timedelta(seconds=patience) - now).total_seconds()
        for pod in pods
        if is_ready(pod) and not is_available(pod, patience, now) and (since := ready_since(pod)) is not None
    ]
    return max(0.001, min(waiting)) if waiting else None
