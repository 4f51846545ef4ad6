"""Objects and their history: one dict per resource, one resourceVersion counter, one ring of events per resource.

Stored objects are never changed in place, so versions are shared freely between the store, the history, watchers
and in-process callers. A version is encoded at most once and an event's line at most once per event type, however
many watchers there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.versions import Event, Version
from tidegate.lab.apiserver.watchers import Audience

HISTORY_LENGTH = 1000
"""Events kept per resource. Real watch caches keep 100 to 102,400 by load (cacher/watch_cache.go); each kept event
holds an old version alive, about 20 KB as dicts for a pod, so 1,000 bounds the worst case at 20 MB."""


class Collection:
    """All objects of one resource, their recent history and who watches them."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.namespaces: dict[str, dict[str, Version]] = {}
        self.history: deque[Event] = deque()
        self.forgotten = 0
        """Events at or below this version are no longer kept."""
        self.watchers = Audience()
        self.after: Callable[[Event], None] | None = None
        """Told of a change when every watcher has been; it may write again."""

    def get(self, namespace: str, name: str) -> Version | None:
        named = self.namespaces.get(namespace)
        return named.get(name) if named is not None else None

    def versions(self, namespace: str = "") -> Iterator[Version]:
        """Live versions in key order (namespace, then name), as etcd lists them."""
        spaces = [namespace] if namespace else sorted(self.namespaces)
        for space in spaces:
            named = self.namespaces.get(space, {})
            for name in sorted(named):
                yield named[name]

    def versions_at(self, rv: int, namespace: str = "") -> list[Version] | None:
        """What ``versions`` answered at version ``rv``, by undoing newer events; None when history is too short."""
        if rv < self.forgotten:
            return None
        found = {_key(version.object): version for version in self.versions(namespace)}
        for event in reversed(self.history):
            if event.rv <= rv:
                break
            subject = event.new or event.old
            assert subject is not None
            key = _key(subject.object)
            if namespace and key[0] != namespace:
                continue
            if event.old is None:
                found.pop(key, None)
            else:
                found[key] = event.old
        return [found[key] for key in sorted(found)]

    def since(self, rv: int) -> list[Event] | None:
        """Events newer than ``rv``, oldest first; None when some of them are forgotten."""
        if rv < self.forgotten:
            return None
        newer: list[Event] = []
        for event in reversed(self.history):
            if event.rv <= rv:
                break
            newer.append(event)
        newer.reverse()
        return newer

    def apply(self, event: Event) -> None:
        """Make a change current, remember it and tell the watchers."""
        subject = event.new or event.old
        assert subject is not None
        namespace, name = _key(subject.object)
        if event.new is None:
            named = self.namespaces[namespace]
            del named[name]
            if not named:
                del self.namespaces[namespace]
        else:
            self.namespaces.setdefault(namespace, {})[name] = event.new
        self.history.append(event)
        if len(self.history) > HISTORY_LENGTH:
            self.forgotten = self.history.popleft().rv
        self.watchers.tell(event)
        if self.after is not None:
            self.after(event)


def _key(obj: JsonObject) -> tuple[str, str]:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Store:
    """Every collection behind one version counter."""

    def __init__(self, rv: int = 1) -> None:
        self.rv = rv
        self._collections: dict[Row, Collection] = {}

    def collection(self, row: Row) -> Collection:
        stored = row.stored
        collection = self._collections.get(stored)
        if collection is None:
            collection = self._collections[stored] = Collection(stored)
        return collection

    def rekey(self, old: Row, new: Row, reread: Callable[[JsonObject], JsonObject]) -> None:
        """Let ``new`` have the collection of ``old``. Objects are shown as ``reread`` makes them, at their versions."""
        collection = self.collection(old)
        del self._collections[old]
        collection.row = new
        self._collections[new] = collection
        for named in collection.namespaces.values():
            for name, version in named.items():
                obj = reread(version.object)
                if obj != version.object:
                    named[name] = Version(obj, version.rv)

    def drop(self, row: Row) -> None:
        """Forget a collection; its watchers' streams end."""
        collection = self._collections.pop(row.stored, None)
        if collection is not None:
            collection.watchers.end()

    def insert(self, row: Row, obj: JsonObject) -> Version:
        """Store a new object (taken over, its resourceVersion set)."""
        return self._commit(self.collection(row), None, obj)

    def replace(self, row: Row, old: Version, obj: JsonObject) -> Version:
        """Store a newer version of an object (taken over, its resourceVersion set)."""
        return self._commit(self.collection(row), old, obj)

    def remove(self, row: Row, old: Version) -> Version:
        """Remove an object; answers its last content at the version of the removal."""
        self.rv += 1
        event = Event(self.rv, old, None)
        self.collection(row).apply(event)
        return event.departed

    def _commit(self, collection: Collection, old: Version | None, obj: JsonObject) -> Version:
        self.rv += 1
        obj["metadata"]["resourceVersion"] = str(self.rv)
        new = Version(obj, self.rv)
        collection.apply(Event(self.rv, old, new))
        return new
