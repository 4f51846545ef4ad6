"""How a body differs from its type: unknown fields, repeated keys, values of the wrong type.

The real server decodes into Go structs. Unknown fields are an error under fieldValidation=Strict, a warning under
Warn and are dropped in every case (``prune``); a value of the wrong JSON type is a 400 in every case
(``mismatch``); null is the same as absent. One walk over the type table tells both (``survey``): about 25 us for a
Deployment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tidegate.lab.apiserver.schema import types
from tidegate.lab.apiserver.schema.quantity import parse
from tidegate.lab.apiserver.schema.types import Type

_GO_TYPES: dict[str, tuple[frozenset[type], str]] = {
    "string": (frozenset({str}), "string"),
    "bytes": (frozenset({str}), "[]uint8"),
    "boolean": (frozenset({bool}), "bool"),
    "int32": (frozenset({int}), "int32"),
    "int64": (frozenset({int}), "int64"),
    "number": (frozenset({int, float}), "float64"),
    "Time": (frozenset({str}), "string"),
    "MicroTime": (frozenset({str}), "string"),
    "IntOrString": (frozenset({int, str}), "intstr.IntOrString"),
}
_SCALAR, _LIST, _MAP, _STRUCT, _ANY, _QUANTITY = range(6)

Steps = tuple[Any, ...]
"""Where the walk is: (steps before, key or index); a path is only spelled out for what is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """A type word made ready for the walk: what it is, and what is below it."""

    form: int
    go_name: str
    scalars: frozenset[type] = frozenset()
    below: _Shape | None = None
    name: str = ""


@dataclass(slots=True)
class Survey:
    """What is wrong with a body: ``mismatch`` is the decoder's sentence ("" = all fits), ``unknown`` the rest."""

    mismatch: str = ""
    unknown: list[str] = field(default_factory=list)


@cache
def _shape(word: str) -> _Shape:
    if word.startswith("[]"):
        below = _shape(word[2:])
        return _Shape(_LIST, "[]" + below.go_name, below=below)
    if word.startswith("{}"):
        below = _shape(word[2:])
        return _Shape(_MAP, "map[string]" + below.go_name, below=below)
    if word == "Quantity":
        return _Shape(_QUANTITY, word)
    if word in _GO_TYPES:
        scalars, go_name = _GO_TYPES[word]
        return _Shape(_SCALAR, go_name, scalars)
    if types.find(word) is None:
        return _Shape(_ANY, word)
    return _Shape(_STRUCT, word.split(".", 1)[1], name=word)


@cache
def _shapes(name: str) -> dict[str, _Shape]:
    """The fields of a type, ready for the walk."""
    known = types.find(name)
    return {key: _shape(item.type) for key, item in known.fields.items()} if known else {}


def survey(kind: str, obj: Mapping[str, Any]) -> Survey:
    """Hold an object against its type. An unknown kind (a custom resource) has nothing wrong with it."""
    name = types.resolve(kind, str(obj.get("apiVersion") or ""))
    found = Survey()
    if name:
        _struct(obj, name, (), found)
    return found


def unknown_fields(kind: str, obj: Mapping[str, Any]) -> list[str]:
    """``unknown field "spec.templte"`` for each, in the order of the body; nothing for unknown kinds."""
    return survey(kind, obj).unknown


def mismatch(kind: str, obj: Mapping[str, Any]) -> str:
    """The decoder's sentence for the first value of the wrong type; "" when all fit.

    The server's 400 reads ``Deployment in version "v1" cannot be handled as a Deployment: `` + this.
    """
    return survey(kind, obj).mismatch


def _struct(obj: Mapping[str, Any], name: str, steps: Steps, found: Survey) -> None:
    shapes = _shapes(name)
    for key, value in obj.items():
        shape = shapes.get(key)
        if shape is None:
            found.unknown.append(f'unknown field "{_spelled((steps, key))}"')
        elif value is None:
            continue
        elif shape.form == _SCALAR:  # most of all fields: no call for them
            if type(value) not in shape.scalars:
                _complain(value, shape, (steps, key), name, found)
        else:
            _value(value, shape, (steps, key), name, found)


