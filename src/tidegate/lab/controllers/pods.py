"""Questions about pods, as pkg/api/v1/pod and pkg/controller/controller_utils.go ask them."""

from __future__ import annotations

from datetime import datetime, timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.instants import parse_stamp

TERMINAL = ("Succeeded", "Failed")


def phase(pod: JsonObject) -> str:
    """status.phase; "" before the server set one."""
    return str((pod.get("status") or {}).get("phase") or "")


def condition(obj: JsonObject, kind: str) -> JsonObject | None:
    """The status condition of one type, of any object."""
    for found in (obj.get("status") or {}).get("conditions") or ():
        if found["type"] == kind:
            return dict(found)
    return None


def is_terminating(obj: JsonObject) -> bool:
    """True once deletionTimestamp is set."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_terminal(pod: JsonObject) -> bool:
    """True when the pod will never run again."""
    return phase(pod) in TERMINAL


def is_active(pod: JsonObject) -> bool:
    """True for a pod that counts as a replica: neither terminal nor terminating."""
    return not is_terminal(pod) and not is_terminating(pod)


def is_ready(pod: JsonObject) -> bool:
    """The Ready condition, whatever else is going on (a terminating pod stays Ready while it answers probes)."""
    for found in (pod.get("status") or {}).get("conditions") or ():
        if found["type"] == "Ready":
            return bool(found["status"] == "True")
    return False


def ready_since(pod: JsonObject) -> datetime | None:
    """When the Ready condition last changed; None when it never stood."""
    found = condition(pod, "Ready")
    return parse_stamp(found.get("lastTransitionTime")) if found else None


def is_available(pod: JsonObject, min_ready_seconds: int, now: datetime) -> bool:
    """Ready for at least ``min_ready_seconds`` (IsPodAvailable)."""
    if not is_ready(pod):
        return False
    since = ready_since(pod)
    return not min_ready_seconds or (since is not None and since + timedelta(seconds=min_ready_seconds) <= now)


def restarts(pod: JsonObject) -> int:
    """The highest restart count of any container (maxContainerRestarts)."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((int(status.get("restartCount") or 0) for status in statuses), default=0)
