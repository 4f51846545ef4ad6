"""The garbage collector: what is owned goes with its owners, by uid (pkg/controller/garbagecollector).

Background: the owner is gone, its dependents follow. Foreground: the owner stays, marked, until the dependents
that block it are gone. Orphan: the dependents lose the reference first. A dependent with a living owner stays
and only loses its references to the dead ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from tidegate.kube.api import Deletion, JsonObject, Patch, Resource
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.controllers.owners import without_owners
from tidegate.lab.controllers.pods import is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.writes import Amend, Remove, Write

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Item:
    """One object of the graph."""

    resource: Resource
    obj: JsonObject

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    @property
    def owners(self) -> tuple[JsonObject, ...]:
        return tuple(self.obj["metadata"].get("ownerReferences") or ())

    def holds(self, finalizer: str) -> bool:
        """The finalizer stands on the object."""
        return finalizer in (self.obj["metadata"].get("finalizers") or ())

    @property
    def is_waiting_for_dependents(self) -> bool:
        """In foreground deletion."""
        return is_terminating(self.obj) and self.holds(FOREGROUND)


@dataclass(frozen=True, slots=True)
class Owners:
    """An item's owner references, sorted by what became of the owners."""

    solid: tuple[str, ...]
    waiting: tuple[str, ...]
    dangling: tuple[str, ...]


def propagation(item: Item, owners: Owners, *, has_dependents: bool) -> str:
    """How an item without a solid owner is to be deleted; "" when it is to be kept."""
    if owners.solid:
        return ""
    if owners.waiting and has_dependents:
        return "Foreground"
    if item.holds(ORPHAN):
        return "Orphan"
    return "Foreground" if item.holds(FOREGROUND) else "Background"


def without_finalizer(obj: JsonObject, finalizer: str) -> Patch:
    """The patch that takes one finalizer off, guarded by version."""
    meta = obj["metadata"]
    kept = [name for name in meta.get("finalizers") or () if name != finalizer]
    return Patch({"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": kept}})


