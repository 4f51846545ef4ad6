"""What a Job's pods come to, as pure questions: is it decided, which pods to create or delete, what the status counts.

Follows pkg/controller/job/job_controller.go (syncJob, manageJob, trackJobStatusAndRemoveFinalizers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.job_pods import (
    Backoff,
    duplicates,
    index_of,
    is_failed,
    is_indexed,
    is_suspended,
    is_tracked,
    least_active,
    replaces_failed_only,
)
from tidegate.lab.controllers.job_rules import (
    failure_action,
    indexes_from,
    indexes_text,
    met_success_rule,
    restarts_exceed,
)
from tidegate.lab.controllers.pods import is_active, is_terminal, is_terminating, phase
from tidegate.lab.instants import parse_stamp, stamp

MET, TARGET = "SuccessCriteriaMet", "FailureTarget"
COMPLETE, FAILED = "Complete", "Failed"
BURST = 500


def made(kind: str, reason: str, message: str, now: datetime, status: str = "True") -> JsonObject:
    """A condition of a Job."""
    at = stamp(now)
    times = {"lastProbeTime": at, "lastTransitionTime": at}
    return {"type": kind, "status": status, **times, "reason": reason, "message": message}


def found(job: JsonObject, kind: str) -> JsonObject | None:
    """The condition of one type, when it is true."""
    for one in (job.get("status") or {}).get("conditions") or ():
        if one["type"] == kind and one["status"] == "True":
            return dict(one)
    return None


def is_finished(job: JsonObject) -> bool:
    """Complete or Failed: nothing changes any more."""
    return found(job, COMPLETE) is not None or found(job, FAILED) is not None


@dataclass(frozen=True)
class View:
    """All that one pass may look at; ``pods`` are claimed, ``backoff`` is what was counted before them."""

    job: JsonObject
    pods: tuple[JsonObject, ...]
    now: datetime
    backoff: Backoff

    @property
    def spec(self) -> JsonObject:
        spec: JsonObject = self.job["spec"]
        return spec

    @property
    def status(self) -> JsonObject:
        return self.job.get("status") or {}

    @property
    def completions(self) -> int | None:
        value = self.spec.get("completions")
        return None if value is None else int(value)

    @cached_property
    def active(self) -> list[JsonObject]:
        return [pod for pod in self.pods if is_active(pod)]

    @property
    def terminating(self) -> int:
        return sum(is_terminating(pod) and not is_terminal(pod) for pod in self.pods)

    def uncounted(self, kind: str) -> list[str]:
        """uids in status.uncountedTerminatedPods: ``succeeded`` or ``failed``."""
        return list((self.status.get("uncountedTerminatedPods") or {}).get(kind) or ())

    def has_index(self, pod: JsonObject) -> bool:
        """True unless the Job is Indexed and the pod of no index it has."""
        return not is_indexed(self.job) or 0 <= index_of(pod) < int(self.completions or 0)

    @cached_property
    def newly_succeeded(self) -> list[JsonObject]:
        return [pod for pod in self._uncounted_pods("succeeded") if phase(pod) == "Succeeded"]

    @cached_property
    def newly_failed(self) -> list[JsonObject]:
        return [pod for pod in self._uncounted_pods("failed") if is_failed(pod, self.job)]

    def _uncounted_pods(self, kind: str) -> list[JsonObject]:
        known = self.uncounted(kind)
        tracked = (pod for pod in self.pods if is_tracked(pod) and self.has_index(pod))
        return [pod for pod in tracked if pod["metadata"]["uid"] not in known]

    @cached_property
    def completed_before(self) -> set[int]:
        return indexes_from(str(self.status.get("completedIndexes") or ""), int(self.completions or 0))

    @cached_property
    def completed(self) -> set[int]:
        """Indexes that have succeeded, those of this pass included."""
        tracked = (pod for pod in self.pods if is_tracked(pod) and self.has_index(pod))
        return self.completed_before | {index_of(pod) for pod in tracked if phase(pod) == "Succeeded"}

    @property
    def succeeded(self) -> int:
        if is_indexed(self.job):
            return len(self.completed)
        before = int(self.status.get("succeeded") or 0) + len(self.uncounted("succeeded"))
        return before + len(self.newly_succeeded)

    @property
    def failed(self) -> int:
        counted = [pod for pod in self.newly_failed if failure_action(self.job, pod)[0] != "Ignore"]
        return int(self.status.get("failed") or 0) + len(self.uncounted("failed")) + len(counted)

    @property
    def current_backoff(self) -> Backoff:
        return self.backoff.after(self.newly_succeeded, self.newly_failed)


@dataclass(frozen=True, slots=True)
class Work:
    """Pods to delete, or how many to create (``indexes`` of an Indexed Job); or when to look again."""

    delete: tuple[JsonObject, ...] = ()
    create: int = 0
    indexes: tuple[int, ...] = ()
    after_seconds: float | None = None


def verdict(view: View) -> JsonObject | None:
    """The condition that decides the Job, in the order the real controller looks for one; None while it goes on."""
    job, now = view.job, view.now
    if (met := found(job, MET)) is not None:
        return met
    if (target := found(job, TARGET)) is not None:
        return made(FAILED, target.get("reason", ""), target.get("message", ""), now)
    if job["spec"].get("podFailurePolicy"):
        for pod in view.pods:
            action, message = failure_action(job, pod) if is_failed(pod, job) else ("", "")
            if action == "FailJob":
                return made(TARGET, "PodFailurePolicy", message, now)
    if view.failed > int(job["spec"].get("backoffLimit", 6)) or restarts_exceed(job, view.pods):
        return made(TARGET, "BackoffLimitExceeded", "Job has reached the specified backoff limit", now)
    left = seconds_to_deadline(view)
    if left is not None and left <= 0:
        return made(TARGET, "DeadlineExceeded", "Job was active longer than specified deadline", now)
    if is_indexed(job) and (text := met_success_rule(job, view.completed)):
        return made(MET, "SuccessPolicy", text, now)
    return None


def seconds_to_deadline(view: View) -> float | None:
    """Until activeDeadlineSeconds is over; None when there is none or the Job has not begun."""
    deadline, begun = view.spec.get("activeDeadlineSeconds"), parse_stamp(view.status.get("startTime"))
    if deadline is None or begun is None or is_suspended(view.job):
        return None
    return (begun + timedelta(seconds=int(deadline)) - view.now).total_seconds()


def manage(view: View) -> Work:
    """How many pods too many or too few (manageJob). Never both in one pass: deletion comes first."""
    active = len(view.active)
    if is_suspended(view.job):
        return Work(delete=tuple(_surplus(view, active)))
    parallelism, completions = int(view.spec.get("parallelism", 1)), view.completions
    if completions is None:
        wanted = active if view.succeeded else parallelism
    else:
        wanted = max(0, min(completions - view.succeeded, parallelism))
    if surplus := _surplus(view, max(0, active - wanted)):
        return Work(delete=tuple(surplus[:BURST]))
    missing = wanted - active - (view.terminating if replaces_failed_only(view.job) else 0)
    if missing <= 0:
        return Work()
    if wait := view.current_backoff.remaining_seconds(view.now):
        return Work(after_seconds=max(1.0, wait))
    missing = min(missing, BURST)
    if not is_indexed(view.job):
        return Work(create=missing)
    busy = [pod for pod in view.pods if replaces_failed_only(view.job) and is_terminating(pod) and not is_terminal(pod)]
    taken = view.completed | {index_of(pod) for pod in (*view.active, *busy)}
    free = (index for index in range(int(completions or 0)) if index not in taken)
    chosen = tuple(index for index, _ in zip(free, range(missing), strict=False))
    return Work(create=len(chosen), indexes=chosen)


def _surplus(view: View, at_least: int) -> list[JsonObject]:
    gone: list[JsonObject] = []
    left = view.active
    if is_indexed(view.job):
        gone, left = duplicates(view.active, int(view.completions or 0))
    return gone + least_active(left)[: max(0, at_least - len(gone))]


def is_complete(view: View, active: int) -> bool:
    """All completions reached (or, without a number, one success and nothing running)."""
    if view.completions is None:
        return view.succeeded > 0 and active == 0
    return view.succeeded >= view.completions and active == 0


@dataclass(slots=True)
class Tracking:
    """One pass of counting: the status to write first, the pods to let go then, and what ends the Job after that."""

    status: JsonObject
    release: list[JsonObject] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    must_write: bool = False
    final: JsonObject | None = None


def track(view: View, status: JsonObject, decided: JsonObject | None) -> Tracking:
    """Count what has ended: pods are noted as uncounted, then lose their finalizer, then are counted."""
    result = Tracking(status)
    result.held = {pod["metadata"]["uid"] for pod in view.pods if is_tracked(pod)}
    result.must_write = settle(result)
    lists = {kind: list((status["uncountedTerminatedPods"].get(kind)) or ()) for kind in ("succeeded", "failed")}
    is_failure = decided is not None and decided["type"] != MET
    completed = set(view.completed_before)
    for pod in sorted(view.pods, key=index_of) if is_indexed(view.job) else view.pods:
        if not is_tracked(pod) or not (_may_go(view, pod) or decided is not None):
            continue
        if sum(map(len, lists.values())) >= BURST:
            break
        result.release.append(pod)
        kind = _counted_as(view, pod, is_failure)
        if kind == "succeeded" and is_indexed(view.job):
            completed.add(index_of(pod))
        elif kind and pod["metadata"]["uid"] not in lists[kind]:
            lists[kind].append(pod["metadata"]["uid"])
            result.must_write = True
    status["uncountedTerminatedPods"] = {kind: uids for kind, uids in lists.items() if uids}
    if is_indexed(view.job):
        _note_indexes(status, completed, result)
    if decided is not None:
        _note_decision(view, decided, result)
    return result


def _may_go(view: View, pod: JsonObject) -> bool:
    """canRemoveFinalizer, but for a decided Job."""
    return is_terminating(view.job) or phase(pod) == "Succeeded" or is_failed(pod, view.job)


def _counted_as(view: View, pod: JsonObject, is_failure: bool) -> str:
    """``succeeded``, ``failed`` or "" (not at all)."""
    if phase(pod) == "Succeeded" and pod["metadata"]["uid"] not in view.uncounted("failed"):
        return "succeeded" if view.has_index(pod) else ""
    if not (is_failed(pod, view.job) or is_failure) or not view.has_index(pod):
        return ""
    return "" if failure_action(view.job, pod)[0] == "Ignore" else "failed"


def _note_indexes(status: JsonObject, completed: set[int], result: Tracking) -> None:
    text = indexes_text(completed)
    if text != (status.get("completedIndexes") or ""):
        result.must_write = True
        status["completedIndexes"] = text
    if completed:
        status["succeeded"] = len(completed)


def _note_decision(view: View, decided: JsonObject, result: Tracking) -> None:
    """The interim condition is written before the finalizers go, the final one after."""
    conditions = list(result.status.get("conditions") or ())
    final = {TARGET: FAILED, MET: COMPLETE}.get(decided["type"])
    if final is None:
        result.final = decided
        return
    if decided["type"] == TARGET or found(view.job, MET) is None:
        result.status["conditions"] = [*conditions, decided]
        result.must_write = True
    result.final = made(final, decided.get("reason", ""), decided.get("message", ""), view.now)


def settle(result: Tracking) -> bool:
    """Count the noted pods whose finalizer is gone; True when any was."""
    status, changed = result.status, False
    noted = dict(status.get("uncountedTerminatedPods") or {})
    for kind in ("succeeded", "failed"):
        uids = list(noted.get(kind) or ())
        kept = [uid for uid in uids if uid in result.held]
        if len(kept) != len(uids):
            changed = True
            status[kind] = int(status.get(kind) or 0) + len(uids) - len(kept)
            noted[kind] = kept
    status["uncountedTerminatedPods"] = {kind: uids for kind, uids in noted.items() if uids}
    return changed
