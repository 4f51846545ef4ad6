"""Partial, typed decoding of Kubernetes JSON: only the fields we use, and errors that name the JSON path.

Each noun file declares its *wire* shape (private msgspec Structs, null-tolerant: the API writes ``null`` for an
empty list) and its noun (flat, frozen). Unknown fields are ignored here: an API object has hundreds that are no
concern of ours. Dumps of data planes are the opposite, there an unknown field blocks (``tidegate.dataplane``).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec

Wire = TypeVar("Wire")


class Malformed(ValueError):
    """A Kubernetes object that is not what its kind says. ``path`` is a JSON path such as ``$.metadata.uid``."""

    def __init__(self, what: str, path: str, problem: str) -> None:
        super().__init__(f"{what}: {problem} at {path}")
        self.what = what
        self.path = path
        self.problem = problem


class WireOwner(msgspec.Struct, rename="camel"):
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class WireMeta(msgspec.Struct, rename="camel"):
    name: str
    uid: str = ""
    namespace: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: list[WireOwner] | None = None


class WireCondition(msgspec.Struct, rename="camel"):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


def decode_wire(obj: Any, shape: type[Wire], what: str) -> Wire:
    """``obj`` (decoded JSON) as ``shape``. ``what`` names the object in the error. Raises ``Malformed``."""
    try:
        return msgspec.convert(obj, shape)
    except msgspec.ValidationError as error:
        problem, separator, path = str(error).rpartition(" - at `")
        raise Malformed(what, path.rstrip("`") if separator else "$", problem if separator else str(error)) from error


def describe(kind: str, obj: Any) -> str:
    """``Pod demo/echo-1``, as far as ``obj`` lets itself be named."""
    meta = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(meta, dict):
        return kind
    parts = [meta[key] for key in ("namespace", "name") if isinstance(meta.get(key), str)]
    return f"{kind} {'/'.join(parts)}" if parts else kind
