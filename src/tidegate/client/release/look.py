"""Look: the objects of a workload and its releases, as they stand, and the ``Scene`` they make.

Deployments and ReplicaSets are read before pods: a pod that a template made is in the second list, or its template is
in the first; slices are read after both. What need not come before the other is asked for at once: a look is three
round trips, of some ten milliseconds each, and a rollback waits for several looks. ``api`` may be the API itself or an
operator's caches; what must be a quorum read is asked apart (asking).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.client.release import past
from tidegate.client.release.book import Entry
from tidegate.client.release.gate import is_half_gated, revision_of, why_ungatable
from tidegate.client.release.labels import half_labelled
from tidegate.drain.gating import CannotBeGated
from tidegate.engine.owners import KINDS, controller_uid
from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, PODS, REPLICASETS, SERVICES, Api, JsonObject, Selection
from tidegate.kube.errors import ApiError
from tidegate.model import endpointslice, pod
from tidegate.model.decode import Malformed
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.names import DRAIN, decode_drain, decode_result
from tidegate.model.pod import Pod
from tidegate.release import template as templates
from tidegate.release.scene import DELETION_COST, Edition, Member, Scene, Way
from tidegate.release.spec import Spec

DEFAULT_SURGE = DEFAULT_UNAVAILABLE = "25%"


@dataclass(slots=True)
class Sight:
    """The objects as they were read, by name, and the scene they make. ``pods_of`` is by revision.

    ``template`` is the whole template that is asked for, gated.
    """

    entry: Entry
    deployments: dict[str, JsonObject] = field(default_factory=dict)
    replicasets: dict[str, JsonObject] = field(default_factory=dict)
    pods: dict[str, JsonObject] = field(default_factory=dict)
    services: dict[str, JsonObject] = field(default_factory=dict)
    slices: tuple[EndpointSlice, ...] = ()
    slice_objects: tuple[JsonObject, ...] = ()
    autoscalers: dict[str, JsonObject] = field(default_factory=dict)
    pods_of: dict[str, list[Pod]] = field(default_factory=dict)
    template: JsonObject = field(default_factory=dict)
    route: JsonObject | None = None
    problems: list[str] = field(default_factory=list)
    scene: Scene = field(init=False)

    listed: dict[str, set[str]] = field(default_factory=dict)
    """Service -> uids of the pods that its slices list as ready; addresses, where an entry names no pod."""

    def is_listed(self, one: Pod, service: str = "") -> bool:
        """Whether the slices of ``service`` (of any, without) list the pod as ready."""
        found = [self.listed.get(service, set())] if service else list(self.listed.values())
        return any(one.uid in names or any(ip in names for ip in one.ips) for names in found)

    @property
    def deployment(self) -> JsonObject | None:
        """The user's own."""
        return self.deployments.get(self.entry.spec.workload)


async def look(api: Api, entry: Entry, now: float, endings: Mapping[str, str]) -> Sight:
    """Everything as it stands, of a rolling release. Raises ``KubeError``."""
    sight = await read(api, entry)
    sight.scene = _scene(sight, now, endings)
    return sight


async def read(api: Api, entry: Entry) -> Sight:
    """The objects of the namespace; no scene yet. Raises ``KubeError``."""
    sight = Sight(entry)
    space = Selection(entry.namespace)
    makers = (DEPLOYMENTS, REPLICASETS, SERVICES)
    found = await asyncio.gather(*(api.list(kind, space) for kind in makers))
    sight.deployments, sight.replicasets, sight.services = (_by_name(one.items) for one in found)
    sight.pods = _by_name((await api.list(PODS, space)).items)
    listed = (await api.list(ENDPOINTSLICES, space)).items
    sight.slices = _slices(listed, sight.problems)
    sight.slice_objects = tuple(listed)
    for one in sight.slices:
        names = (entry.uid or entry.addresses[0] for entry in one.endpoints if entry.is_ready)
        sight.listed.setdefault(one.service, set()).update(names)
    return sight


def _by_name(items: Iterable[JsonObject]) -> dict[str, JsonObject]:
    return {obj["metadata"]["name"]: obj for obj in items}


def _slices(items: Iterable[JsonObject], problems: list[str]) -> tuple[EndpointSlice, ...]:
    found = []
    for obj in items:
        try:
            found.append(endpointslice.decode(obj))
        except Malformed as error:
            problems.append(str(error))
    return tuple(found)


