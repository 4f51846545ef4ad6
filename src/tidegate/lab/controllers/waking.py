"""Whom a change wakes: an object's owner before and after, those who could adopt it, the Services that select it."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.cache import Cache
from tidegate.lab.controllers.labels import has_all, labels_of, matches
from tidegate.lab.controllers.owners import controller_of, controller_uid


def owner_of(obj: JsonObject, owners: Cache, kind: str) -> JsonObject | None:
    """The controlling owner, if it is of ``kind`` and the copy has that very object (by uid)."""
    ref = controller_of(obj)
    if ref is None or ref["kind"] != kind:
        return None
    found = owners.get((obj["metadata"]["namespace"], ref["name"]))
    return found if found is not None and found["metadata"]["uid"] == ref["uid"] else None


def claimants(old: JsonObject | None, new: JsonObject | None, owners: Cache, kind: str) -> Iterator[JsonObject]:
    """The owner that lost the object, the one that has it; for an orphan, every owner that could adopt it."""
    if old is not None and (new is None or controller_uid(old) != controller_uid(new)):
        owner = owner_of(old, owners, kind)
        if owner is not None:
            yield owner
    if new is None:
        return
    if controller_uid(new):
        owner = owner_of(new, owners, kind)
        if owner is not None:
            yield owner
    elif old is None or labels_of(old) != labels_of(new) or controller_uid(old):
        for owner in owners.within(new["metadata"]["namespace"]):
            if matches(owner["spec"].get("selector"), labels_of(new)):
                yield owner


def selecting(old: JsonObject | None, new: JsonObject | None, services: Cache) -> Iterator[JsonObject]:
    """The Services that select a pod as it is, or as it was."""
    seen = [pod for pod in (old, new) if pod is not None]
    views = [labels_of(pod) for pod in seen]
    for service in services.within(seen[0]["metadata"]["namespace"]):
        selector = service["spec"].get("selector")
        if selector and any(has_all(selector, labels) for labels in views):
            yield service
