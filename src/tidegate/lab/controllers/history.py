"""ControllerRevisions: the pod templates a StatefulSet or a DaemonSet has had, by name and number.

Follows pkg/controller/history/controller_history.go. The data of a revision is the patch that restores the
template; its hash is FNV-1 over the bytes Go's JSON would have, so a StatefulSet's revisions are called here what a
real cluster calls them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.labels import annotations_of
from tidegate.lab.controllers.owners import reference_to
from tidegate.lab.controllers.revisions import born, encoded_hash

HASH_LABEL = "controller-revision-hash"
DATA_HASH_LABEL = "controller.kubernetes.io/hash"
_FNV_OFFSET, _FNV_PRIME = 0x811C9DC5, 0x01000193
_PREFIX_MAX = 223


def snapshot(owner: JsonObject) -> JsonObject:
    """The patch that brings back the owner's pod template (getPatch)."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def restored(owner: JsonObject, revision: JsonObject) -> JsonObject:
    """The owner with the template of a revision (ApplyRevision)."""
    template = {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}
    return {**owner, "spec": {**owner["spec"], "template": template}}


def data_hash(data: JsonObject, collisions: int) -> str:
    """FNV-1 (not 1a) of the data as Go marshals it: keys sorted, three characters escaped."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    value = _FNV_OFFSET
    for byte in (text + str(collisions)).encode():
        value = ((value * _FNV_PRIME) & 0xFFFFFFFF) ^ byte
    return encoded_hash(value)


def in_order(revisions: Iterable[JsonObject]) -> list[JsonObject]:
    """By number, then age, then name."""
    return sorted(revisions, key=lambda one: (one["revision"], *born(one)))


def next_number(revisions: Iterable[JsonObject]) -> int:
    """One more than the highest number."""
    return max((int(one["revision"]) for one in revisions), default=0) + 1


def new_revision(owner: JsonObject, number: int, digest: str, label: str) -> JsonObject:
    """A revision of the owner's template as it is, called after ``digest``, which stands in ``label`` too."""
    meta = owner["metadata"]
    labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    own = {"name": f"{meta['name'][:_PREFIX_MAX]}-{digest}", "namespace": meta["namespace"]}
    own |= {"labels": {**labels, label: digest}, "ownerReferences": [reference_to(owner)]}
    if annotations_of(owner):
        own["annotations"] = dict(annotations_of(owner))
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": own,
        "data": snapshot(owner),
        "revision": number,
    }


def superfluous(old: Iterable[JsonObject], limit: int, live: frozenset[str]) -> list[JsonObject]:
    """The lowest numbers beyond ``limit`` among revisions whose names are not ``live``. A limit below 0 keeps all."""
    history = [one for one in in_order(old) if one["metadata"]["name"] not in live]
    return history[: max(0, len(history) - limit)] if limit >= 0 else []
