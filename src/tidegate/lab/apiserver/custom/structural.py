"""A structural schema made ready for the walks over it (apiextensions-apiserver/pkg/apiserver/schema).

Pruning, defaulting, list types, rules and server-side apply follow the same tree; only value validation reads the
schema as it was written, for that may nest allOf, anyOf, oneOf and not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.schema import types
from tidegate.lab.apiserver.schema.types import Field, Type

PRESERVES = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
INT_OR_STRING = "x-kubernetes-int-or-string"
LIST_TYPE, LIST_KEYS, MAP_TYPE = "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"
RULES = "x-kubernetes-validations"
TYPE_META = frozenset({"apiVersion", "kind", "metadata"})


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """One node. ``additional`` is the schema of a map's values, None where it has none; ``raw`` is the node as written.

    ``has_default`` tells a default of null from none. ``is_rooted`` marks the root, which is an object with metadata.
    """

    raw: JsonObject
    type: str = ""
    properties: Mapping[str, Schema] = field(default_factory=dict)
    items: Schema | None = None
    additional: Schema | None = None
    preserves: bool = False
    is_embedded: bool = False
    is_nullable: bool = False
    has_default: bool = False
    default: Any = None
    list_type: str = ""
    list_keys: tuple[str, ...] = ()
    is_atomic: bool = False
    rules: tuple[JsonObject, ...] = ()

    def below(self) -> Iterator[Schema]:
        """The nodes right below this one."""
        yield from self.properties.values()
        for node in (self.items, self.additional):
            if node is not None:
                yield node

    def has_rules(self) -> bool:
        """This node or one below it has validation rules."""
        return bool(self.rules) or any(node.has_rules() for node in self.below())


def parse(raw: JsonObject | None) -> Schema:
    """The tree of an ``openAPIV3Schema``; a version without one keeps nothing but metadata."""
    raw = raw or {}
    items, additional = raw.get("items"), raw.get("additionalProperties")
    if additional is True:
        additional = {}
    return Schema(
        raw,
        str(raw.get("type") or ""),
        {name: parse(node) for name, node in (raw.get("properties") or {}).items()},
        parse(items) if isinstance(items, dict) else None,
        parse(additional) if isinstance(additional, dict) else None,
        bool(raw.get(PRESERVES)),
        bool(raw.get(EMBEDDED)),
        bool(raw.get("nullable")),
        "default" in raw,
        raw.get("default"),
        str(raw.get(LIST_TYPE) or ""),
        tuple(raw.get(LIST_KEYS) or ()),
        raw.get(MAP_TYPE) == "atomic" or raw.get(LIST_TYPE) == "atomic",
        tuple(raw.get(RULES) or ()),
    )


# -- server-side apply


class _Every(dict[str, Field]):
    """The fields of a map: whatever the key, the same."""

    def __init__(self, value: Field) -> None:
        super().__init__()
        self._value = value

    def get(self, key: str, default: Any = None) -> Field:
        """The field of any key."""
        return self._value


def type_name(schema: Schema, *, is_root: bool = False) -> str:
    """The name under which the type table knows this node from now on; equal schemas have one name.

    Server-side apply and managedFields go by the table: list types and atomic maps of custom kinds rule there too.
    """
    text = json.dumps(schema.raw, sort_keys=True, separators=(",", ":"))
    name = f"custom.{'root' if is_root else 'node'}.{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()}"
    if types.find(name) is None:
        fields: dict[str, Field]
        if schema.additional is not None and not schema.properties:
            fields = _Every(_field(schema.additional))
        else:
            fields = {key: _field(node) for key, node in schema.properties.items()}
        if is_root or schema.is_embedded:
            fields |= {"apiVersion": Field("string"), "kind": Field("string"), "metadata": Field("meta.v1.ObjectMeta")}
        types.register(Type(name, fields, tuple(schema.raw.get("required") or ()), schema.is_atomic))
    return name


def _field(schema: Schema) -> Field:
    if schema.items is not None:
        return Field("[]" + _word(schema.items), "", (), schema.list_type, schema.list_keys, schema.is_atomic)
    return Field(_word(schema), is_atomic=schema.is_atomic)


def _word(schema: Schema) -> str:
    if schema.properties or schema.additional is not None or schema.is_embedded or schema.type == "object":
        return type_name(schema)
    if schema.items is not None:
        return "[]" + _word(schema.items)
    return {"integer": "int64", "number": "number", "boolean": "boolean"}.get(schema.type, "string")
