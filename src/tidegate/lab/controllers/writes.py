"""What a reconcile asks for: writes as data. A reconcile decides, the shell (``shell.py``) carries out."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.kube.api import Deletion, JsonObject, Patch, Resource
from tidegate.kube.reflector import Key
from tidegate.lab.events import Event


@dataclass(frozen=True, slots=True)
class Create:
    """POST ``obj``."""

    resource: Resource
    obj: JsonObject


@dataclass(frozen=True, slots=True)
class Replace:
    """PUT ``obj`` (or one of its subresources), guarded by the resourceVersion it carries."""

    resource: Resource
    obj: JsonObject
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Amend:
    """PATCH the object of that key."""

    resource: Resource
    key: Key
    patch: Patch


@dataclass(frozen=True, slots=True)
class Remove:
    """DELETE the object of that key."""

    resource: Resource
    key: Key
    options: Deletion = field(default_factory=Deletion)


@dataclass(frozen=True, slots=True)
class Say:
    """Record an event about an object; a pass that fails before it stays silent."""

    about: JsonObject
    event: Event


Write = Create | Replace | Amend | Remove | Say


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes of one pass, in order, and in how many seconds to look again (None: when something changes)."""

    writes: tuple[Write, ...] = ()
    after_seconds: float | None = None


def with_metadata(obj: JsonObject, **changes: JsonObject) -> JsonObject:
    """A copy of ``obj`` with other metadata entries (``annotations={...}``)."""
    return {**obj, "metadata": {**obj["metadata"], **changes}}
