"""Revisions of a Deployment: which ReplicaSet is the new one, its name, its number, its annotations.

Follows pkg/controller/deployment/util/deployment_util.go and sync.go (getNewReplicaSet).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.fenceposts import fenceposts, replicas
from tidegate.lab.controllers.labels import annotations_of
from tidegate.lab.controllers.owners import reference_to
from tidegate.lab.controllers.writes import with_metadata
from tidegate.lab.instants import parse_stamp

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = {REVISION, HISTORY, DESIRED, MAX_REPLICAS, "kubectl.kubernetes.io/last-applied-configuration"}
_HISTORY_LENGTH_MAX = 2000

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


def template_of(obj: JsonObject) -> JsonObject:
    """The pod template without the hash label and without nulls: what makes two revisions equal."""
    template = obj["spec"]["template"]
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value is not None}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
    return {**template, "metadata": {**meta, "labels": labels}}


def template_hash(deployment: JsonObject) -> str:
    """The pod-template-hash: FNV-32a of the template, each decimal digit in the alphabet of generated names.

    Stable for one template (key order does not matter) and another one after each name collision.
    """
    text = json.dumps(template_of(deployment), sort_keys=True, separators=(",", ":"))
    text += str((deployment.get("status") or {}).get("collisionCount") or "")
    value = _FNV_OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return encoded_hash(value)


def encoded_hash(value: int) -> str:
    """A hash as names carry it: each decimal digit in the alphabet of generated names (rand.SafeEncodeString)."""
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(value))


def born(obj: JsonObject) -> tuple[datetime, str]:
    """Sort key: creation time, then name."""
    meta = obj["metadata"]
    return parse_stamp(meta.get("creationTimestamp")) or _EPOCH, meta["name"]


def revision(obj: JsonObject) -> int:
    """The revision number in the annotations; 0 when absent or unreadable."""
    try:
        return int(annotations_of(obj).get(REVISION) or 0)
    except ValueError:
        return 0


def split(deployment: JsonObject, owned: Iterable[JsonObject]) -> tuple[JsonObject | None, list[JsonObject]]:
    """The new ReplicaSet (the oldest whose template is the Deployment's) and all others."""
    ordered = sorted(owned, key=born)
    wanted = template_of(deployment)
    new = next((replicaset for replicaset in ordered if template_of(replicaset) == wanted), None)
    return new, [replicaset for replicaset in ordered if replicaset is not new]


def annotated(deployment: JsonObject, new: JsonObject, number: int) -> JsonObject:
    """The new ReplicaSet with the Deployment's annotations and revision; the same object when nothing changes.

    A ReplicaSet rolled back to keeps its earlier numbers in the history annotation.
    """
    annotations = dict(annotations_of(new))
    copied = {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED}
    annotations |= copied
    old = annotations.get(REVISION)
    if revision(new) < number:
        annotations[REVISION] = str(number)
        if old is not None:
            annotations[HISTORY] = _history(annotations.get(HISTORY, ""), old)
    if annotations == annotations_of(new):
        return new
    return with_metadata(new, annotations=annotations)


def _history(history: str, old: str) -> str:
    numbers = [*history.split(","), old] if history else [old]
    while len(numbers) > 1 and len(",".join(numbers)) > _HISTORY_LENGTH_MAX:
        numbers.pop(0)
    return ",".join(numbers)


def sized(replicaset: JsonObject, size: int, deployment: JsonObject) -> JsonObject:
    """The ReplicaSet at ``size``, its annotations saying what the Deployment wants; the same object if so already."""
    desired = replicas(deployment)
    wanted = {DESIRED: str(desired), MAX_REPLICAS: str(desired + fenceposts(deployment).surge)}
    annotations = annotations_of(replicaset)
    if replicas(replicaset) == size and all(annotations.get(key) == value for key, value in wanted.items()):
        return replicaset
    changed = with_metadata(replicaset, annotations={**annotations, **wanted})
    return {**changed, "spec": {**replicaset["spec"], "replicas": size}}


def first_edition(deployment: JsonObject, number: int) -> JsonObject:
    """A new ReplicaSet for the Deployment's template, with no replicas yet."""
    meta, spec = deployment["metadata"], deployment["spec"]
    digest = template_hash(deployment)
    template = spec["template"]
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    selector = spec["selector"]
    selector = {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}}
    annotations = {key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED}
    replicaset: JsonObject = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": {**annotations, REVISION: str(number)},
            "ownerReferences": [reference_to(deployment)],
        },
        "spec": {
            "replicas": 0,
            "selector": selector,
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }
    if spec.get("minReadySeconds"):
        replicaset["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return replicaset