def _scene(sight: Sight, now: float, endings: Mapping[str, str]) -> Scene:
    entry, deployment = sight.entry, sight.deployment
    if deployment is None:
        why = f"$.spec.workload: there is no deployment/{entry.spec.workload} in namespace {entry.namespace}"
        return _bare(entry, now, why)
    base = deployment["spec"]["template"]
    problems, wish = sight.problems, entry.spec.rollback_to
    editions = rolling_editions(sight, deployment)
    back = next((one for one in editions if wish and one.revision == wish), None)
    try:
        is_past = bool(wish) and back is None  # its ReplicaSet is gone, or another strategy gave it its name
        sight.template = past.template_of(entry, wish, base) if is_past else templates.wanted(entry.spec, base)
        target = templates.fingerprint(sight.template)
        sight.template = templates.gated(sight.template)
    except ValueError as error:  # CannotBeGated is one
        if not isinstance(error, CannotBeGated) or entry.spec.ungated == "drain":
            problems.append(str(error))
        target = templates.fingerprint(sight.template) if sight.template else entry.status.fingerprint
    if back is not None:
        target = back.fingerprint
    problems += bare(entry.spec, editions, target)
    replicas = int(deployment["spec"].get("replicas", 1))
    is_recreated = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    if is_recreated and replicas and entry.spec.wish != "abort" and templates.fingerprint(base) != target:
        problems.append(
            f"$.spec.strategy: deployment/{entry.spec.workload} is of strategy Recreate, all of its pods end before a "
            "new one is made: make it RollingUpdate, or release it by bluegreen"
        )
    surge, unavailable = bounds(deployment, replicas)
    return Scene(
        now=now,
        spec=entry.spec,
        status=entry.status,
        target=target,
        replicas=replicas,
        floor=replicas - unavailable,
        surge=surge,
        editions=editions,
        ways=ways_of(sight),
        template=templates.fingerprint(base),
        endings=endings,
        problems=tuple(problems),
        generation=entry.generation,
    )


def bare(spec: Spec, editions: Iterable[Edition], target: str) -> list[str]:
    """Revisions that run, whose pods are to be drained and cannot be: they have no gate, nor would their twins."""
    return [
        f"revision {one.revision} runs without a gate and cannot be given one: {one.ungatable}; "
        "`--ungated proceed` lets its pods end unverified"
        for one in editions
        if one.ungatable and one.ungated and one.fingerprint != target and spec.ungated == "drain"
        # What is half gated is resumed first.
        if not one.is_half_gated
    ]


def _bare(entry: Entry, now: float, why: str) -> Scene:
    return Scene(now, entry.spec, entry.status, "", 0, 0, 0, (), problems=(why,), generation=entry.generation)


def bounds(deployment: JsonObject, replicas: int) -> tuple[int, int]:
    """maxSurge (rounded up) and maxUnavailable (rounded down) as numbers; not both 0, as the controller has it
    (deployment/util ResolveFenceposts)."""
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", DEFAULT_SURGE), replicas, math.ceil)
    unavailable = _share(rolling.get("maxUnavailable", DEFAULT_UNAVAILABLE), replicas, math.floor)
    return surge, 1 if surge == 0 and unavailable == 0 else min(unavailable, replicas)


def _share(value: int | str, replicas: int, rounded: Any) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return int(rounded(int(value[:-1]) * replicas / 100))
    return int(value)


# --- editions ---


def rolling_editions(sight: Sight, deployment: JsonObject) -> tuple[Edition, ...]:
    """The ReplicaSets of one Deployment that have pods, are to have some, or are the newest; oldest first."""
    uid, name = deployment["metadata"]["uid"], deployment["metadata"]["name"]
    status, metadata = deployment.get("status") or {}, deployment["metadata"]
    is_seen = (status.get("observedGeneration") or 0) >= metadata.get("generation", 0)
    is_stalled = any(
        one.get("type") == "Progressing" and one.get("reason") == "ProgressDeadlineExceeded"
        for one in status.get("conditions") or ()
    )
    own = [one for one in sight.replicasets.values() if controller_uid(one) == uid]
    current = templates.fingerprint(deployment["spec"]["template"])
    is_half_labelled = half_labelled(deployment, own, sight.services.values()) is not None
    found = []
    for one in sorted(own, key=_number):
        members = of_replicaset(sight, one)
        template = one["spec"]["template"]
        mark = templates.fingerprint(template)
        revision = revision_of(one)
        sight.pods_of[revision] = [pod.decode(sight.pods[member.name]) for member in members]
        found.append(
            Edition(
                revision=revision,
                deployment=name,
                fingerprint=mark,
                desired=int(one["spec"].get("replicas") or 0),
                members=members,
                is_base=True,
                is_observed=is_seen,
                is_paused=bool(deployment["spec"].get("paused")),
                is_stalled=is_stalled and mark == current,
                is_gated=templates.is_gated(template),
                ungatable=why_ungatable(one),
                is_half_gated=is_half_gated(deployment),
                is_half_labelled=is_half_labelled,
                failure=failure_of([one]),
                images=templates.images_of(template),
            )
        )
    return tuple(found)


def _number(replicaset: JsonObject) -> tuple[int, str]:
    notes = replicaset["metadata"].get("annotations") or {}
    text = notes.get("deployment.kubernetes.io/revision", "0")
    return (int(text) if text.isdigit() else 0), replicaset["metadata"]["name"]


