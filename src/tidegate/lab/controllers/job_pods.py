"""Pods of a Job: what became of them, when, and which of them a Job gives up first.

Follows pkg/controller/job (tracking_utils.go, indexed_job_utils.go, backoff_utils.go). The tracking finalizer keeps a
pod until the Job's status has counted it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate.kube.api import JsonObject, Patch
from tidegate.lab.controllers.keeper import pod_from_template
from tidegate.lab.controllers.labels import annotations_of
from tidegate.lab.controllers.pods import condition, is_ready, is_terminating, phase, ready_since, restarts
from tidegate.lab.instants import parse_stamp

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_FAILURE_SECONDS, _FAILURE_SECONDS_MAX = 10.0, 600.0
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}
_GENERATED_LENGTH_MAX = 58


def is_tracked(pod: JsonObject) -> bool:
    """Not counted yet."""
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def untracked(pod: JsonObject) -> Patch:
    """The patch that takes the tracking finalizer off, whatever else changes on the pod meanwhile."""
    change = {"uid": pod["metadata"]["uid"], "$deleteFromPrimitiveList/finalizers": [TRACKING]}
    return Patch({"metadata": change}, style="strategic")


def is_indexed(job: JsonObject) -> bool:
    """completionMode Indexed."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_suspended(job: JsonObject) -> bool:
    """spec.suspend."""
    return bool(job["spec"].get("suspend"))


def replaces_failed_only(job: JsonObject) -> bool:
    """A pod is replaced when it has failed, not already when it is being deleted."""
    spec = job["spec"]
    return spec.get("podReplacementPolicy") == "Failed" or spec.get("podFailurePolicy") is not None


def is_failed(pod: JsonObject, job: JsonObject) -> bool:
    """Failed, or being deleted without having succeeded: its kubelet may never say."""
    if phase(pod) == "Failed":
        return True
    return not replaces_failed_only(job) and is_terminating(pod) and phase(pod) != "Succeeded"


def index_of(pod: JsonObject) -> int:
    """The completion index; -1 without a usable one."""
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdigit() else -1


def finished_at(pod: JsonObject) -> datetime:
    """When a pod ended: by its containers, else by Ready=False, else by its deletion, else its creation."""
    ended = [_terminated_at(one) for one in (pod.get("status") or {}).get("containerStatuses") or ()]
    known = [one for one in ended if one is not None]
    if known and len(known) == len(ended):
        return max(known)
    ready = condition(pod, "Ready")
    if ready is not None and ready["status"] == "False" and (since := parse_stamp(ready.get("lastTransitionTime"))):
        return since
    meta = pod["metadata"]
    if (deleted := parse_stamp(meta.get("deletionTimestamp"))) is not None:
        return deleted - timedelta(seconds=int(meta.get("deletionGracePeriodSeconds") or 0))
    created = parse_stamp(meta.get("creationTimestamp"))
    assert created is not None
    return created


def _terminated_at(status: JsonObject) -> datetime | None:
    return parse_stamp(((status.get("state") or {}).get("terminated") or {}).get("finishedAt"))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failures since the last success, and when the last of them was."""

    failures: int = 0
    last: datetime | None = None

    def after(self, succeeded: Iterable[JsonObject], failed: Iterable[JsonObject]) -> Backoff:
        """With pods that have ended since."""
        successes, failures = sorted(map(finished_at, succeeded)), sorted(map(finished_at, failed))
        if successes:
            failures = [one for one in failures if one > successes[-1]]
            return Backoff(len(failures), failures[-1] if failures else None)
        return Backoff(self.failures + len(failures), failures[-1]) if failures else self

    def remaining_seconds(self, now: datetime) -> float:
        """How long no pod is created yet: 10 s, doubled by every failure up to 10 min."""
        if not self.failures or self.last is None:
            return 0.0
        wait = min(_FAILURE_SECONDS * 2.0 ** min(self.failures - 1, 10), _FAILURE_SECONDS_MAX)
        return max(0.0, wait - (now - self.last).total_seconds())


def least_active(pods: Iterable[JsonObject]) -> list[JsonObject]:
    """Unscheduled before pending before unready before younger (controller.ActivePods)."""

    def key(pod: JsonObject) -> tuple[float, ...]:
        since = ready_since(pod) if is_ready(pod) else None
        created = parse_stamp(pod["metadata"].get("creationTimestamp"))
        order = [bool(pod["spec"].get("nodeName")), _PHASES.get(phase(pod), 0), is_ready(pod)]
        ages = [-since.timestamp() if since else 0.0, -restarts(pod), -created.timestamp() if created else 0.0]
        return (*order, *ages)

    return sorted(pods, key=key)


def duplicates(pods: Iterable[JsonObject], completions: int) -> tuple[list[JsonObject], list[JsonObject]]:
    """Pods of an Indexed Job to remove (a second one of an index, or of no index it has), and those that stay."""
    gone: list[JsonObject] = []
    of_index: dict[int, list[JsonObject]] = {}
    for pod in sorted(pods, key=index_of):
        if 0 <= index_of(pod) < completions:
            of_index.setdefault(index_of(pod), []).append(pod)
        else:
            gone.append(pod)
    for same in of_index.values():
        gone += least_active(same)[:-1]
    return gone, [least_active(same)[-1] for same in of_index.values()]


def new_pod(job: JsonObject, index: int = -1) -> JsonObject:
    """A pod of the Job with the tracking finalizer; of an Indexed Job with its index in name, labels and hostname."""
    pod = pod_from_template(job, job["spec"]["template"])
    meta, spec = dict(pod["metadata"]), pod["spec"]
    held = [one for one in meta.get("finalizers") or () if one != TRACKING]
    meta["finalizers"] = [*held, TRACKING]
    if index >= 0:
        name, ending = job["metadata"]["name"], f"-{index}-"
        meta["generateName"] = name[: _GENERATED_LENGTH_MAX - len(ending)] + ending
        meta["annotations"] = {**(meta.get("annotations") or {}), INDEX: str(index)}
        meta["labels"] = {**(meta.get("labels") or {}), INDEX: str(index)}
        spec = {**spec, "hostname": f"{name}-{index}"}
        for kind in ("initContainers", "containers"):
            if spec.get(kind):
                spec[kind] = [_knowing_index(container) for container in spec[kind]]
    return {**pod, "metadata": meta, "spec": spec}


def _knowing_index(container: JsonObject) -> JsonObject:
    known = container.get("env") or []
    if any(one["name"] == _INDEX_VARIABLE for one in known):
        return container
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    return {**container, "env": [*known, {"name": _INDEX_VARIABLE, "valueFrom": source}]}
