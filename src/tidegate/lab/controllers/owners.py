"""Controller references: who owns what, and what an owner should adopt or release.

Ownership is by uid, never by name (pkg/controller/controller_ref_manager.go): an object that names a dead
owner's namesake is nobody's to touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tidegate.kube.api import JsonObject, Patch
from tidegate.lab.controllers.labels import labels_of, matches
from tidegate.lab.controllers.pods import is_terminating


def controller_of(obj: JsonObject) -> JsonObject | None:
    """The one owner reference with ``controller: true``."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return dict(ref)
    return None


def controller_uid(obj: JsonObject) -> str:
    """The uid of the controlling owner; "" for an orphan."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return str(ref["uid"])
    return ""


def reference_to(owner: JsonObject) -> JsonObject:
    """The controller reference that marks ``owner``'s things (metav1.NewControllerRef)."""
    meta = owner["metadata"]
    ref = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"]}
    return ref | {"uid": meta["uid"], "controller": True, "blockOwnerDeletion": True}


@dataclass(frozen=True, slots=True)
class Claims:
    """What an owner has, would take and would let go."""

    owned: tuple[JsonObject, ...]
    adopt: tuple[JsonObject, ...]
    release: tuple[JsonObject, ...]


def anyone(obj: JsonObject) -> bool:
    """The membership rule of owners that go by labels alone."""
    return True


def claims(
    owner: JsonObject, candidates: Iterable[JsonObject], is_member: Callable[[JsonObject], bool] = anyone
) -> Claims:
    """ClaimObject for every candidate of the owner's namespace, by uid, selector and deletionTimestamp.

    What fits the selector and is no member (a StatefulSet goes by names too) is released, or left alone.
    """
    uid, selector = owner["metadata"]["uid"], owner["spec"].get("selector")
    owned, adopt, release = [], [], []
    for obj in candidates:
        holder, fits = controller_uid(obj), matches(selector, labels_of(obj)) and is_member(obj)
        if holder == uid:
            if fits:
                owned.append(obj)
            elif not is_terminating(owner):
                release.append(obj)
        elif not holder and fits and not is_terminating(owner) and not is_terminating(obj):
            adopt.append(obj)
    return Claims(tuple(owned), tuple(adopt), tuple(release))


def adoption(owner: JsonObject, obj: JsonObject, finalizer: str = "") -> Patch:
    """The patch that takes ``obj``; it fails when ``obj`` is meanwhile another object of that name."""
    refs = [*(obj["metadata"].get("ownerReferences") or ()), reference_to(owner)]
    meta = obj["metadata"]
    changes = [
        {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
        {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
        {"op": "add", "path": "/metadata/ownerReferences", "value": refs},
    ]
    held = list(meta.get("finalizers") or ())
    if finalizer and finalizer not in held:
        changes.append({"op": "add", "path": "/metadata/finalizers", "value": [*held, finalizer]})
    return Patch(changes, style="json")


def without_finalizer(obj: JsonObject, finalizer: str) -> list[JsonObject]:
    """The JSON patch operations that take one finalizer off; none when it is not there."""
    held = list(obj["metadata"].get("finalizers") or ())
    if finalizer not in held:
        return []
    kept = [name for name in held if name != finalizer]
    change: JsonObject = {"op": "remove", "path": "/metadata/finalizers"}
    return [change | {"op": "replace", "value": kept} if kept else change]


def without_owners(obj: JsonObject, uids: frozenset[str], finalizer: str = "") -> Patch:
    """The patch that removes the owner references with these uids, and the owner's finalizer with them."""
    meta = obj["metadata"]
    refs = [ref for ref in meta.get("ownerReferences") or () if ref["uid"] not in uids]
    change: JsonObject = {"op": "remove", "path": "/metadata/ownerReferences"}
    if refs:
        change = {"op": "replace", "path": "/metadata/ownerReferences", "value": refs}
    return Patch(
        [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
            change,
            *(without_finalizer(obj, finalizer) if finalizer else ()),
        ],
        style="json",
    )
