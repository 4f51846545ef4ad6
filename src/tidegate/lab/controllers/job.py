"""The Job controller: runs pods to their end, counts them once, and says when enough have succeeded or failed."""

from __future__ import annotations

import asyncio
from typing import Any

from tidegate import vtime
from tidegate.kube.api import PODS, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.job_pods import TRACKING, Backoff, is_suspended, is_tracked, new_pod, untracked
from tidegate.lab.controllers.job_state import (
    COMPLETE,
    MET,
    Tracking,
    View,
    Work,
    is_complete,
    is_finished,
    made,
    manage,
    seconds_to_deadline,
    settle,
    track,
    verdict,
)
from tidegate.lab.controllers.keeper import PodKeeper, is_namespace_going
from tidegate.lab.controllers.kinds import JOBS
from tidegate.lab.controllers.owners import controller_of, controller_uid
from tidegate.lab.controllers.pods import is_ready, is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.waking import owner_of
from tidegate.lab.controllers.writes import Amend, Replace
from tidegate.lab.events import Event
from tidegate.lab.instants import stamp

_BATCH_SECONDS = 1.0
"""Changes of pods and of the status wait this long for others (SyncJobBatchPeriod)."""

_OWN_NAME = "kubernetes.io/job-controller"


class JobController(PodKeeper):
    """Level-triggered over Jobs and pods; a change of a Job's spec is looked at at once, all else in batches."""

    component = "job-controller"
    finalizer = TRACKING
    backoff_seconds = (1.0, 60.0)

    def __init__(self, world: World) -> None:
        super().__init__(world, JOBS)
        self._backoffs: dict[Key, Backoff] = {}

    def owner_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None:
            assert old is not None
            self._backoffs.pop(key_of(old), None)
        elif old is not None and old["metadata"].get("generation") == new["metadata"].get("generation"):
            self.pod_concerns(new)
        else:
            self.enqueue(new)

    def pod_concerns(self, owner: JsonObject) -> None:
        self.queue.add_after(key_of(owner), _BATCH_SECONDS)

    async def reconcile(self, key: Key) -> float | None:
        job = self.owners.get(key)
        if job is None or job["spec"].get("managedBy", _OWN_NAME) != _OWN_NAME:
            return None
        if is_finished(job):
            self._backoffs.pop(key, None)
            return None
        pods = await self.claimed(key, job)
        now = vtime.now()
        status: dict[str, Any] = {"uncountedTerminatedPods": {}, **(job.get("status") or {})}
        if not status.get("startTime") and not is_suspended(job):
            status["startTime"] = stamp(now)
        view = View({**job, "status": status}, tuple(pods), now, self._backoffs.get(key, Backoff()))
        return await self._sync(key, view, dict(status))

    async def _sync(self, key: Key, view: View, status: JsonObject) -> float | None:
        """One pass: decide, delete or create, then count."""
        decided = verdict(view)
        counts = _Counts(len(view.active), sum(map(is_ready, view.active)), view.terminating)
        error: KubeError | None = None
        work, must_write = Work(), False
        if decided is not None:
            work = Work(delete=tuple(view.active))
            error = await self._manage(key, view, work, counts, is_decided=True)
            if counts.active:
                decided = None
        else:
            if not is_terminating(view.job):
                work = manage(view)
                error = await self._manage(key, view, work, counts)
            if is_complete(view, counts.active):
                text = "Reached expected number of succeeded pods"
                decided = made(MET, "CompletionsReached", text, view.now)
            elif not is_terminating(view.job):
                must_write = self._note_suspension(view, status)
        new = {"active": counts.active, "ready": counts.ready, "terminating": counts.terminating}
        must_write = must_write or any(value != (status.get(name) or 0) for name, value in new.items())
        must_write = must_write or "ready" not in status or "terminating" not in status
        status |= new
        if not counts.active:
            del status["active"]
        tracking = track(view, status, decided)
        tracking.must_write = tracking.must_write or must_write
        await self._count(key, view, tracking)
        if error is not None:
            raise error
        left = seconds_to_deadline(view)
        return left if left is not None and left > 0 else None

    # -- pods

    async def _manage(
        self, key: Key, view: View, work: Work, counts: _Counts, *, is_decided: bool = False
    ) -> KubeError | None:
        """Carry out what is to be deleted or created, and correct the counts by it."""
        if work.after_seconds is not None:
            # As the real one: it reports no active pod while it backs off. With others ready the server refuses that
            # status ("cannot set more ready pods than active"), and nothing is counted until the wait is over.
            counts.active = 0
            self.queue.add_after(key, work.after_seconds)
            return None
        if work.delete:
            if not is_decided:  # pods that are given up do not count as failures
                for pod in work.delete:
                    await self._let_go(key, pod)
            outcome = await self.delete_pods(key, view.job, work.delete)
            counts.active -= outcome.count
            counts.terminating += outcome.count
            counts.ready -= sum(map(is_ready, work.delete))
            return outcome.error
        if work.create:
            pods = [new_pod(view.job, index) for index in work.indexes] or [new_pod(view.job)] * work.create
            outcome = await self.create_pods(key, view.job, pods)
            counts.active += outcome.count
            return None if is_namespace_going(outcome.error) else outcome.error
        return None

    async def _let_go(self, key: Key, pod: JsonObject) -> bool:
        """Take the tracking finalizer off; True when it is off, or the pod gone."""
        if is_tracked(pod):
            await self.patched(key, Amend(PODS, key_of(pod), untracked(pod)))
        return True

    # -- status

    def _note_suspension(self, view: View, status: JsonObject) -> bool:
        """The Suspended condition; a resumed Job's time starts anew. True when it changed."""
        conditions = list(status.get("conditions") or ())
        held = next((one for one in conditions if one["type"] == "Suspended"), None)
        wanted = "True" if is_suspended(view.job) else "False"
        if (held is None and wanted == "False") or (held is not None and held["status"] == wanted):
            return False
        word = "suspended" if wanted == "True" else "resumed"
        new = made("Suspended", f"Job{word.title()}", f"Job {word}", view.now, wanted)
        kept = [new if one is held else one for one in conditions]
        status["conditions"] = kept if held is not None else [*conditions, new]
        self.recorder.event(view.job, Event("Normal", word.title(), f"Job {word}"))
        if wanted == "True":
            status.pop("startTime", None)
        else:
            status["startTime"] = stamp(view.now)
        return True

    async def _count(self, key: Key, view: View, tracking: Tracking) -> None:
        """Write what is about to be counted, let those pods go, write what that makes, and finish."""
        job = view.job
        if tracking.must_write:
            job = await self._written(key, job, tracking.status)
            self._backoffs[key] = view.current_backoff
        results = await asyncio.gather(*(self._let_go(key, pod) for pod in tracking.release), return_exceptions=True)
        failed = next((one for one in results if isinstance(one, BaseException)), None)
        gone = zip(tracking.release, results, strict=True)
        tracking.held -= {pod["metadata"]["uid"] for pod, answer in gone if answer is True}
        must_write = settle(tracking)
        if failed is not None:
            if must_write:
                await self._written(key, job, tracking.status)
            raise failed
        is_over = self._is_over(tracking)
        if is_over:
            assert tracking.final is not None
            tracking.status["conditions"] = [*(tracking.status.get("conditions") or ()), tracking.final]
            if tracking.final["type"] == COMPLETE:
                tracking.status["completionTime"] = tracking.final["lastTransitionTime"]
        if must_write or is_over:
            await self._written(key, job, tracking.status)
        if is_over:
            self._say_finished(view.job, tracking)

    def _is_over(self, tracking: Tracking) -> bool:
        """Decided, and no pod is left to be counted or to end."""
        status = tracking.status
        return tracking.final is not None and not status["uncountedTerminatedPods"] and not status["terminating"]

    def _say_finished(self, job: JsonObject, tracking: Tracking) -> None:
        final, wanted = tracking.final, job["spec"].get("completions")
        assert final is not None
        if final["type"] != COMPLETE:
            self.recorder.event(job, Event("Warning", final["reason"], final["message"]))
            return
        if wanted is not None and int(tracking.status.get("succeeded") or 0) > wanted:
            text = "Too many succeeded pods running after completion count reached"
            self.recorder.event(job, Event("Warning", "TooManySucceededPods", text))
        self.recorder.event(job, Event("Normal", "Completed", "Job completed"))

    async def _written(self, key: Key, job: JsonObject, status: JsonObject) -> JsonObject:
        answer = await self.carry_out(key, Replace(JOBS, {**job, "status": dict(status)}, "status"))
        assert answer is not None
        return answer


