"""What a StatefulSet does next, as a pure question: which pods to make, mend and end, and its status.

Follows pkg/controller/statefulset/stateful_set_control.go (updateStatefulSet) in its order: the pods of the wanted
ordinals, those beyond, then one pod of an old revision. OrderedReady stops at the first pod that is not available.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.fenceposts import replicas
from tidegate.lab.controllers.history import restored
from tidegate.lab.controllers.pods import is_available, is_ready, is_terminal, is_terminating, phase
from tidegate.lab.controllers.statefulset_pods import (
    has_identity,
    has_storage,
    is_in_range,
    is_unavailable,
    new_pod,
    ordinal,
    revision_of,
    start_ordinal,
    with_identity,
    with_storage,
)


@dataclass(frozen=True, slots=True)
class View:
    """All that one pass may look at. ``pods`` are claimed; ``current`` and ``update`` are ControllerRevisions."""

    stateful: JsonObject
    pods: tuple[JsonObject, ...]
    current: JsonObject
    update: JsonObject
    now: datetime
    collisions: int = 0

    @property
    def patience(self) -> int:
        return int(self.stateful["spec"].get("minReadySeconds") or 0)

    @property
    def is_ordered(self) -> bool:
        return bool(self.stateful["spec"].get("podManagementPolicy") != "Parallel")

    @property
    def has_rolling_update(self) -> bool:
        strategy = self.stateful["spec"].get("updateStrategy") or {}
        return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")

    @property
    def partition(self) -> int | None:
        """None without ``rollingUpdate`` parameters."""
        rolling = (self.stateful["spec"].get("updateStrategy") or {}).get("rollingUpdate")
        return None if rolling is None else int(rolling.get("partition") or 0)


@dataclass(frozen=True, slots=True)
class Make:
    """Create the pod, its claims first."""

    pod: JsonObject


@dataclass(frozen=True, slots=True)
class Furnish:
    """Create the claims a pending pod still lacks."""

    pod: JsonObject


@dataclass(frozen=True, slots=True)
class Mend:
    """Put the pod's labels and volumes right."""

    pod: JsonObject


@dataclass(frozen=True, slots=True)
class End:
    """Delete the pod."""

    pod: JsonObject


Act = Make | Furnish | Mend | End


@dataclass(frozen=True, slots=True)
class Step:
    """The acts of one pass, for one pod each (often none), in three stages; a stage with an error is the last.

    A pod without acts keeps its place: Parallel works in batches of one, two, four... of all pods, and what comes
    after the batch of a failure is not tried.
    ``status`` is right when all goes well, ``failed_status`` when an act failed.
    """

    replicas: tuple[tuple[Act, ...], ...] = ()
    condemned: tuple[tuple[Act, ...], ...] = ()
    updated: tuple[tuple[Act, ...], ...] = ()
    status: JsonObject = field(default_factory=dict)
    failed_status: JsonObject = field(default_factory=dict)


def plan(view: View) -> Step:
    """The acts of one pass over a StatefulSet and the pods it has claimed."""
    if is_terminating(view.stateful):
        status = _status(view, view.pods)
        return Step(status=status, failed_status=status)
    wanted, condemned = _sorted_out(view)
    status = _status(view, [*wanted, *condemned])
    step = Step(status=status, failed_status=status)
    step, is_stopped = _live(view, wanted, step)
    if not is_stopped:
        step, is_stopped = _shrink(view, [*wanted, *reversed(condemned)], condemned, step)
    if not is_stopped and view.has_rolling_update:
        step = _roll(view, wanted, step)
    return replace(step, status=_completed(view, step.status), failed_status=_completed(view, step.failed_status))


def _sorted_out(view: View) -> tuple[list[JsonObject], list[JsonObject]]:
    """The pods of the wanted ordinals (those that are missing as they would be made), and those beyond, descending."""
    present = {ordinal(pod): pod for pod in view.pods if is_in_range(view.stateful, pod)}
    beyond = [pod for pod in view.pods if ordinal(pod) >= 0 and not is_in_range(view.stateful, pod)]
    start = start_ordinal(view.stateful)
    numbers = range(start, start + replicas(view.stateful))
    return [present.get(number) or _version(view, number) for number in numbers], sorted(
        beyond, key=ordinal, reverse=True
    )


