"""What is wrong with a custom object: metadata, schema, scale, embedded objects, list types, rules - in that order.

registry/customresource/validator.go and strategy.go; schema/listtype, schema/objectmeta.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom import values
from tidegate.lab.apiserver.custom.structural import Schema
from tidegate.lab.apiserver.objects import dig
from tidegate.lab.apiserver.schema import causes, metadata, names
from tidegate.lab.apiserver.schema.causes import Cause

if TYPE_CHECKING:
    from tidegate.lab.apiserver.custom.kinds import CustomKind

_BLOCKING = {
    "FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid",
}  # fmt: skip
"""With one of these among the causes no rule is asked (hasBlockingErr)."""

_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
_INT32_MAX = 2**31 - 1


def faults(kind: CustomKind, obj: JsonObject, old: JsonObject | None, subresource: str = "") -> list[Cause]:
    """Every cause, in the real server's order; ``subresource`` "status" looks at status alone, but for the rules."""
    meta = obj.get("metadata") or {}
    if old is None:
        found = metadata.validate("", meta, has_free_finalizers=True)
    else:
        found = metadata.validate("", meta, has_free_finalizers=True)
        found += metadata.validate_update(meta, old.get("metadata") or {})
    is_status = subresource == "status"
    found += _status_faults(kind, obj, old) if is_status else _schema_faults(kind, obj, old)
    if kind.scale is not None:
        found += _scale_faults(kind, obj, is_status=is_status)
    if not is_status:
        found += _embedded(obj, kind.schema, "")
    found += _list_faults(kind, obj, old)
    if kind.rules is not None:
        if any(cause.reason in _BLOCKING for cause in found):
            found.append(Cause("<nil>", "FieldValueInvalid", f"Invalid value: null: {_UNCHECKED}"))
        else:
            found += kind.rules.faults(obj, old)
    return found


def _schema_faults(kind: CustomKind, obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    before = values.ABSENT if old is None else old
    return values.validate(obj, kind.schema.raw, "", before) if kind.schema.raw else []


def _status_faults(kind: CustomKind, obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    """The status alone, as an object of its own: messages name what is below it, fields the whole path."""
    node = kind.schema.properties.get("status")
    if "status" not in obj or node is None:
        return []
    before = (old or {}).get("status", values.ABSENT)
    return [
        replace(cause, field="status" if cause.field == "<nil>" else f"status.{cause.field}")
        for cause in values.validate(obj["status"], node.raw, "", before)
    ]


def _scale_faults(kind: CustomKind, obj: JsonObject, *, is_status: bool) -> list[Cause]:
    assert kind.scale is not None
    found: list[Cause] = []
    paths = [kind.scale.status_replicas] if is_status else [kind.scale.replicas, kind.scale.status_replicas]
    for path in paths:
        name, count = "." + ".".join(path), dig(obj, path)
        if count is None:
            continue
        if not isinstance(count, int):
            said = count if isinstance(count, str) else causes.shown(count)
            text = f"{name} accessor error: {said} is of the type {_go_type(count)}, expected int64"
            found.append(causes.invalid(name, 0, text))
        elif count < 0:
            found.append(causes.invalid(name, count, "should be a non-negative integer"))
        elif count > _INT32_MAX:
            found.append(causes.invalid(name, count, f"should be less than or equal to {_INT32_MAX}"))
    return found


def _go_type(value: Any) -> str:
    return {str: "string", float: "float64", bool: "bool", dict: "map[string]interface {}"}.get(type(value), "[]any")


def warnings(obj: JsonObject, old: JsonObject | None) -> list[str]:
    """Finalizers that another writer may call the same (validateKubeFinalizerName)."""
    before = ((old or {}).get("metadata") or {}).get("finalizers") or ()
    found: list[str] = []
    for name in sorted(set(obj["metadata"].get("finalizers") or ()) - set(before)):
        if "/" in name or name in metadata.STANDARD_FINALIZERS:
            continue
        path = "including a path (/) " if "." in name else ""
        text = (
            f"prefer a domain-qualified finalizer name {path}to avoid accidental conflicts with other finalizer writers"
        )
        found.append(f'metadata.finalizers: "{name}": {text}')
    return found


# -- list types


def _list_faults(kind: CustomKind, obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    """Doubles in sets and maps; an object that had some before may keep them."""
    found = list(_doubles(obj, kind.schema, ""))
    if not found or (old is not None and any(True for _ in _doubles(old, kind.schema, ""))):
        return []
    return found


def _doubles(value: Any, schema: Schema | None, path: str) -> Iterator[Cause]:
    if schema is None:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if key in schema.properties:
                yield from _doubles(item, schema.properties[key], f"{path}.{key}" if path else key)
            else:
                yield from _doubles(item, schema.additional, f"{path}[{key}]")
    elif isinstance(value, list):
        if schema.list_type in ("set", "map"):
            yield from _doubles_here(value, schema, path)
        for index, item in enumerate(value):
            yield from _doubles(item, schema.items, f"{path}[{index}]")


def _doubles_here(items: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        shown = item
        if schema.list_type == "map":
            if item is not None and not isinstance(item, dict):
                yield causes.invalid(f"{path}[{index}]", item, "must be an object for an array of list-type map")
                return
            shown = {key: (item or {})[key] for key in schema.list_keys if key in (item or {})}
        text = json.dumps(shown, sort_keys=True)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:
            yield causes.duplicate(f"{path}[{index}]", shown)


# -- embedded objects


def _embedded(value: Any, schema: Schema | None, path: str) -> Iterator[Cause]:
    """apiVersion, kind and metadata of embedded objects (objectmeta/validation.go)."""
    if schema is None:
        return
    if isinstance(value, dict):
        if schema.is_embedded:
            yield from _embedded_meta(value, path)
        for key, item in value.items():
            if key in schema.properties:
                yield from _embedded(item, schema.properties[key], f"{path}.{key}" if path else key)
            else:
                yield from _embedded(item, schema.additional, f"{path}[{key}]")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _embedded(item, schema.items, f"{path}[{index}]")


def _embedded_meta(value: JsonObject, path: str) -> Iterator[Cause]:
    if not value.get("apiVersion"):
        yield causes.required(f"{path}.apiVersion")
    if not value.get("kind"):
        yield causes.required(f"{path}.kind")
    elif isinstance(value["kind"], str):
        for text in names.dns_label(value["kind"].lower()):
            yield causes.invalid(
                f"{path}.kind", value["kind"], f"may have mixed case, but should otherwise match: {text}"
            )
    held = value.get("metadata")
    if isinstance(held, dict):
        yield from metadata.label_set(held.get("labels"), f"{path}.metadata.labels")
        yield from metadata.annotation_set(held.get("annotations"), f"{path}.metadata.annotations")
