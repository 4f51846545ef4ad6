"""A Deployment's status: counts, Available and Progressing (pkg/controller/deployment/progress.go, sync.go)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers import conditions
from tidegate.lab.controllers.fenceposts import fenceposts, replicas, reported
from tidegate.lab.instants import parse_stamp

PROGRESSING, AVAILABLE, FAILURE = "Progressing", "Available", "ReplicaFailure"
_NO_DEADLINE = 2**31 - 1


def has_deadline(deployment: JsonObject) -> bool:
    """False without progressDeadlineSeconds and for its "never" (MaxInt32)."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return seconds is not None and seconds != _NO_DEADLINE


def status_of(deployment: JsonObject) -> JsonObject:
    """The stored status; ``{}`` before the first."""
    return deployment.get("status") or {}


def progressing(status: JsonObject) -> JsonObject | None:
    """The Progressing condition."""
    return conditions.found(status.get("conditions") or [], PROGRESSING)


def _terminating(replicasets: Sequence[JsonObject]) -> int | None:
    total = 0
    for replicaset in replicasets:
        count = (replicaset.get("status") or {}).get("terminatingReplicas")
        if count is None and reported(replicaset, "observedGeneration"):
            return None
        total += count or 0
    return total


def counted(
    deployment: JsonObject, replicasets: Sequence[JsonObject], new: JsonObject | None, now: datetime
) -> JsonObject:
    """The status with all counts and Available; other conditions as they were (calculateStatus)."""
    available = sum(reported(replicaset, "availableReplicas") for replicaset in replicasets)
    wanted = sum(replicas(replicaset) for replicaset in replicasets)
    status: JsonObject = {
        "observedGeneration": deployment["metadata"].get("generation"),
        "replicas": sum(reported(replicaset, "replicas") for replicaset in replicasets),
        "updatedReplicas": reported(new, "replicas") if new else 0,
        "readyReplicas": sum(reported(replicaset, "readyReplicas") for replicaset in replicasets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }
    status = {key: value for key, value in status.items() if value}
    terminating = _terminating(replicasets)
    if terminating is not None:
        status["terminatingReplicas"] = terminating
    if status_of(deployment).get("collisionCount"):
        status["collisionCount"] = status_of(deployment)["collisionCount"]
    if available >= replicas(deployment) - fenceposts(deployment).unavailable:
        verdict = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        verdict = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    kept = list(status_of(deployment).get("conditions") or [])
    status["conditions"] = conditions.placed(kept, conditions.made(AVAILABLE, *verdict, now))
    return status


def is_complete(deployment: JsonObject, status: JsonObject) -> bool:
    """All replicas are updated and available, none is left over, and the spec was observed."""
    desired = replicas(deployment)
    fields = ("updatedReplicas", "replicas", "availableReplicas")
    observed = status.get("observedGeneration") or 0
    return all((status.get(field) or 0) == desired for field in fields) and observed >= (
        deployment["metadata"].get("generation") or 0
    )


def _has_moved(old: JsonObject, new: JsonObject) -> bool:
    def count(status: JsonObject, field: str) -> int:
        return int(status.get(field) or 0)

    def leftover(status: JsonObject) -> int:
        return count(status, "replicas") - count(status, "updatedReplicas")

    rising = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return leftover(new) < leftover(old) or any(count(new, field) > count(old, field) for field in rising)


def _is_late(deployment: JsonObject, status: JsonObject, now: datetime) -> bool:
    current = progressing(status)
    if current is None or current.get("reason") == "NewReplicaSetAvailable":
        return False
    if current.get("reason") == "ProgressDeadlineExceeded":
        return True
    since = parse_stamp(current.get("lastUpdateTime"))
    limit = timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])
    return since is not None and since + limit < now


def rolled(
    deployment: JsonObject, replicasets: Sequence[JsonObject], new: JsonObject | None, now: datetime
) -> JsonObject:
    """The status during a rollout: counts, and what Progressing says about them (syncRolloutStatus)."""
    status = counted(deployment, replicasets, new, now)
    kept: conditions.Conditions = status["conditions"]
    current = conditions.found(kept, PROGRESSING)
    subject = f'ReplicaSet "{new["metadata"]["name"]}"' if new else _named(deployment)
    is_idle = (status.get("replicas") or 0) == (status.get("updatedReplicas") or 0) and (
        current is not None and current.get("reason") == "NewReplicaSetAvailable"
    )
    if not has_deadline(deployment):
        kept = conditions.without(kept, PROGRESSING)
    elif not is_idle:
        if is_complete(deployment, status):
            text = f"{subject} has successfully progressed."
            condition = conditions.made(PROGRESSING, "True", "NewReplicaSetAvailable", text, now)
            kept = conditions.placed(kept, condition)
        elif _has_moved(status_of(deployment), status):
            text = f"{subject} is progressing."
            condition = conditions.made(PROGRESSING, "True", "ReplicaSetUpdated", text, now)
            if current is not None and current["status"] == "True":
                condition["lastTransitionTime"] = current["lastTransitionTime"]
            kept = [*conditions.without(kept, PROGRESSING), condition]
        elif _is_late(deployment, status, now):
            text = f"{subject} has timed out progressing."
            condition = conditions.made(PROGRESSING, "False", "ProgressDeadlineExceeded", text, now)
            kept = conditions.placed(kept, condition)
    status["conditions"] = _with_failures(kept, replicasets, new)
    return status


def _named(deployment: JsonObject) -> str:
    return f'Deployment "{deployment["metadata"]["name"]}"'


def _with_failures(
    kept: conditions.Conditions, replicasets: Sequence[JsonObject], new: JsonObject | None
) -> conditions.Conditions:
    """A ReplicaSet's failure to create pods is the Deployment's too; the new one's goes first."""
    for replicaset in ([new] if new else []) + list(replicasets):
        failure = conditions.found((replicaset.get("status") or {}).get("conditions") or [], FAILURE)
        if failure is not None:
            since = failure.get("lastTransitionTime")
            times = {"lastUpdateTime": since, "lastTransitionTime": since}
            return conditions.placed(kept, {**failure, **times})
    return conditions.without(kept, FAILURE)


def seconds_to_deadline(deployment: JsonObject, status: JsonObject, now: datetime) -> float | None:
    """When an unmoving rollout must be looked at again; None when nothing can time out.

    A second is added because condition times have whole seconds (kubernetes issue 39785).
    """
    current = progressing(status_of(deployment))
    if not has_deadline(deployment) or current is None or is_complete(deployment, status):
        return None
    if current.get("reason") == "ProgressDeadlineExceeded":
        return None
    since = parse_stamp(current.get("lastUpdateTime"))
    if since is None:
        return None
    left = (since + timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"]) - now).total_seconds()
    return max(left, 0.0) + 1.0
