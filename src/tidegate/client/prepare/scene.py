"""What ``prepare`` looks at: everything as it stands, in an order that misses nothing.

First who makes pods (templates, and whether the controllers have seen them), then the pods, each list a quorum read: a
pod that a template without the label made is in the second list, or its template is in the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.engine.owners import KINDS
from tidegate.kube.api import (
    DEPLOYMENTS,
    ENDPOINTSLICES,
    PODS,
    SERVICES,
    Api,
    JsonObject,
    Selection,
)
from tidegate.kube.errors import ApiError
from tidegate.model import endpointslice, pod
from tidegate.model.decode import Malformed
from tidegate.model.endpointslice import SERVICE_LABEL, EndpointSlice
from tidegate.model.names import CUT_VALUE, PREPARED, PREPARED_REVISION, PrepareRecord, decode_drain, decode_prepare
from tidegate.model.pod import Pod
from tidegate.model.workload import HASH_LABEL, REVISION_ANNOTATION
from tidegate.traffic import listings
from tidegate.traffic.preparation import Edition, Member, Scene, Subject
from tidegate.traffic.revision import owner_of

REHEARSAL_PREFIX = "tidegate-prepare-"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_CONTROLLER = "endpointslice-controller.k8s.io"


@dataclass(frozen=True, slots=True)
class About:
    """Which Service gets a label of its own, and which Deployments give it to their pods."""

    namespace: str
    service: str
    deployments: tuple[str, ...]


@dataclass(slots=True)
class Sight:
    """The objects as they were read, by name, and the ``Scene`` they make. ``service`` is None where there is none."""

    service: JsonObject | None
    deployments: dict[str, JsonObject]
    rehearsal: JsonObject | None = None
    editions: dict[str, JsonObject] = field(default_factory=dict)
    pods: dict[str, JsonObject] = field(default_factory=dict)
    scene: Scene = field(default_factory=lambda: Scene({}, (), ()))


async def look(api: Api, about: About, key: str) -> Sight:
    """Everything as it stands. Raises ``KubeError`` (404 for an unknown Deployment) and ``Malformed``."""
    space = Selection(about.namespace)
    found = {name: await api.get(DEPLOYMENTS, name, about.namespace) for name in about.deployments}
    sight = Sight(await _get(api, about.service, about), found)
    workloads = {kind: (await api.list(resource, space)).items for kind, resource in KINDS.items()}
    selector = dict(((sight.service or {}).get("spec") or {}).get("selector") or {})
    base = {name: value for name, value in selector.items() if name != key}
    subjects = tuple(_subject(obj, workloads["ReplicaSet"], sight, key) for obj in found.values())
    listed = (await api.list(ENDPOINTSLICES, space)).items
    slices = [endpointslice.decode(obj) for obj in listed]
    own = [one for one in slices if one.service == about.service]
    record = record_of(sight.service)
    sight.rehearsal = await _get(api, rehearsal_name(record.token), about) if record is not None else None
    other = [one for one in slices if sight.rehearsal is not None and one.service == _name(sight.rehearsal)]
    names = _owners(workloads)
    members = []
    for obj in (await api.list(PODS, space)).items:
        one = pod.decode(obj)
        owner = owner_of(one)
        workload = "pod" if owner is None else names.get(owner.uid, f"{owner.kind}/{owner.name}")
        member = member_of(one, workload, key)
        # Of a Service that is gone, nothing tells which pods it selected: those of the Deployments.
        is_selected = _selects(base, one.labels) if sight.service else member.workload.partition("/")[2] in found
        if is_selected and not one.is_finished:
            sight.pods[one.name] = obj
            is_silent = not one.is_ready or one.is_terminating
            is_listed, is_rehearsed = (is_silent or _is_ready_in(one, them) for them in (own, other))
            members.append(replace(member, is_listed=is_listed, is_rehearsed=is_rehearsed))
    sight.scene = Scene(
        selector=selector,
        subjects=subjects,
        members=tuple(members),
        sources=tuple(_sources(workloads, about, base)),
        record=record,
        rehearsal=dict(sight.rehearsal["spec"].get("selector") or {}) if sight.rehearsal is not None else None,
        is_shown=_is_shown(sight.service, listed),
    )
    return sight


def rehearsal_name(token: str) -> str:
    """Of the Service that nobody asks, in the Service's namespace."""
    return f"{REHEARSAL_PREFIX}{token}"


def _is_shown(obj: JsonObject | None, slices: Iterable[JsonObject]) -> bool:
    """Whether its slices bear the label it got with its selector: its controller copies a Service's labels."""
    if obj is None:
        return False
    wanted = (obj["metadata"].get("labels") or {}).get(PREPARED)
    labels = [one["metadata"].get("labels") or {} for one in slices]
    own = [one for one in labels if one.get(SERVICE_LABEL) == _name(obj) and one.get(_MANAGED_BY) == _CONTROLLER]
    return wanted is not None and bool(own) and all(one.get(PREPARED) == wanted for one in own)


def record_of(obj: JsonObject | None) -> PrepareRecord | None:
    """The record on a Service or a Deployment. Raises ``Malformed``."""
    return decode_prepare(annotations_of(obj)) if obj is not None else None


