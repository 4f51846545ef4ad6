"""How a body differs from its type: unknown fields, repeated keys, values of the wrong type.

The real server decodes into Go structs. Unknown fields are an error under fieldValidation=Strict, a warning under
Warn and are dropped in every case (``prune``); a value of the wrong JSON type is a 400 in every case
(``mismatch``); null is the same as absent. One walk over the type table costs about 15 us for a Deployment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidegate.lab.apiserver.schema import types
from tidegate.lab.apiserver.schema.quantity import parse
from tidegate.lab.apiserver.schema.types import Type

_GO_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "string"),
    "bytes": ((str,), "[]uint8"),
    "boolean": ((bool,), "bool"),
    "int32": ((int,), "int32"),
    "int64": ((int,), "int64"),
    "number": ((int, float), "float64"),
    "Time": ((str,), "string"),
    "MicroTime": ((str,), "string"),
}


def unknown_fields(kind: str, obj: Mapping[str, Any]) -> list[str]:
    """``unknown field "spec.templte"`` for each, in the order of the body; nothing for unknown kinds."""
    found: list[str] = []
    known = types.of(kind, obj)
    if known is not None:
        _unknown(obj, known, "", found)
    return [f'unknown field "{path}"' for path in found]


def _unknown(obj: Mapping[str, Any], known: Type, path: str, found: list[str]) -> None:
    for key, value in obj.items():
        field = known.fields.get(key)
        here = f"{path}.{key}" if path else key
        if field is None:
            found.append(here)
        elif isinstance(value, (dict, list)):
            _unknown_below(value, field.type, here, found)


def _unknown_below(value: Any, word: str, path: str, found: list[str]) -> None:
    if word.startswith("[]") and isinstance(value, list):
        for index, item in enumerate(value):
            _unknown_below(item, word[2:], f"{path}[{index}]", found)
    elif word.startswith("{}") and isinstance(value, dict):
        for key, item in value.items():
            _unknown_below(item, word[2:], f"{path}.{key}", found)
    elif isinstance(value, dict):
        known = types.find(word)
        if known is not None:
            _unknown(value, known, path, found)


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


def mismatch(kind: str, obj: Mapping[str, Any]) -> str:
    """The decoder's sentence for the first value of the wrong type; "" when all fit.

    The server's 400 reads ``Deployment in version "v1" cannot be handled as a Deployment: `` + this.
    """
    known = types.of(kind, obj)
    return "" if known is None else _mismatch(obj, known, "")


def _mismatch(obj: Mapping[str, Any], known: Type, path: str) -> str:
    for key, value in obj.items():
        field = known.fields.get(key)
        if field is None or value is None:
            continue
        here = f"{path}.{key}" if path else key
        wrong = _wrong(value, field.type, here, known)
        if wrong:
            return wrong
    return ""


def _wrong(value: Any, word: str, path: str, owner: Type) -> str:
    if value is None or word == "any":
        return ""
    if word.startswith("[]"):
        if not isinstance(value, list):
            return _complaint(value, path, owner, "[]" + _go_name(word[2:]))
        return next((wrong for item in value if (wrong := _wrong(item, word[2:], path, owner))), "")
    if word.startswith("{}"):
        if not isinstance(value, dict):
            return _complaint(value, path, owner, "map[string]" + _go_name(word[2:]))
        return next((wrong for item in value.values() if (wrong := _wrong(item, word[2:], path, owner))), "")
    if word == "Quantity":
        return _wrong_quantity(value)
    if word == "IntOrString":
        fits = isinstance(value, (int, str)) and not isinstance(value, bool)
        return "" if fits else _complaint(value, path, owner, "intstr.IntOrString")
    scalar = _GO_TYPES.get(word)
    if scalar is not None:
        fits = isinstance(value, scalar[0]) and (word == "boolean" or not isinstance(value, bool))
        return "" if fits else _complaint(value, path, owner, scalar[1])
    known = types.find(word)
    if known is None:
        return ""
    if not isinstance(value, dict):
        return _complaint(value, path, owner, _go_name(word))
    return _mismatch(value, known, path)


def _wrong_quantity(value: Any) -> str:
    try:
        parse(value)
    except ValueError as wrong:
        return str(wrong)
    return ""


def _go_name(word: str) -> str:
    """``core.v1.Container`` -> ``v1.Container``, as Go's decoder names it."""
    return word.split(".", 1)[1] if word.count(".") == 2 else _GO_TYPES.get(word, ((), word))[1]


def _complaint(value: Any, path: str, owner: Type, wanted: str) -> str:
    if isinstance(value, bool):
        got = "bool"
    elif isinstance(value, (int, float)):
        got = "number"
    else:
        got = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else "string"
    struct = owner.name.rsplit(".", 1)[-1]
    return f"json: cannot unmarshal {got} into Go struct field {struct}.{path} of type {wanted}"


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
