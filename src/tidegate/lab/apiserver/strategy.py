"""The few lines of code that belong to one kind; everything else about it is generic.

The default strategy suits kinds that are plain data with a ``spec`` and, where the row says so, a ``status``. The
hooks mirror the real server's registry strategies (PrepareForCreate, PrepareForUpdate, CheckGracefulDelete).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.schema import defaults, validation
from tidegate.lab.apiserver.schema.causes import Cause
from tidegate.lab.config import Addressing

if TYPE_CHECKING:
    from tidegate.lab.apiserver.registry import Registry, Row
    from tidegate.lab.apiserver.store import Store


@dataclass(frozen=True, slots=True)
class World:
    """What a strategy may look at and draw from. Objects in ``store`` are read-only."""

    store: Store
    registry: Registry
    rng: random.Random
    addressing: Addressing
    now: datetime


class Strategy:
    """How one kind differs. ``has_generation``: generation counts changes of everything but metadata and status."""

    propagation = ""
    """What a delete that does not say becomes: "" leaves the dependents to the garbage collector's Background."""

    unsaid_warning = ""
    """The Warning that such a delete is answered with."""

    def __init__(self, *, has_generation: bool = False, keeps_status: bool = False) -> None:
        self.has_generation = has_generation
        self.keeps_status = keeps_status
        """The creator's status is kept (nodes, and kinds without a status subresource)."""

    needs_version = False
    """An update must say which version it is of (AllowUnconditionalUpdate is false)."""

    def warnings(self, obj: JsonObject, old: JsonObject | None) -> Iterable[str]:
        """What a write is answered with besides its object; ``old`` is what it replaces."""
        return ()

    def complete(self, kind: str, obj: JsonObject) -> None:
        """Write the defaults into an object, in place."""
        defaults.apply(kind, obj)

    def faults(self, kind: str, obj: JsonObject, old: JsonObject | None, subresource: str = "") -> list[Cause]:
        """What is wrong with an object that is to be written; ``old`` is what it replaces."""
        return validation.validate(kind, obj, old)

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        """Set what the server owns on a new object, in place, before defaults."""
        if not self.keeps_status:
            obj["status"] = {}

    def prepare_named(self, obj: JsonObject) -> None:
        """What follows from a new object's name and uid, in place, before validation."""

    def allocate(self, obj: JsonObject, old: JsonObject | None, world: World) -> None:
        """Draw addresses and ports, in place, after validation and only for real writes."""

    def released(self, obj: JsonObject, world: World) -> None:
        """The object is gone: give back what ``allocate`` drew."""

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        """Keep what a write to the main resource must not change, in place."""
        if not self.keeps_status:
            keep(obj, old, "status")

    def prepare_status(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        """Keep what a write to ``/status`` must not change, in place."""
        for key in old:
            if key not in ("metadata", "status"):
                obj[key] = old[key]
        for key in [key for key in obj if key not in old and key != "status"]:
            del obj[key]

    def content(self, obj: JsonObject) -> JsonObject:
        """The part whose change bumps the generation."""
        return {key: value for key, value in obj.items() if key not in ("metadata", "status")}

    def grace_seconds(self, obj: JsonObject, asked: int | None) -> int | None:
        """Seconds of graceful deletion; None for kinds deleted at once."""
        return None

    def holds_deletion(self, obj: JsonObject) -> bool:
        """Something other than metadata.finalizers keeps the object (a namespace's spec.finalizers)."""
        return False

    def mark_deleting(self, obj: JsonObject) -> None:
        """Besides metadata, what changes when deletion is pending, in place."""

    def check_deletion(self, row: Row, obj: JsonObject) -> None:
        """Raise ApiError to refuse a deletion."""


def keep(obj: JsonObject, old: JsonObject, key: str) -> None:
    """Make ``obj`` agree with ``old`` at one key, absence included."""
    if key in old:
        obj[key] = old[key]
    else:
        obj.pop(key, None)