def annotations_of(obj: JsonObject) -> dict[str, str]:
    return dict(obj["metadata"].get("annotations") or {})


def template_labels(obj: JsonObject) -> dict[str, str]:
    """The labels that pods of a workload are made with."""
    return dict(((((obj.get("spec") or {}).get("template") or {}).get("metadata")) or {}).get("labels") or {})


def _name(obj: JsonObject) -> str:
    return str(obj["metadata"]["name"])


async def _get(api: Api, name: str, about: About) -> JsonObject | None:
    try:
        return await api.get(SERVICES, name, about.namespace)
    except ApiError as error:
        if not error.is_not_found:
            raise
        return None


def _selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def _controller(obj: JsonObject) -> tuple[str, str, str]:
    """(kind, name, uid) of the controlling owner; empty strings without one."""
    for one in obj["metadata"].get("ownerReferences") or ():
        if one.get("controller"):
            return one["kind"], one["name"], one["uid"]
    return "", "", ""


def _owners(workloads: dict[str, list[JsonObject]]) -> dict[str, str]:
    """uid of a ReplicaSet -> its Deployment as ``Deployment/name``, or itself."""
    found = {}
    for obj in workloads["ReplicaSet"]:
        kind, name, _ = _controller(obj)
        found[obj["metadata"]["uid"]] = f"{kind}/{name}" if kind else f"ReplicaSet/{obj['metadata']['name']}"
    return found


def _is_ready_in(one: Pod, slices: Iterable[EndpointSlice]) -> bool:
    return any(entry.endpoint.is_ready for entry in listings(one, slices))


def member_of(one: Pod, workload: str, key: str) -> Member:
    """A pod as ``prepare`` sees it. ``workload``: Kind/name."""
    return Member(
        name=one.name,
        workload=workload,
        labels=one.labels,
        is_leaving=one.is_terminating,
        is_kept_out=_is_kept_out(one, key),
    )


def _is_kept_out(one: Pod, key: str) -> bool:
    """Whether the label keeps it out of the Service: flipped by a verb, or taken off by hand."""
    if one.labels.get(key) == CUT_VALUE:
        return True
    try:
        record = decode_drain(one.annotations)
    except Malformed:
        return True
    return key not in one.labels or (record is not None and key in record.changed)


def _sources(workloads: dict[str, list[JsonObject]], about: About, base: dict[str, str]) -> Iterable[Any]:
    """Workloads beside ours whose template the Service selects, those without a pod now too."""
    for kind, objects in sorted(workloads.items()):
        for obj in objects:
            owner = _controller(obj)[0]
            if (kind == "Deployment" and obj["metadata"]["name"] in about.deployments) or owner == "Deployment":
                continue
            if "deletionTimestamp" not in obj["metadata"] and _selects(base, template_labels(obj)):
                yield f"{kind}/{obj['metadata']['name']}", template_labels(obj)


def _subject(obj: JsonObject, replicasets: list[JsonObject], sight: Sight, key: str) -> Subject:
    uid, status, spec = obj["metadata"]["uid"], obj.get("status") or {}, obj["spec"]
    revision = annotations_of(obj).get(REVISION_ANNOTATION, "")
    own = [one for one in replicasets if _controller(one)[2] == uid]
    current = next((one for one in own if annotations_of(one).get(REVISION_ANNOTATION) == revision), None)
    sight.editions.update({one["metadata"]["name"]: one for one in own})
    is_observed = (status.get("observedGeneration") or 0) >= obj["metadata"].get("generation", 0)
    made, updated = status.get("replicas") or 0, status.get("updatedReplicas") or 0
    live = [one for one in own if one["spec"].get("replicas") or (one.get("status") or {}).get("replicas")]
    is_single = is_observed and made == updated and all(one is current for one in live)
    wanted = spec.get("replicas", 1)
    return Subject(
        name=obj["metadata"]["name"],
        labels=template_labels(obj),
        editions=tuple(_edition(one, current, key) for one in own),
        is_paused=bool(spec.get("paused")),
        is_observed=is_observed,
        is_single=is_single,
        is_complete=is_single and updated == wanted == (status.get("availableReplicas") or 0),
        record=record_of(obj),
        text=annotations_of(obj).get(PREPARED, ""),
    )


def _edition(obj: JsonObject, current: JsonObject | None, key: str) -> Edition:
    status = obj.get("status") or {}
    marks = (obj["spec"]["template"].get("metadata") or {}).get("annotations") or {}
    return Edition(
        name=obj["metadata"]["name"],
        labels={name: value for name, value in template_labels(obj).items() if name != HASH_LABEL},
        replicas=obj["spec"].get("replicas") or 0,
        is_current=obj is current,
        is_observed=(status.get("observedGeneration") or 0) >= obj["metadata"].get("generation", 0),
        mark=marks.get(PREPARED_REVISION, ""),
        is_twin=current is not None and _kernel(obj, key) == _kernel(current, key),
        copy=annotations_of(obj).get(PREPARED, ""),
    )


def _kernel(obj: JsonObject, key: str) -> JsonObject:
    """A template without the labels that tell revisions apart."""
    template: JsonObject = obj["spec"]["template"]
    labels = {name: value for name, value in template_labels(obj).items() if name not in (HASH_LABEL, key)}
    return {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}}
