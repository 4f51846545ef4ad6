"""Server-side apply and the managedFields every tracked write leaves behind.

apimachinery/pkg/util/managedfields and structured-merge-diff merge/update.go, for kinds of one version: an apply
lays its configuration over the live object, removes what the manager applied before and nobody else owns, and is
refused where it changes what others own - unless forced. An update just takes what it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.lab.apiserver.schema import fieldsets
from tidegate.lab.apiserver.schema.fieldsets import Path, Paths
from tidegate.lab.apiserver.schema.patches import clone

Json = dict[str, Any]
FIRST = "before-first-apply"

# Owned by nobody (managedfields/internal/stripmeta.go).
_STRIPPED: frozenset[Path] = frozenset(
    ("f:metadata", f"f:{key}")
    for key in (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields",
        "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds",
    )
) | {("f:apiVersion",), ("f:kind",)}  # fmt: skip


_IDENTITY = ("apiVersion", "kind")  # what the type table goes by
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: the manager's name, the apiVersion it speaks, when (RFC 3339), through which subresource."""

    manager: str
    api_version: str
    at: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path somebody else owns: ``owner`` as the message names them."""

    path: Path
    owner: str


class ApplyConflict(Exception):
    """An apply that would change what others own. ``causes`` are Status causes."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__(_message(conflicts))
        self.causes = [
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {conflict.owner}",
                "field": fieldsets.shown(conflict.path),
            }
            for conflict in conflicts
        ]


def _message(conflicts: list[Conflict]) -> str:
    if len(conflicts) == 1:
        only = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {only.owner}: {fieldsets.shown(only.path)}"
    lines = []
    for owner in sorted({conflict.owner for conflict in conflicts}):
        lines.append(f"conflicts with {owner}:")
        lines += [f"- {fieldsets.shown(c.path)}" for c in conflicts if c.owner == owner]
    return f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One manager's entry."""

    manager: str
    operation: str
    api_version: str
    at: str
    subresource: str
    paths: Paths
    fields: Json | None = None
    """``paths`` as FieldsV1, where that is known: most writes leave most managers' entries alone."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource

    def render(self) -> Json:
        made: Json = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version}
        if self.at:
            made["time"] = self.at
        made |= {"fieldsType": "FieldsV1", "fieldsV1": self.fields or fieldsets.encode(self.paths)}
        return made | ({"subresource": self.subresource} if self.subresource else {})

    def without(self, gone: Paths) -> _Entry:
        return self if self.paths.isdisjoint(gone) else self.with_paths(self.paths - gone)

    def with_paths(self, paths: Paths) -> _Entry:
        return _Entry(self.manager, self.operation, self.api_version, self.at, self.subresource, paths)

    @property
    def named(self) -> str:
        """As a conflict names it."""
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


def _read(obj: Mapping[str, Any]) -> list[_Entry]:
    return [
        _Entry(
            item.get("manager", ""),
            item.get("operation", ""),
            item.get("apiVersion", ""),
            item.get("time", ""),
            item.get("subresource", ""),
            fieldsets.decode(item.get("fieldsV1") or {}),
            item.get("fieldsV1"),
        )
        for item in (obj.get("metadata") or {}).get("managedFields") or ()
    ]


def _written(entries: list[_Entry]) -> list[Json]:
    """Applies first, then by time (managedfields/internal/managedfields.go sortEncodedManagedFields)."""
    kept = [entry for entry in entries if entry.paths]
    kept.sort(key=lambda e: (e.operation != "Apply", e.at, e.manager, e.api_version, e.subresource))
    return [entry.render() for entry in kept]


def _owned(obj: Json, kind: str, subresource: str) -> dict[Path, Any]:
    """What can be owned through an endpoint: status only through /status, everything else but there."""
    is_status = subresource == "status"
    return {
        path: value
        for path, value in fieldsets.leaves(obj, kind).items()
        if path not in _STRIPPED and (path[0] == "f:status") == is_status
    }


def _differing(old: Json, new: Json) -> tuple[Json, Json]:
    """Both without the top-level parts that are alike: a relabelling need not walk the spec (measured: 0.1 ms)."""
    alike = {key for key in old if key in new and key not in _IDENTITY and _encode(old[key]) == _encode(new[key])}
    if not alike:
        return old, new
    return ({k: v for k, v in old.items() if k not in alike}, {k: v for k, v in new.items() if k not in alike})


def track(old: Json | None, new: Json, kind: str, writer: Writer) -> list[Json]:
    """The managedFields after a create or update by ``writer``: it owns what it changed, whoever did before."""
    were, are = _differing(old, new) if old is not None else ({}, new)
    before, after = _owned(were, kind, writer.subresource), _owned(are, kind, writer.subresource)
    taken, gone = fieldsets.changed(before, after), frozenset(before) - frozenset(after)
    entries = _read(old or {})
    key = (writer.manager, "Update", writer.subresource)
    mine = next((entry.paths for entry in entries if entry.key == key), frozenset())
    others = [entry.without(taken | gone) for entry in entries if entry.key != key]
    if not taken and not gone:
        return _written(entries)
    own = _Entry(writer.manager, "Update", writer.api_version, writer.at, writer.subresource, (mine | taken) - gone)
    return _written([*others, own])


@dataclass(frozen=True, slots=True)
class Applied:
    """The object after an apply, and the managedFields it should carry once it is defaulted."""

    object: Json
    managed: list[Json]


def apply(live: Json | None, config: Json, kind: str, writer: Writer, *, force: bool = False) -> Applied:
    """Apply ``config``. Raises ``ApplyConflict`` unless ``force``; ``live`` None creates."""
    wanted = frozenset(_owned(config, kind, writer.subresource))
    own = _Entry(writer.manager, "Apply", writer.api_version, writer.at, writer.subresource, wanted)
    if live is None:
        return Applied(clone(config), _written([own]))
    entries = _read(live)
    if not entries:  # the object knows no managers yet: whoever made it keeps what it made
        paths = frozenset(_owned(live, kind, writer.subresource))
        entries = [_Entry(FIRST, "Update", writer.api_version, writer.at, "", paths)]
    last = next((entry.paths for entry in entries if entry.key == own.key), frozenset())
    others = [entry for entry in entries if entry.key != own.key]
    merged = fieldsets.merge(live, config, kind)
    merged = fieldsets.without(merged, _dropped(last - wanted, wanted, others), kind)
    taken = fieldsets.changed(_owned(live, kind, writer.subresource), _owned(merged, kind, writer.subresource))
    conflicts = [Conflict(path, entry.named) for entry in others for path in _ordered(entry.paths & taken & wanted)]
    if conflicts and not force:
        raise ApplyConflict(conflicts)
    left = frozenset(fieldsets.leaves(merged, kind))
    others = [entry.with_paths((entry.paths - taken) & left) for entry in others]
    before = next((entry for entry in entries if entry.key == own.key), None)
    if before is not None and before.paths == wanted and not taken:
        own = before  # nothing new: the time stays, too
    return Applied(merged, _written([*others, own]))


def _ordered(paths: Paths) -> list[Path]:
    """As a set of fields is walked: at each level its members first, then what is below them (fieldpath/set.go)."""
    return sorted(paths, key=lambda path: [(at < len(path) - 1, part) for at, part in enumerate(path)])


def _dropped(candidates: Paths, wanted: Paths, others: list[_Entry]) -> Paths:
    """What the manager no longer applies and nobody else owns, nor anything below it."""
    kept = wanted.union(*(entry.paths for entry in others))
    return frozenset(
        path
        for path in candidates
        if path not in kept and not any(other[: len(path)] == path for other in kept if len(other) > len(path))
    )
