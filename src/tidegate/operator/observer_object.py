"""An ``Observer`` object: what one entry of the observers' file says, with its name in the metadata. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tidegate.kube.api import JsonObject
from tidegate.observers.config import WhereFields


class ObserverSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """As ``observers.config.ObserverFields``, without the name."""

    kind: str
    where: WhereFields = WhereFields()
    policy: Literal["required", "advisory"] = "required"
    timeout_seconds: float = 2.0
    on_unreachable: Literal["hold", "warn"] = "hold"
    settle_seconds: float = 5.0
    options: dict[str, Any] = {}


def fields_of(obj: JsonObject) -> JsonObject:
    """The entry of the file that says the same."""
    return {"name": str(obj["metadata"]["name"]), **(obj.get("spec") or {})}
