"""Tables of what makes pods: apps/v1, batch/v1, autoscaling, policy."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tidegate.lab.apiserver.schema.human import UNKNOWN, age, human_duration, instant, since
from tidegate.lab.apiserver.schema.tables_columns import (
    NONE,
    Json,
    Printer,
    containers,
    count,
    dig,
    labels,
    selector,
)

_WIDE = "|*Containers|*Images|*Selector"


def _template(obj: Json) -> list[str]:
    return containers(dig(obj, "spec", "template", "spec"))


def _deployment(obj: Json, now: datetime) -> list[Any]:
    return [
        obj["metadata"]["name"],
        f"{count(obj, 'status', 'readyReplicas')}/{count(obj, 'spec', 'replicas')}",
        count(obj, "status", "updatedReplicas"),
        count(obj, "status", "availableReplicas"),
        age(obj, now),
        *_template(obj),
        selector(dig(obj, "spec", "selector")),
    ]


def _replica_set(obj: Json, now: datetime) -> list[Any]:
    found = dig(obj, "spec", "selector")
    is_old = obj.get("kind") == "ReplicationController"
    return [
        obj["metadata"]["name"],
        count(obj, "spec", "replicas"),
        count(obj, "status", "replicas"),
        count(obj, "status", "readyReplicas"),
        age(obj, now),
        *_template(obj),
        labels(found) if is_old else selector(found),
    ]


def _stateful_set(obj: Json, now: datetime) -> list[Any]:
    ready = f"{count(obj, 'status', 'readyReplicas')}/{count(obj, 'spec', 'replicas')}"
    return [obj["metadata"]["name"], ready, age(obj, now), *_template(obj)]


_DAEMON_COUNTS = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
)


def _daemon_set(obj: Json, now: datetime) -> list[Any]:
    return [
        obj["metadata"]["name"],
        *(count(obj, "status", key) for key in _DAEMON_COUNTS),
        labels(dig(obj, "spec", "template", "spec", "nodeSelector")),
        age(obj, now),
        *_template(obj),
        selector(dig(obj, "spec", "selector")),
    ]


def _job(obj: Json, now: datetime) -> list[Any]:
    completions, parallelism = dig(obj, "spec", "completions"), count(obj, "spec", "parallelism")
    succeeded = count(obj, "status", "succeeded")
    if completions is not None:
        done = f"{succeeded}/{completions}"
    else:
        done = f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"
    return [
        obj["metadata"]["name"],
        _job_status(obj),
        done,
        _job_duration(obj, now),
        age(obj, now),
        *_template(obj),
        selector(dig(obj, "spec", "selector")),
    ]


def _job_status(obj: Json) -> str:
    met = {c.get("type") for c in dig(obj, "status", "conditions") or () if c.get("status") == "True"}
    for kind, text in (
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ):
        if kind in met:
            return text
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else "Running"


def _job_duration(obj: Json, now: datetime) -> str:
    begin, end = (instant(str(dig(obj, "status", key) or "")) for key in ("startTime", "completionTime"))
    return human_duration(((end or now) - begin).total_seconds()) if begin else ""


def _cron_job(obj: Json, now: datetime) -> list[Any]:
    last = dig(obj, "status", "lastScheduleTime")
    suspend = dig(obj, "spec", "suspend")
    return [
        obj["metadata"]["name"],
        dig(obj, "spec", "schedule") or "",
        dig(obj, "spec", "timeZone") or NONE,
        "<unset>" if suspend is None else str(suspend),
        len(dig(obj, "status", "active") or ()),
        since(last, now) if last else NONE,
        age(obj, now),
        *containers(dig(obj, "spec", "jobTemplate", "spec", "template", "spec")),
        selector(dig(obj, "spec", "jobTemplate", "spec", "selector")),
    ]


def _controller_revision(obj: Json, now: datetime) -> list[Any]:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    name = NONE
    if owner:
        group = str(owner.get("apiVersion") or "").rpartition("/")[0]
        kind = owner["kind"].lower()
        name = f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"
    return [obj["metadata"]["name"], name, count(obj, "revision"), age(obj, now)]


def _disruption_budget(obj: Json, now: datetime) -> list[Any]:
    low, high = (dig(obj, "spec", key) for key in ("minAvailable", "maxUnavailable"))
    return [
        obj["metadata"]["name"],
        "N/A" if low is None else str(low),
        "N/A" if high is None else str(high),
        count(obj, "status", "disruptionsAllowed"),
        age(obj, now),
    ]


def _autoscaler(obj: Json, now: datetime) -> list[Any]:
    target = dig(obj, "spec", "scaleTargetRef") or {}
    low = dig(obj, "spec", "minReplicas")
    return [
        obj["metadata"]["name"],
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _targets(obj),
        "<unset>" if low is None else str(low),
        count(obj, "spec", "maxReplicas"),
        count(obj, "status", "currentReplicas"),
        age(obj, now),
    ]


def _targets(obj: Json) -> str:
    """TARGETS: ``cpu: 12%/50%``; what was not measured yet is ``<unknown>``."""
    percent = dig(obj, "spec", "targetCPUUtilizationPercentage")
    if percent is not None:
        current = dig(obj, "status", "currentCPUUtilizationPercentage")
        return f"cpu: {UNKNOWN if current is None else f'{current}%'}/{percent}%"
    metrics, measured = dig(obj, "spec", "metrics") or [], dig(obj, "status", "currentMetrics") or []
    if not metrics:
        return NONE
    listed = []
    for index, metric in enumerate(metrics):
        now = measured[index] if index < len(measured) else {}
        listed.append(_target(metric, now))
    more = f" + {len(listed) - 2} more..." if len(listed) > 2 else ""
    return ", ".join(listed[:2]) + more


def _target(metric: Json, measured: Json) -> str:
    kind = str(metric.get("type") or "")
    key = kind[:1].lower() + kind[1:]
    source, current = metric.get(key) or {}, dig(measured, key, "current") or {}
    target = source.get("target") or {}
    name = f"{source['name']}: " if source.get("name") else ""
    if target.get("averageUtilization") is not None:
        value = current.get("averageUtilization")
        shown = UNKNOWN if value is None else f"{value}%"
        return f"{name}{shown}/{target['averageUtilization']}%"
    wanted, suffix = target.get("averageValue"), " (avg)" if kind in ("External", "Object") else ""
    value = current.get("averageValue")
    if wanted is None:
        wanted, value, suffix = target.get("value"), current.get("value"), ""
    return f"{name}{UNKNOWN if value is None else value}/{UNKNOWN if wanted is None else wanted}{suffix}"


_SCALED = "Name|#Desired|#Current|#Ready|Age" + _WIDE

PRINTERS = {
    "Deployment": Printer("Name|Ready|Up-to-date|Available|Age" + _WIDE, _deployment),
    "ReplicaSet": Printer(_SCALED, _replica_set),
    "ReplicationController": Printer(_SCALED, _replica_set),
    "StatefulSet": Printer("Name|Ready|Age|*Containers|*Images", _stateful_set),
    "DaemonSet": Printer("Name|#Desired|#Current|#Ready|#Up-to-date|#Available|Node Selector|Age" + _WIDE, _daemon_set),
    "Job": Printer("Name|Status|Completions|Duration|Age" + _WIDE, _job),
    "CronJob": Printer("Name|Schedule|Timezone|Suspend|#Active|Last Schedule|Age" + _WIDE, _cron_job),
    "ControllerRevision": Printer("Name|Controller|#Revision|Age", _controller_revision),
    "PodDisruptionBudget": Printer("Name|Min Available|Max Unavailable|#Allowed Disruptions|Age", _disruption_budget),
    "HorizontalPodAutoscaler": Printer("Name|Reference|Targets|MinPods|MaxPods|Replicas|Age", _autoscaler),
}
