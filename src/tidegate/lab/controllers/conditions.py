"""Status conditions with two times each, as Deployments carry them (lastUpdateTime and lastTransitionTime)."""

from __future__ import annotations

from datetime import datetime

from tidegate.kube.api import JsonObject
from tidegate.lab.instants import stamp

Conditions = list[JsonObject]


def made(kind: str, status: str, reason: str, message: str, now: datetime) -> JsonObject:
    """A condition that starts now."""
    at = stamp(now)
    times = {"lastUpdateTime": at, "lastTransitionTime": at}
    return {"type": kind, "status": status, **times, "reason": reason, "message": message}


def found(conditions: Conditions, kind: str) -> JsonObject | None:
    """The condition of one type."""
    return next((condition for condition in conditions if condition["type"] == kind), None)


def without(conditions: Conditions, kind: str) -> Conditions:
    """The conditions but one type."""
    return [condition for condition in conditions if condition["type"] != kind]


def placed(conditions: Conditions, new: JsonObject) -> Conditions:
    """SetDeploymentCondition: no change for the same status and reason; the new one goes to the end.

    The transition time is kept while the status is.
    """
    current = found(conditions, new["type"])
    if current is not None and current["status"] == new["status"]:
        if current.get("reason") == new["reason"]:
            return conditions
        new = new | {"lastTransitionTime": current["lastTransitionTime"]}
    return [*without(conditions, new["type"]), new]
