"""What a Deployment does next, as a pure question: ``plan(view) -> writes``.

One pass follows pkg/controller/deployment (sync.go, rolling.go, recreate.go) in its order of acts: settle the
revision, create the new ReplicaSet, scale up within maxSurge, scale down within maxUnavailable, say how it goes.
Whoever asks again after each answer, with what has become of it, performs a rollout.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, JsonObject
from tidegate.kube.reflector import key_of
from tidegate.lab.controllers import conditions, progress
from tidegate.lab.controllers.fenceposts import fenceposts, is_rolling, replicas, reported
from tidegate.lab.controllers.labels import annotations_of
from tidegate.lab.controllers.pods import is_terminal, is_terminating
from tidegate.lab.controllers.revisions import (
    DESIRED,
    MAX_REPLICAS,
    REVISION,
    annotated,
    born,
    first_edition,
    revision,
    sized,
    split,
)
from tidegate.lab.controllers.writes import Create, Plan, Remove, Replace, Say, Write, with_metadata
from tidegate.lab.events import Event


@dataclass(frozen=True, slots=True)
class View:
    """All that one pass may look at. ``pods`` (of the ReplicaSets) matter to Recreate only."""

    deployment: JsonObject
    replicasets: tuple[JsonObject, ...]
    pods: tuple[JsonObject, ...]
    now: datetime


class _Done(Exception):
    """The pass ends here: what it wrote must be seen before anything else is decided."""


@dataclass
class _Pass:
    """The objects as they will be, and the writes that make them so."""

    view: View
    deployment: JsonObject
    new: JsonObject | None
    old: list[JsonObject]
    writes: list[Write] = field(default_factory=list)
    after_seconds: float | None = None

    @property
    def all(self) -> list[JsonObject]:
        return [*self.old, self.new] if self.new is not None else list(self.old)

    @property
    def active_old(self) -> list[JsonObject]:
        return [replicaset for replicaset in self.old if replicas(replicaset)]

    @property
    def desired(self) -> int:
        return replicas(self.deployment)

    def say(self, reason: str, message: str) -> None:
        self.writes.append(Say(self.deployment, Event("Normal", reason, message)))

    def scale(self, replicaset: JsonObject, size: int, *, only_if_resized: bool = True) -> JsonObject:
        """Bring one ReplicaSet to ``size`` (scaleReplicaSetAndRecordEvent); answers it as it will be."""
        before = replicas(replicaset)
        if only_if_resized and before == size:
            return replicaset
        changed = sized(replicaset, size, self.deployment)
        if changed is replicaset:
            return replicaset
        self.writes.append(Replace(REPLICASETS, changed))
        if before != size:
            direction = "up" if size > before else "down"
            name = replicaset["metadata"]["name"]
            self.say("ScalingReplicaSet", f"Scaled {direction} replica set {name} from {before} to {size}")
        if self.new is not None and key_of(changed) == key_of(self.new):
            self.new = changed
        self.old = [changed if key_of(other) == key_of(changed) else other for other in self.old]
        return changed

    def write_status(self, status: JsonObject, annotations: dict[str, str] | None = None) -> None:
        """Put a status (and the revision annotation, which travels with it) and end the pass."""
        obj = {**self.deployment, "status": status}
        if annotations is not None:
            obj = with_metadata(obj, annotations=annotations)
        self.writes.append(Replace(DEPLOYMENTS, obj, "status"))
        raise _Done


def plan(view: View) -> Plan:
    """The writes of one pass over a Deployment and the ReplicaSets it owns."""
    new, old = split(view.deployment, view.replicasets)
    step = _Pass(view, view.deployment, new, old)
    with suppress(_Done):
        _decide(step)
    return Plan(tuple(step.writes), step.after_seconds)


def _decide(step: _Pass) -> None:
    deployment = step.deployment
    if is_terminating(deployment):
        _sync_status(step)
        return
    _note_pause(step)
    if deployment["spec"].get("paused"):
        _settle_revision(step)
        _rescale(step)
        _clean_up(step)
        _sync_status(step)
    elif _is_scaling(step):
        _settle_revision(step)
        _rescale(step)
        _sync_status(step)
    elif is_rolling(deployment):
        _roll(step)
    else:
        _recreate(step)


def _note_pause(step: _Pass) -> None:
    """Paused time does not count towards the deadline: Progressing says Unknown at both ends of a pause."""
    if not progress.has_deadline(step.deployment):
        return
    status = progress.status_of(step.deployment)
    current = progress.progressing(status)
    reason = current.get("reason") if current else None
    if reason == "ProgressDeadlineExceeded":
        return
    paused = bool(step.deployment["spec"].get("paused"))
    if paused == (reason == "DeploymentPaused"):
        return
    word = "paused" if paused else "resumed"
    condition = conditions.made(
        progress.PROGRESSING, "Unknown", f"Deployment{word.title()}", f"Deployment is {word}", step.view.now
    )
    kept = conditions.placed(list(status.get("conditions") or []), condition)
    step.write_status({**status, "conditions": kept})


def _settle_revision(step: _Pass, *, create: bool = False) -> None:
    """The new ReplicaSet with its annotations and revision, made when asked for (getNewReplicaSet)."""
    number = max((revision(replicaset) for replicaset in step.old), default=0) + 1
    if step.new is None:
        if create:
            _create(step, number)
        return
    changed = annotated(step.deployment, step.new, number)
    ready = step.deployment["spec"].get("minReadySeconds") or 0
    if (changed["spec"].get("minReadySeconds") or 0) != ready:
        changed = {**changed, "spec": {**changed["spec"], "minReadySeconds": ready}}
    if changed is not step.new:
        step.new = changed
        step.writes.append(Replace(REPLICASETS, changed))
        return
    status = progress.status_of(step.deployment)
    annotations = dict(annotations_of(step.deployment))
    annotations[REVISION] = annotations_of(step.new).get(REVISION, str(number))
    is_new = progress.has_deadline(step.deployment) and progress.progressing(status) is None
    if is_new:
        text = f'Found new replica set "{step.new["metadata"]["name"]}"'
        condition = conditions.made(progress.PROGRESSING, "True", "FoundNewReplicaSet", text, step.view.now)
        kept = conditions.placed(list(status.get("conditions") or []), condition)
        status = {**status, "conditions": kept}
    if is_new or annotations != annotations_of(step.deployment):
        step.write_status(status, annotations)


def _create(step: _Pass, number: int) -> None:
    """Make the new ReplicaSet at the size the surge allows; the Deployment takes its revision."""
    edition = first_edition(step.deployment, number)
    size = _surged(step, [*step.old, edition], edition)
    edition = sized(edition, size, step.deployment)
    name = edition["metadata"]["name"]
    step.writes.append(Create(REPLICASETS, edition))
    if size:
        step.say("ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}")
    status = progress.status_of(step.deployment)
    if progress.has_deadline(step.deployment):
        text = f'Created new replica set "{name}"'
        condition = conditions.made(progress.PROGRESSING, "True", "NewReplicaSetCreated", text, step.view.now)
        kept = conditions.placed(list(status.get("conditions") or []), condition)
        status = {**status, "conditions": kept}
    step.write_status(status, {**annotations_of(step.deployment), REVISION: str(number)})


def _surged(step: _Pass, everything: Iterable[JsonObject], new: JsonObject) -> int:
    """The size of the new ReplicaSet that replicas + maxSurge allows now (NewRSNewReplicas)."""
    if not is_rolling(step.deployment):
        return step.desired
    room = step.desired + fenceposts(step.deployment).surge - sum(replicas(one) for one in everything)
    return replicas(new) + max(0, min(room, step.desired - replicas(new)))


def _roll(step: _Pass) -> None:
    _settle_revision(step, create=True)
    assert step.new is not None
    size = replicas(step.new)
    if size > step.desired:
        step.scale(step.new, step.desired)
    elif size < step.desired:
        step.scale(step.new, _surged(step, step.all, step.new))
    if replicas(step.new) == size and not _shrink(step):
        _clean_up_when_complete(step)
    _sync_rollout(step)


def _shrink(step: _Pass) -> bool:
    """Scale old ReplicaSets down as far as maxUnavailable allows, unready pods first (reconcileOldReplicaSets)."""
    assert step.new is not None
    if not step.active_old:
        return False
    floor = step.desired - fenceposts(step.deployment).unavailable
    unready_new = replicas(step.new) - reported(step.new, "availableReplicas")
    spare = sum(replicas(replicaset) for replicaset in step.all) - floor - unready_new
    if spare <= 0 or any(_is_stale(replicaset) for replicaset in step.active_old):
        return False
    before = len(step.writes)
    for replicaset in sorted(step.active_old, key=born):
        unready = replicas(replicaset) - reported(replicaset, "availableReplicas")
        if spare > 0 and unready > 0:
            step.scale(replicaset, replicas(replicaset) - min(spare, unready))
            spare -= min(spare, unready)
    counted = [*step.active_old, step.new]
    spare = sum(reported(replicaset, "availableReplicas") for replicaset in counted) - floor
    for replicaset in sorted(step.active_old, key=born):
        count = min(replicas(replicaset), spare)
        if count > 0:
            step.scale(replicaset, replicas(replicaset) - count)
            spare -= count
    return len(step.writes) > before


def _is_stale(replicaset: JsonObject) -> bool:
    """More available pods than replicas: the status is from before the last scaling, and its pods are going.

    The real controller fails such a pass with "got invalid request to scale down" and tries again.
    """
    return reported(replicaset, "availableReplicas") > replicas(replicaset)


def _recreate(step: _Pass) -> None:
    """All old pods must be gone from the API, or terminal, before the first new one is made."""
    _settle_revision(step)
    if step.active_old:
        for replicaset in step.active_old:
            step.scale(replicaset, 0)
        _sync_rollout(step)
        return
    new_uid = step.new["metadata"]["uid"] if step.new is not None else ""
    running = any(not is_terminal(pod) and not _is_owned_by(pod, new_uid) for pod in step.view.pods) or any(
        reported(replicaset, "replicas") for replicaset in step.old
    )
    if not running:
        if step.new is None:
            _settle_revision(step, create=True)
        assert step.new is not None
        step.scale(step.new, step.desired)
        _clean_up_when_complete(step)
    _sync_rollout(step)


def _is_owned_by(pod: JsonObject, uid: str) -> bool:
    return any(ref["uid"] == uid for ref in pod["metadata"].get("ownerReferences") or ())


def _is_scaling(step: _Pass) -> bool:
    """True when an active ReplicaSet was sized for another number of replicas."""
    _settle_revision(step)
    for replicaset in step.all:
        noted = annotations_of(replicaset).get(DESIRED)
        if replicas(replicaset) and noted is not None and noted != str(step.desired):
            return True
    return False


def _rescale(step: _Pass) -> None:
    """Spread a changed number of replicas over the active ReplicaSets in proportion (sync.go scale)."""
    active = [replicaset for replicaset in step.all if replicas(replicaset)]
    if len(active) <= 1:
        newest = max(step.old, key=born) if step.old else None
        target = active[0] if active else (step.new or newest)
        if target is not None:
            step.scale(target, step.desired)
        return
    if _is_saturated(step):
        for replicaset in step.active_old:
            step.scale(replicaset, 0)
        return
    if not is_rolling(step.deployment):
        return
    allowed = step.desired + fenceposts(step.deployment).surge if step.desired else 0
    to_add = allowed - sum(replicas(replicaset) for replicaset in active)
    active.sort(key=born, reverse=to_add >= 0)
    active.sort(key=replicas, reverse=True)
    sizes, added = [], 0
    for replicaset in active:
        share = _share(step, replicaset, to_add, added)
        sizes.append(replicas(replicaset) + share)
        added += share
    sizes[0] = max(0, sizes[0] + to_add - added)
    for replicaset, size in zip(active, sizes, strict=True):
        step.scale(replicaset, size, only_if_resized=False)


def _is_saturated(step: _Pass) -> bool:
    """The new ReplicaSet is sized for the Deployment and all of it is available (IsSaturated)."""
    new = step.new
    if new is None or annotations_of(new).get(DESIRED) != str(step.desired):
        return False
    return replicas(new) == step.desired == reported(new, "availableReplicas")


def _share(step: _Pass, replicaset: JsonObject, to_add: int, added: int) -> int:
    """One ReplicaSet's part of a scaling, never beyond what is left (GetReplicaSetProportion)."""
    size = replicas(replicaset)
    if not size or to_add == added:
        return 0
    if step.desired == 0:
        part = -size
    else:
        ceiling = step.desired + fenceposts(step.deployment).surge
        noted = annotations_of(replicaset).get(MAX_REPLICAS, "")
        before = int(noted) if noted.isdigit() and int(noted) else reported(step.deployment, "replicas")
        if not before:
            return 0
        part = _rounded(size * ceiling / before) - size
    return min(part, to_add - added) if to_add > 0 else max(part, to_add - added)