class GarbageCollector(Controller):
    """Keeps the graph of all objects by uid; its keys are ("uid", uid)."""

    component = "garbage-collector-controller"

    def __init__(self, world: World, resources: Iterable[Resource]) -> None:
        super().__init__(world)
        self._items: dict[str, Item] = {}
        self._dependents: dict[str, dict[str, None]] = {}
        self._resources = {(one.api_version, one.kind): one for one in resources}
        for resource in self._resources.values():
            self.cache(resource).subscribe(partial(self._changed, resource))

    def follow(self, resources: tuple[Resource, ...]) -> None:
        """A custom kind has come; its objects may be named as owners by any of its versions."""
        self._resources.update({(one.api_version, one.kind): one for one in resources})
        self.cache(resources[0]).subscribe(partial(self._changed, resources[0]))

    def forget(self, resource: Resource, *, is_gone: bool) -> None:
        """A custom kind is no longer served. ``is_gone``: its definition is deleted, and its objects before it."""
        if not is_gone:  # they may be there still: what they own is left alone
            named = (resource.group, resource.kind)
            self._resources = {key: one for key, one in self._resources.items() if (one.group, one.kind) != named}
        for item in [item for item in self._items.values() if item.resource == resource and is_gone]:
            self._gone(item.uid, {ref["uid"] for ref in item.owners})

    def _wake(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self.queue.add(("uid", uid))

    def _changed(self, resource: Resource, old: JsonObject | None, new: JsonObject | None) -> None:
        before = {ref["uid"] for ref in (old or {}).get("metadata", {}).get("ownerReferences") or ()}
        after = {ref["uid"] for ref in (new or {}).get("metadata", {}).get("ownerReferences") or ()}
        obj = new or old
        assert obj is not None
        uid = obj["metadata"]["uid"]
        if old is not None and old["metadata"]["uid"] != uid:
            self._gone(old["metadata"]["uid"], before)
            before = set()
        if new is None:
            self._gone(uid, before)
            return
        item = self._items[uid] = Item(resource, new)
        for owner in sorted(before - after):
            self._forget_dependent(owner, uid)
        for owner in sorted(after - before):
            self._dependents.setdefault(owner, {})[uid] = None
        if is_terminating(new):
            if item.holds(FOREGROUND) or item.holds(ORPHAN):
                self._wake([uid])
        elif after and (after != before or old is None) and not all(self._is_solid(owner) for owner in after):
            self._wake([uid])

    def _is_solid(self, uid: str) -> bool:
        owner = self._items.get(uid)
        return owner is not None and not owner.is_waiting_for_dependents

    def _gone(self, uid: str, owners: Iterable[str]) -> None:
        self._items.pop(uid, None)
        for owner in sorted(owners):
            self._forget_dependent(owner, uid)
        self._wake(self._dependents.get(uid, ()))

    def _forget_dependent(self, owner: str, uid: str) -> None:
        dependents = self._dependents.get(owner)
        if dependents is None:
            return
        dependents.pop(uid, None)
        if not dependents:
            del self._dependents[owner]
        held = self._items.get(owner)
        if held is not None and held.is_waiting_for_dependents:
            self._wake([owner])

    async def reconcile(self, key: Key) -> float | None:
        item = self._items.get(key[1])
        if item is None:
            return None
        if is_terminating(item.obj):
            return await self._end(key, item)
        if not item.owners:
            return None
        owners = await self._classify(item)
        gone = frozenset((*owners.waiting, *owners.dangling))
        place, meta = key_of(item.obj), item.obj["metadata"]
        policy = propagation(item, owners, has_dependents=bool(self._dependents.get(item.uid)))
        write: Write
        if policy:
            options = Deletion(uid=item.uid, resource_version=meta["resourceVersion"], propagation=policy)
            write = Remove(item.resource, place, options)
        elif gone:
            write = Amend(item.resource, place, without_owners(item.obj, gone))
        else:
            return None
        await self._tolerant(key, write)
        return None

    async def _end(self, key: Key, item: Item) -> float | None:
        """An object whose deletion waits for its dependents: let them go, or have them go first."""
        dependents = [self._items[uid] for uid in self._dependents.get(item.uid, ()) if uid in self._items]
        if item.holds(ORPHAN):
            uids = frozenset({item.uid})
            for one in dependents:
                await self._tolerant(key, Amend(one.resource, key_of(one.obj), without_owners(one.obj, uids)))
            await self._tolerant(key, Amend(item.resource, key_of(item.obj), without_finalizer(item.obj, ORPHAN)))
        elif item.holds(FOREGROUND):
            blocking = [one for one in dependents if _blocks(one, item.uid)]
            if blocking:
                self._wake(one.uid for one in dependents if not is_terminating(one.obj))
                return _RETRY_SECONDS
            release = without_finalizer(item.obj, FOREGROUND)
            await self._tolerant(key, Amend(item.resource, key_of(item.obj), release))
        return None

    async def _tolerant(self, key: Key, write: Write) -> None:
        """Gone already is as good as done."""
        try:
            await self.carry_out(key, write)
        except ApiError as error:
            if not error.is_not_found:
                raise

    async def _classify(self, item: Item) -> Owners:
        solid: list[str] = []
        waiting: list[str] = []
        dangling: list[str] = []
        for ref in item.owners:
            owner = self._items.get(ref["uid"])
            if owner is None:
                (solid if await self._is_alive(item, ref) else dangling).append(ref["uid"])
            elif owner.is_waiting_for_dependents and ref.get("blockOwnerDeletion"):
                waiting.append(owner.uid)
            else:
                solid.append(owner.uid)
        return Owners(tuple(solid), tuple(waiting), tuple(dangling))

    async def _is_alive(self, item: Item, ref: JsonObject) -> bool:
        """Ask the server about an owner we have not seen: our copy of its kind may lag behind the dependent's."""
        resource = self._resources.get((ref["apiVersion"], ref["kind"]))
        if resource is None:
            return True
        namespace = item.obj["metadata"].get("namespace") or "" if resource.namespaced else ""
        try:
            found = await self.api.get(resource, ref["name"], namespace)
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        return bool(found["metadata"]["uid"] == ref["uid"])


def _blocks(dependent: Item, owner: str) -> bool:
    return any(ref["uid"] == owner and ref.get("blockOwnerDeletion") for ref in dependent.owners)
