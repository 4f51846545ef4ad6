"""An applied configuration must fit its schema before it is merged (structured-merge-diff typed/validate.go).

The server finds out while it builds the typed object, and answers 500 with these words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom.structural import INT_OR_STRING, Schema
from tidegate.lab.apiserver.schema import causes

_GO_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64", dict: "map[string]interface {}"}


def faults(config: JsonObject, schema: Schema) -> list[str]:
    """What does not fit, with paths."""
    found: list[str] = []
    for key, node in schema.properties.items():
        if key in config and key not in ("apiVersion", "kind", "metadata"):
            found += _faults(config[key], node, f".{key}")
    return found


def _faults(value: Any, schema: Schema | None, path: str) -> Iterator[str]:
    if value is None or schema is None or schema.raw.get(INT_OR_STRING):
        return
    if schema.type == "array":
        if isinstance(value, list):
            yield from _items(value, schema, path)
        else:
            yield f"{path}: expected list, got {_shown(value)}"
    elif schema.type == "object":
        if isinstance(value, dict):
            for key, item in value.items():
                yield from _faults(item, schema.properties.get(key, schema.additional), f"{path}.{key}")
        else:
            yield f"{path}: expected map, got {_shown(value)}"
    elif schema.type in ("integer", "number"):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield f"{path}: expected numeric (int or float), got {_GO_TYPES.get(type(value), '[]interface {}')}"
    elif schema.type == "string" and not isinstance(value, str):
        yield f"{path}: expected string, got {_shown(value)}"
    elif schema.type == "boolean" and not isinstance(value, bool):
        yield f"{path}: expected boolean, got {_shown(value)}"


def _shown(value: Any) -> str:
    return f"&value.valueUnstructured{{Value:{causes.shown(value)}}}"


def _items(items: list[Any], schema: Schema, path: str) -> Iterator[str]:
    seen: list[Any] = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        if schema.list_type == "map":
            keys = {key: item[key] for key in schema.list_keys if key in item} if isinstance(item, dict) else {}
            known = schema.items.properties if schema.items is not None else {}
            for key in schema.list_keys:
                if key not in keys and key in known and known[key].default is not None:
                    keys[key] = known[key].default
            if not keys:
                listed = " ".join(f'"{key}"' for key in schema.list_keys)
                yield (
                    f"{path}: element {index}: associative list with keys has an element that omits all key fields "
                    f"[{listed}] (and doesn't have default values for any key fields)"
                )
                return
            where = path + "[" + ",".join(f"{key}={causes.shown(value)}" for key, value in keys.items()) + "]"
            if keys in seen:
                yield f"{path}: duplicate entries for key {where.removeprefix(path)}"
            seen.append(keys)
        elif schema.list_type == "set":
            where = f"{path}[={causes.shown(item)}]"
            if item in seen:
                yield f"{path}: duplicate entries for key {where.removeprefix(path)}"
            seen.append(item)
        yield from _faults(item, schema.items, where)
