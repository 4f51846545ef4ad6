"""An ``Observer`` object: what one entry of the observers' file says, with its name in the metadata. Pure."""

from __future__ import annotations

from tidegate.kube.api import JsonObject


def fields_of(obj: JsonObject) -> JsonObject:
    """The entry of the file that says the same."""
    return {"name": str(obj["metadata"]["name"]), **(obj.get("spec") or {})}