def _value(value: Any, shape: _Shape, steps: Steps, owner: str, found: Survey) -> None:
    form, kind = shape.form, type(value)
    if value is None or form == _ANY:
        return
    if form == _STRUCT and kind is dict:
        _struct(value, shape.name, steps, found)
    elif form == _LIST and kind is list and shape.below is not None:
        for index, item in enumerate(value):
            _value(item, shape.below, (steps, index), owner, found)
    elif form == _MAP and kind is dict and shape.below is not None:
        for key, item in value.items():
            _value(item, shape.below, (steps, key), owner, found)
    elif form == _QUANTITY:
        try:
            parse(value)
        except ValueError as wrong:
            found.mismatch = found.mismatch or str(wrong)
    elif form != _SCALAR or kind not in shape.scalars:
        _complain(value, shape, steps, owner, found)


def _spelled(steps: Steps, *, with_indices: bool = True) -> str:
    parts: list[Any] = []
    while steps:
        steps, part = steps
        parts.append(part)
    text = ""
    for part in reversed(parts):
        if isinstance(part, int):
            text += f"[{part}]" if with_indices else ""
        else:
            text += f".{part}" if text else str(part)
    return text


def _complain(value: Any, shape: _Shape, steps: Steps, owner: str, found: Survey) -> None:
    """Go's decoder stops at the first; it names the field's path without indices, below the struct it is in."""
    if found.mismatch:
        return
    kinds = {bool: "bool", int: "number", float: "number", dict: "object", list: "array"}
    got, struct = kinds.get(type(value), "string"), owner.rsplit(".", 1)[-1]
    path = _spelled(steps, with_indices=False)
    found.mismatch = f"json: cannot unmarshal {got} into Go struct field {struct}.{path} of type {shape.go_name}"


def prune(kind: str, obj: dict[str, Any]) -> None:
    """Drop, in place, what decoding into a Go struct drops: fields the type does not have, and nulls."""
    known = types.of(kind, obj)
    if known is not None:
        _prune(obj, known)


def _prune(obj: dict[str, Any], known: Type) -> None:
    gone = []
    for key, value in obj.items():
        field = known.fields.get(key)
        if field is None or value is None:
            gone.append(key)
        elif isinstance(value, (dict, list)):
            _prune_below(value, field.type)
    for key in gone:
        del obj[key]


def _prune_below(value: Any, word: str) -> None:
    if isinstance(value, list):
        if None in value:
            value[:] = [item for item in value if item is not None]
        for item in value:
            _prune_below(item, word[2:])
    elif isinstance(value, dict):
        if word.startswith("{}"):
            for item in value.values():
                _prune_below(item, word[2:])
        else:
            known = types.find(word)
            if known is not None:
                _prune(value, known)


class _Repeated(dict[str, Any]):
    """A JSON object that remembers which of its keys came twice."""

    __slots__ = ("keys_twice",)
    keys_twice: list[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    repeated = _Repeated(made)
    seen: set[str] = set()
    repeated.keys_twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    return repeated


def duplicate_fields(body: bytes) -> list[str]:
    """``duplicate field "spec.replicas"`` for each key a JSON body gives twice; ValueError for no JSON."""
    found: list[str] = []
    _duplicates(json.loads(body, object_pairs_hook=_object), "", found)
    return [f'duplicate field "{path}"' for path in found]


def _duplicates(value: Any, path: str, found: list[str]) -> None:
    if isinstance(value, dict):
        for key in getattr(value, "keys_twice", ()):
            found.append(f"{path}.{key}" if path else key)
        for key, item in value.items():
            _duplicates(item, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _duplicates(item, f"{path}[{index}]", found)