def _version(view: View, number: int) -> JsonObject:
    """A new pod: of the current revision below the partition, of the update revision from there on."""
    start = start_ordinal(view.stateful)
    status = view.stateful.get("status") or {}
    held = view.partition if view.partition is not None else int(status.get("currentReplicas") or 0)
    is_old = (view.has_rolling_update or view.partition is not None) and number < start + held
    revision = view.current if is_old else view.update
    return new_pod(restored(view.stateful, revision), number, revision["metadata"]["name"])


def _live(view: View, wanted: list[JsonObject], step: Step) -> tuple[Step, bool]:
    """The stage of the wanted ordinals; True when nothing may follow it."""
    acts = []
    for pod in wanted:
        of_pod, is_stopped = _for_replica(view, pod)
        acts.append(of_pod)
        if is_stopped and view.is_ordered:
            return replace(step, replicas=tuple(acts)), True
    return replace(step, replicas=tuple(acts)), False


def _for_replica(view: View, pod: JsonObject) -> tuple[tuple[Act, ...], bool]:
    """processReplica: the acts for one pod, and whether OrderedReady waits for it."""
    if is_terminal(pod):
        return (() if is_terminating(pod) else (End(pod),)), True
    if not phase(pod):
        return (Make(pod),), True
    acts: list[Act] = []
    if phase(pod) == "Pending" and view.stateful["spec"].get("volumeClaimTemplates"):
        acts.append(Furnish(pod))
    is_waiting = is_terminating(pod) or phase(pod) != "Running" or not is_available(pod, view.patience, view.now)
    if is_waiting and view.is_ordered:
        return tuple(acts), True
    if not has_identity(pod) or not has_storage(view.stateful, pod):
        acts.append(Mend(with_storage(view.stateful, with_identity(pod))))
    return tuple(acts), False


def _shrink(view: View, everyone: list[JsonObject], condemned: list[JsonObject], step: Step) -> tuple[Step, bool]:
    """The stage of the pods beyond the wanted ordinals; in order, one at a time, and none while another is unwell."""
    if not view.is_ordered:
        ends: tuple[tuple[Act, ...], ...] = tuple(() if is_terminating(pod) else (End(pod),) for pod in condemned)
        return replace(step, condemned=ends), False
    if not condemned:
        return step, False
    first_unwell = next((pod for pod in everyone if is_unavailable(pod, view.patience, view.now)), None)
    target = condemned[0]
    is_well = phase(target) == "Running" and is_available(target, view.patience, view.now)
    if is_terminating(target) or (not is_well and target is not first_unwell):
        return step, True
    return replace(step, condemned=((End(target),),)), True


def _roll(view: View, wanted: list[JsonObject], step: Step) -> Step:
    """The stage of the update: the highest pod of another revision goes, unless one above it is not available yet."""
    name = view.update["metadata"]["name"]
    for pod in reversed(wanted[view.partition or 0 :]):
        if revision_of(pod) != name and not is_terminating(pod):
            status = {**step.status, "currentReplicas": step.status.get("currentReplicas", 0) - 1}
            if not status["currentReplicas"]:
                del status["currentReplicas"]
            return replace(step, updated=((End(pod),),), status=status)
        if is_unavailable(pod, view.patience, view.now):
            break
    return step


def _status(view: View, pods: Iterable[JsonObject]) -> JsonObject:
    """The status of pods as they are; one that is still to be made does not count."""
    made = [pod for pod in pods if phase(pod)]
    staying = [revision_of(pod) for pod in made if not is_terminating(pod)]
    ready = [pod for pod in made if phase(pod) == "Running" and is_ready(pod)]
    current, update = view.current["metadata"]["name"], view.update["metadata"]["name"]
    counts = {
        "readyReplicas": len(ready),
        "currentReplicas": staying.count(current),
        "updatedReplicas": staying.count(update),
        "observedGeneration": view.stateful["metadata"].get("generation") or 0,
    }
    status: JsonObject = {key: count for key, count in counts.items() if count}
    status |= {"replicas": len(made), "currentRevision": current, "updateRevision": update}
    status["availableReplicas"] = sum(is_available(pod, view.patience, view.now) for pod in ready)
    return status | {"collisionCount": view.collisions}


def _completed(view: View, status: JsonObject) -> JsonObject:
    """completeRollingUpdate: once all pods are of the update revision and ready, it is the current one."""
    wanted = replicas(view.stateful)
    counts = (status.get("updatedReplicas", 0), status.get("readyReplicas", 0), status["replicas"])
    if not view.has_rolling_update or counts != (wanted, wanted, wanted):
        return status
    done = {**status, "currentReplicas": wanted, "currentRevision": status["updateRevision"]}
    if not wanted:
        del done["currentReplicas"]
    return done
