"""One version of an object, and one change from a version to the next, encoded at most once each."""

from __future__ import annotations

import msgspec

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.selectors import Filter

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
