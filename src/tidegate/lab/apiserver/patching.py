"""Patches as changes: the three grammars applied to the stored object, and what went wrong as a Status."""

from __future__ import annotations

from typing import Any

from tidegate.kube.api import JsonObject, PatchStyle
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.custom import applying
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.schema import causes, ownership, patches, types, validation
from tidegate.lab.apiserver.verbs import Change, Options

MEDIA_TYPES: dict[str, PatchStyle] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}


APPLY = "application/apply-patch+yaml"


def applied(row: Row, config: JsonObject, writer: ownership.Writer, options: Options, *, force: bool) -> Change:
    """The change a server-side apply asks for; of nothing (an empty object) it makes the configuration.

    The managedFields it leads to are put on ``options``.
    """

    if row.custom is not None:
        check_typed(row, config)

    def change(old: JsonObject) -> JsonObject:
        try:
            live = old if row.conversion is None or not old else row.conversion.from_storage(old)
            done = ownership.apply(live or None, config, row.type_name or row.kind, writer, force=force)
        except ownership.ApplyConflict as conflict:
            raise failures.failure(409, "Conflict", str(conflict), {"causes": conflict.causes}) from conflict
        options.managed = done.managed
        return done.object if row.conversion is None else row.conversion.to_storage(done.object)

    return change


def check_typed(row: Row, config: JsonObject) -> None:
    """500 for a configuration of a custom kind that its schema cannot hold."""
    assert row.custom is not None
    found = applying.faults(config, row.custom.schema)
    if found:
        metadata, resource = config.get("metadata") or {}, row.resource
        place = f"({metadata.get('namespace', '')}/{metadata.get('name', '')}; {resource.api_version}, Kind={row.kind})"
        listed = found[0] if len(found) == 1 else "errors:\n" + "\n".join(f"  {text}" for text in found)
        raise failures.failure(500, "", f"failed to create typed patch object {place}: {listed}")


def apply_patch(kind: str, api_version: str, target: JsonObject, style: PatchStyle, body: Any) -> JsonObject:
    """The patched object, sharing nothing with ``target``; raises ApiError 400, 415 or 422."""
    try:
        if style == "merge":
            patched = patches.merge(target, body)
        elif style == "json":
            patched = patches.json_patch(target, body)
        else:
            patched = patches.strategic(target, body, types.resolve(kind, api_version))
    except patches.PatchError as error:
        details: JsonObject | None = {} if error.code == 422 else None
        raise failures.failure(error.code, error.reason, error.message, details) from error
    if not isinstance(patched, dict):
        raise failures.bad_request("json: cannot unmarshal patch result into an object")
    return patched


def patched(row: Row, style: PatchStyle, body: Any, subresource: str = "") -> Change:
    """The change a PATCH asks for, applied to the object as the row's version (or its Scale) shows it."""

    if row.custom is not None and style == "strategic" and subresource != "scale":
        accepted = [media for media, known in MEDIA_TYPES.items() if known != "strategic"]
        raise failures.unsupported_media_type([*accepted, APPLY])

    def change(old: JsonObject) -> JsonObject:
        if subresource == "scale":
            return apply_patch("Scale", "autoscaling/v1", old, style, body)
        target = old if row.conversion is None else row.conversion.from_storage(old)
        found = apply_patch(row.kind, row.resource.api_version, target, style, body)
        metadata = found.get("metadata")
        uid = metadata.get("uid") if isinstance(metadata, dict) else ""
        if uid and uid != old["metadata"]["uid"]:
            wrong = causes.invalid("metadata.uid", uid, causes.IMMUTABLE)
            raise validation.invalid(row.resource, old["metadata"]["name"], [wrong, wrong])
        return found if row.conversion is None else row.conversion.to_storage(found)

    return change