class _Counts:
    """Active, ready and terminating pods, corrected as pods are deleted and created."""

    def __init__(self, active: int, ready: int, terminating: int) -> None:
        self.active, self.ready, self.terminating = active, ready, terminating


class JobOrphanController(Controller):
    """Takes the tracking finalizer off pods no Job will count any more; keys are pods.

    Those that lost their owner, and those of a Job that is gone or finished (syncOrphanPod).
    """

    component = "job-orphan-controller"
    backoff_seconds = (1.0, 60.0)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._jobs, self._pods = self.cache(JOBS), self.cache(PODS)
        self._jobs.subscribe(self._job_changed)
        self._pods.subscribe(self._pod_changed)

    def _job_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        job = new or old
        assert job is not None
        if new is None or is_finished(new):
            for pod in self._pods.owned_by(job["metadata"]["uid"]):
                self._pod_changed(None, pod)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is None or not is_tracked(new):
            return
        job = owner_of(new, self._jobs, "Job")
        if not controller_uid(new) or (job is not None and is_finished(job)) or (job is None and is_terminating(new)):
            self.enqueue(new)

    async def reconcile(self, key: Key) -> float | None:
        pod = self._pods.get(key)
        if pod is None or not is_tracked(pod):
            return None
        ref, job = controller_of(pod), owner_of(pod, self._jobs, "Job")
        if ref is not None and (ref["kind"] != "Job" or (job is not None and not is_finished(job))):
            return None
        try:
            await self.carry_out(key, Amend(PODS, key, untracked(pod)))
        except ApiError as error:
            if not error.is_not_found:
                raise
        return None