def maker_uid(obj: JsonObject) -> str:
    """Of a pod's controller; of one that was let go to be drained by label, the controller that it had.

    Its twin stands in for it, and until its drain has ended it is a pod of its revision still, with its traffic: a
    drain that was killed midway has left it so, and nobody else would end it.
    """
    uid = controller_uid(obj)
    if uid or DRAIN not in (obj["metadata"].get("annotations") or {}):
        return uid
    try:
        record = decode_drain(obj["metadata"]["annotations"])
    except Malformed:
        return ""
    return record.owner.rpartition("/")[2] if record is not None and record.verb == "drain" else ""


def members_of(sight: Sight, owner_uid: str) -> tuple[Member, ...]:
    """The pods of one controller, by name; finished ones are none."""
    found = []
    for name, obj in sorted(sight.pods.items()):
        if maker_uid(obj) != owner_uid:
            continue
        try:
            one = pod.decode(obj)
        except Malformed as error:
            sight.problems.append(str(error))
            continue
        if not one.is_finished:
            found.append(_member(sight, name, one, obj))
    return tuple(found)


def of_replicaset(sight: Sight, obj: JsonObject) -> tuple[Member, ...]:
    """Its pods. Where it has minReadySeconds, no more of them are available than its controller says."""
    members = members_of(sight, obj["metadata"]["uid"])
    if not obj["spec"].get("minReadySeconds"):
        return members
    left, found = int((obj.get("status") or {}).get("availableReplicas") or 0), []
    for one in members:
        found.append(replace(one, is_available=one.is_available and left > 0))
        left -= one.is_available
    return tuple(found)


def failure_of(replicasets: Iterable[JsonObject]) -> str:
    """Why a pod could not be made, in the controller's words; "" where none was refused."""
    for obj in replicasets:
        for one in (obj.get("status") or {}).get("conditions") or ():
            if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
                return f"{one.get('reason', 'ReplicaFailure')}: {one.get('message', '')}".rstrip(": ")
    return ""


def _member(sight: Sight, name: str, one: Pod, obj: JsonObject) -> Member:
    try:
        result = decode_result(one.annotations)
    except Malformed:
        result = None
    cost = one.annotations.get(DELETION_COST, "0")
    is_counted = one.is_ready and not one.is_terminating and bool(controller_uid(obj))
    return Member(
        name=name,
        uid=one.uid,
        node=one.node,
        is_ready=is_counted,
        is_available=is_counted,
        is_leaving=one.is_terminating,
        is_gated=bool(controller_uid(obj)) and bool(one.gated) and set(one.gated) >= set(one.containers),
        is_listed=bool(controller_uid(obj)) and sight.is_listed(one),
        ending=str(result) if result is not None else "",
        problem=problem_of(obj),
        cost=int(cost) if cost.lstrip("-").isdigit() else 0,
        is_let_go=not controller_uid(obj) and not one.is_terminating and not one.is_gated,
        has_fallen=_has_fallen(one),
    )


def _has_fallen(one: Pod) -> bool:
    """Ready is False from the first status on, which says Initialized by the same second or later (kubelet 1.36,
    ``status_manager.go``): a False that is newer was a True before."""
    known = {condition.type: condition for condition in one.conditions}
    ready, begun = known.get("Ready"), known.get("Initialized")
    if one.is_ready or ready is None or begun is None or ready.since is None or begun.since is None:
        return False
    return ready.since > begun.since


_HEALTHY_WAITS = ("ContainerCreating", "PodInitializing")


def problem_of(obj: JsonObject) -> str:
    """Why a pod's containers do not run, in the kubelet's words, "" where nothing is wrong."""
    status = obj.get("status") or {}
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _HEALTHY_WAITS:
            message = str(waiting.get("message") or "").strip()
            return f"{waiting['reason']}: {message}" if message else str(waiting["reason"])
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return f"{one.get('reason', 'Unschedulable')}: {one.get('message', '')}".rstrip(": ")
    return ""


def ways_of(sight: Sight) -> tuple[Way, ...]:
    """The Services that select the workload's pods, or are the strategy's own."""
    deployment = sight.deployment
    labels = ((deployment or {}).get("spec", {}).get("template", {}).get("metadata") or {}).get("labels") or {}
    found = []
    for name, obj in sorted(sight.services.items()):
        selector = dict((obj.get("spec") or {}).get("selector") or {})
        if name == sight.entry.spec.service or (selector and selector.items() <= labels.items()):
            found.append(Way(name, selector))
    return tuple(found)


async def find_deployment(api: Api, namespace: str, name: str) -> JsonObject | None:
    """The workload, None where there is none. Raises ``KubeError``."""
    try:
        return await api.get(KINDS["Deployment"], name, namespace)
    except ApiError as error:
        if not error.is_not_found:
            raise
        return None
