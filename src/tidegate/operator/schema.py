"""Structural schemas (OpenAPI v3 as CustomResourceDefinitions take it) of msgspec structs.

The wire form has one home, the struct; what a struct cannot say (descriptions, limits, rules that span fields) comes
beside it, by the field's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

Schema = dict[str, Any]
More = Mapping[str, Schema]
"""``Struct.wireName`` -> what is added to that field's schema; ``Struct`` -> to the struct's own. An item of a list
is ``Struct.wireName[]``."""


def schema_of(shape: type[msgspec.Struct], more: More, *, has_defaults: bool = True) -> Schema:
    """The schema of ``shape``, with the struct's defaults where asked for: they are written into every object.

    Raises ``TypeError`` for a field whose type has no structural schema, and ``KeyError`` for an entry of ``more``
    about a field that is none.
    """
    return _Drawing(more, has_defaults).struct(inspect.type_info(shape))


@dataclass(frozen=True, slots=True)
class _Drawing:
    more: More
    has_defaults: bool

    def struct(self, info: Any) -> Schema:
        name = info.cls.__name__
        properties: Schema = {}
        for one in info.fields:
            place = f"{name}.{one.encode_name}"
            schema = self.type(one.type, place)
            if self.has_defaults and _is_written(one.default):
                schema["default"] = one.default
            properties[one.encode_name] = {**self.more.get(place, {}), **schema}
        for key in self.more:
            owner, _, field = key.partition(".")
            if owner == name and field and field.removesuffix("[]") not in properties:
                raise KeyError(key)
        found: Schema = {"type": "object", "properties": properties}
        if required := [one.encode_name for one in info.fields if one.required]:
            found["required"] = required
        return {**self.more.get(name, {}), **found}

    def type(self, info: Any, place: str) -> Schema:
        match info:
            case inspect.StrType():
                return {"type": "string"}
            case inspect.BoolType():
                return {"type": "boolean"}
            case inspect.IntType():
                return {"type": "integer", "format": "int64"}
            case inspect.FloatType():
                return {"type": "number"}
            case inspect.LiteralType():
                return {"type": "string", "enum": list(info.values)}
            case inspect.DictType(value_type=inspect.AnyType()):
                return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            case inspect.DictType():
                return {"type": "object", "additionalProperties": self.item(info.value_type, place)}
            case inspect.VarTupleType() | inspect.ListType():
                return {"type": "array", "items": self.item(info.item_type, place)}
            case inspect.StructType():
                return self.struct(info)
            case inspect.UnionType():
                others = [one for one in info.types if not isinstance(one, inspect.NoneType)]
                if len(others) == 1:
                    return {**self.type(others[0], place), "nullable": True}
        raise TypeError(f"{place}: {info} has no structural schema")

    def item(self, info: Any, place: str) -> Schema:
        return {**self.more.get(f"{place}[]", {}), **self.type(info, f"{place}[]")}


def _is_written(default: object) -> bool:
    """Whether a default is worth writing: an empty one is what absence says already."""
    return isinstance(default, str | int | float) and default != ""
