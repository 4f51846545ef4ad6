"""What decoding makes of a custom object: unknown fields and stray nulls go, defaults come.

apiextensions-apiserver/pkg/apiserver/schema: pruning/algorithm.go, defaulting/algorithm.go and prune.go. All work in
place.
"""

from __future__ import annotations

from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom.structural import TYPE_META, Schema
from tidegate.lab.apiserver.objects import clone
from tidegate.lab.apiserver.schema import strict

_NOTHING = Schema({})


def prune(obj: JsonObject, schema: Schema) -> list[str]:
    """Drop what the schema does not know; answers the paths dropped, sorted as the server reports them."""
    found: list[str] = []
    if schema.preserves:
        _skip(obj, schema, "", found, is_root=True)
    else:
        _prune_map(obj, schema, "", found, is_root=True)
    return [*_prune_metadata(obj, ""), *sorted(found)]


def prune_below(value: Any, schema: Schema) -> None:
    """``prune`` for a value that is no object with metadata, such as a default."""
    _prune(value, schema, "", [])


def _prune_metadata(obj: JsonObject, path: str) -> list[str]:
    """metadata is decoded into a Go struct whatever the schema says (objectmeta/coerce.go)."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        return []
    texts = strict.survey("meta.v1.ObjectMeta", metadata).unknown
    strict.prune("meta.v1.ObjectMeta", metadata)
    return [f"{path}metadata." + text.partition('"')[2].rstrip('"') for text in texts]


def _prune(value: Any, schema: Schema, path: str, found: list[str]) -> None:
    if schema.is_embedded and isinstance(value, dict):
        found += _prune_metadata(value, f"{path}." if path else "")
    if schema.preserves:
        _skip(value, schema, path, found)
    elif isinstance(value, dict):
        _prune_map(value, schema, path, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _prune(item, schema.items or _NOTHING, f"{path}[{index}]", found)


def _prune_map(value: JsonObject, schema: Schema, path: str, found: list[str], *, is_root: bool = False) -> None:
    for key in list(value):
        if (is_root or schema.is_embedded) and key in TYPE_META:
            continue
        here = f"{path}.{key}" if path else key
        node = schema.properties.get(key, schema.additional)
        if node is not None:
            _prune(value[key], node, here, found)
            continue
        if key not in TYPE_META or path:
            found.append(here)
        del value[key]


def _skip(value: Any, schema: Schema, path: str, found: list[str], *, is_root: bool = False) -> None:
    """Keep the unknown; what is specified below it is pruned all the same."""
    if isinstance(value, dict):
        for key in list(value):
            if (is_root or schema.is_embedded) and key in TYPE_META:
                continue
            node = schema.properties.get(key, schema.additional)
            if node is not None:
                _prune(value[key], node, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            _skip(item, schema.items, f"{path}[{index}]", found)


def drop_nulls(value: Any, schema: Schema | None) -> None:
    """Nulls of fields that are neither nullable nor defaulted are as good as absent."""
    if schema is None:
        return
    if isinstance(value, dict):
        for key in list(value):
            node = schema.properties.get(key, schema.additional)
            if node is None:
                continue
            if value[key] is None and not node.is_nullable and node.default is None:
                del value[key]
            else:
                drop_nulls(value[key], node)
    elif isinstance(value, list):
        for item in value:
            drop_nulls(item, schema.items)


def default(value: Any, schema: Schema | None) -> None:
    """Write the schema's defaults into absent fields, and into nulls that may not be null."""
    if schema is None:
        return
    if isinstance(value, dict):
        for key, node in schema.properties.items():
            if node.default is None:
                continue
            if key not in value or (value[key] is None and not node.is_nullable):
                value[key] = clone(node.default)
        for key in value:
            found = schema.properties.get(key, schema.additional)
            if found is not None:
                value[key] = _defaulted(value[key], found)
                default(value[key], found)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            value[index] = _defaulted(item, schema.items)
            default(value[index], schema.items)


def _defaulted(value: Any, schema: Schema) -> Any:
    if value is None and not schema.is_nullable and schema.default is not None:
        return clone(schema.default)
    return value