def _rounded(value: float) -> int:
    """Half away from zero, as Go's integer.RoundToInt32."""
    return int(value - 0.5) if value < 0 else int(value + 0.5)


def _clean_up_when_complete(step: _Pass) -> None:
    if progress.is_complete(step.deployment, progress.status_of(step.deployment)):
        _clean_up(step)


def _clean_up(step: _Pass) -> None:
    """Forget the oldest empty revisions beyond revisionHistoryLimit."""
    limit = step.deployment["spec"].get("revisionHistoryLimit")
    if limit is None or limit == 2**31 - 1:
        return
    alive = sorted((one for one in step.old if not is_terminating(one)), key=lambda one: (revision(one), born(one)))
    for replicaset in alive[: max(0, len(alive) - limit)]:
        meta = replicaset["metadata"]
        observed = reported(replicaset, "observedGeneration") >= (meta.get("generation") or 0)
        if not replicas(replicaset) and not reported(replicaset, "replicas") and observed:
            step.writes.append(Remove(REPLICASETS, key_of(replicaset)))


def _sync_status(step: _Pass) -> None:
    _put(step, progress.counted(step.deployment, step.all, step.new, step.view.now))


def _sync_rollout(step: _Pass) -> None:
    status = progress.rolled(step.deployment, step.all, step.new, step.view.now)
    if status == progress.status_of(step.deployment):
        step.after_seconds = progress.seconds_to_deadline(step.deployment, status, step.view.now)
    _put(step, status)


def _put(step: _Pass, status: JsonObject) -> None:
    if status != progress.status_of(step.deployment):
        step.write_status(status)
