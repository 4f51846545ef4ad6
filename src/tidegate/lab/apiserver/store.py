"""Objects and their history: one dict per resource, one resourceVersion counter, one ring of events per resource.

Stored objects are never changed in place, so versions are shared freely between the store, the history, watchers
and in-process callers. A version is encoded at most once and an event's line at most once per event type, however
many watchers there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.selectors import Filter
from tidegate.lab.apiserver.watchers import Audience

HISTORY_LENGTH = 1000
"""Events kept per resource. Real watch caches keep 100 to 102,400 by load (cacher/watch_cache.go); each kept event
holds an old version alive, about 20 KB as dicts for a pod, so 1,000 bounds the worst case at 20 MB."""

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"

encode = msgspec.json.Encoder().encode


class Version:
    """One version of one object. ``object`` is read-only by agreement."""

    __slots__ = ("_encoded", "object", "rv")

    def __init__(self, obj: JsonObject, rv: int) -> None:
        self.object = obj
        self.rv = rv
        self._encoded: bytes | None = None

    @property
    def encoded(self) -> bytes:
        """The object as JSON, encoded on first use."""
        if self._encoded is None:
            self._encoded = encode(self.object)
        return self._encoded


def at_version(obj: JsonObject, rv: int) -> JsonObject:
    """The same object carrying another resourceVersion (a shallow copy)."""
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(rv)}}


class Event:
    """One change: ``old`` and ``new`` versions (``None`` before the first and after the last) at version ``rv``."""

    __slots__ = ("_departed", "_lines", "new", "old", "rv")

    def __init__(self, rv: int, old: Version | None, new: Version | None) -> None:
        self.rv = rv
        self.old = old
        self.new = new
        self._departed: Version | None = None
        self._lines: dict[str, bytes] = {}

    @property
    def departed(self) -> Version:
        """What DELETED carries: the previous content with this event's version (cacher/cache_watcher.go:390-405)."""
        if self._departed is None:
            assert self.old is not None
            self._departed = Version(at_version(self.old.object, self.rv), self.rv)
        return self._departed

    def seen_through(self, chosen: Filter) -> tuple[str, Version] | None:
        """Type and version as a watcher with this filter sees it: leaving a selector is DELETED, entering is ADDED."""
        was = self.old is not None and chosen.matches(self.old.object)
        if self.new is not None and chosen.matches(self.new.object):
            return (MODIFIED if was else ADDED), self.new
        return (DELETED, self.departed) if was else None

    def line(self, kind: str) -> bytes:
        """The watch line of this event under an event type. One encoding serves every watcher."""
        line = self._lines.get(kind)
        if line is None:
            version = self.departed if kind == DELETED else self.new
            assert version is not None
            line = self._lines[kind] = watch_line(kind, version.encoded)
        return line


def watch_line(kind: str, encoded: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + encoded + b"}\n"


class Collection:
    """All objects of one resource, their recent history and who watches them."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.namespaces: dict[str, dict[str, Version]] = {}
        self.history: deque[Event] = deque()
        self.forgotten = 0
        """Events at or below this version are no longer kept."""
        self.watchers = Audience()

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
