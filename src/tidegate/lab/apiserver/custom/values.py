"""Values held against an OpenAPI v3 schema, in the words of kube-openapi's validator (pkg/validation/validate).

The order of checks is that of ``NewSchemaValidator``: type, allOf and its like, string, format, number, list, enum,
object. Of several anyOf or oneOf branches the one with most matching checks speaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom import formats
from tidegate.lab.apiserver.custom.structural import INT_OR_STRING, LIST_KEYS, LIST_TYPE
from tidegate.lab.apiserver.schema import causes
from tidegate.lab.apiserver.schema.causes import Cause
from tidegate.lab.apiserver.schema.patches import same

ABSENT: Any = object()
"""What an update had before, where it had nothing to compare with."""


@dataclass(slots=True)
class _Result:
    """What is wrong, and how many checks were passed on the way."""

    found: list[Cause] = field(default_factory=list)
    matches: int = 1

    def merge(self, other: _Result) -> None:
        self.add(other.found)
        self.matches += other.matches

    def add(self, found: Iterable[Cause]) -> None:
        """One and the same complaint is made once."""
        self.found += [cause for cause in found if cause not in self.found]


def validate(value: Any, schema: JsonObject, path: str = "", old: Any = ABSENT) -> list[Cause]:
    """What is wrong with a value. What has not changed since ``old`` is no longer complained about (ratcheting)."""
    return _check(value, schema, path, old).found


def _check(value: Any, schema: JsonObject, path: str, old: Any = ABSENT) -> _Result:
    result = _Result()
    if old is not ABSENT and path and same(value, old):
        return result
    wanted = ["integer", "string"] if schema.get(INT_OR_STRING) else [schema["type"]] if schema.get("type") else []
    if value is None:
        if wanted and not schema.get("nullable"):
            result.add([_type_cause(path, ",".join(wanted), "null")])
        result.add(_enum(value, schema, path))
        return result
    result.add(_type(value, wanted, schema, path))
    if any(key in schema for key in ("allOf", "anyOf", "oneOf", "not")):
        result.merge(_composed(value, schema, path))
    if isinstance(value, str):
        result.add(_string(value, schema, path))
        result.add(_format(value, wanted, schema, path))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        result.add(_number(value, wanted, schema, path))
    elif isinstance(value, list):
        result.merge(_list(value, schema, path, old))
    result.add(_enum(value, schema, path))
    if isinstance(value, dict):
        result.merge(_object(value, schema, path, old))
    return result


def _name(path: str) -> str:
    """A cause's field; the root has none, and Go prints so."""
    return path.removeprefix(".") or "<nil>"


def _invalid(path: str, value: Any, text: str) -> Cause:
    return causes.invalid(_name(path), _bare(value), f"{path} in body {text}")


class _GoFloat(float):
    """A float that prints as Go's %v does: shortest digits, with an exponent from a million on."""

    def __str__(self) -> str:
        exact = float(self)
        shortest = next(text for at in range(17) if float(text := f"{exact:.{at}e}") == exact)
        if -4 <= int(shortest.partition("e")[2]) < _EXPONENT_MIN:
            return str(int(exact)) if exact.is_integer() else repr(exact)
        return shortest


def _bare(value: Any) -> Any:
    """A number as it is printed: of floats, and of integers that are floats to Go."""
    if isinstance(value, float) or json_type(value) == "number":
        return _GoFloat(value)
    return value


# -- types


def _type_cause(path: str, wanted: str, got: str) -> Cause:
    text = f'{path} in body must be of type {wanted}: "{got}"'
    return Cause(_name(path), "FieldValueTypeInvalid", f'Invalid value: "{got}": {text}')


_EXPONENT_MIN = 6
"""From here on Go prints a float with an exponent."""
_EXACT = 2**53
"""Floats are whole numbers below it (swag.IsFloat64AJSONInteger)."""


def json_type(value: Any) -> str:
    """``boolean``, ``string``, ``integer``, ``number``, ``array`` or ``object``."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "number"  # Go has no integer for it
    names = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _type(value: Any, wanted: list[str], schema: JsonObject, path: str) -> list[Cause]:
    got = json_type(value)
    is_whole = got == "number" and abs(value) < _EXACT and value == int(value) and "integer" in wanted
    is_number = got == "integer" and "number" in wanted
    is_formatted = bool(formats.known(schema)) and isinstance(value, (str, list))
    if not wanted or got in wanted or is_whole or is_number:
        return []
    if is_formatted and not set(wanted) & {"integer", "number"}:
        return []
    return [_type_cause(path, ",".join(wanted), got)]


def _enum(value: Any, schema: JsonObject, path: str) -> list[Cause]:
    options = schema.get("enum")
    if not options or any(same(value, option) for option in options if option is not None):
        return []
    texts = [option if isinstance(option, str) else causes.shown(option) for option in options]
    return [causes.not_supported(_name(path), _bare(value), texts)]


# -- scalars


def _string(value: str, schema: JsonObject, path: str) -> list[Cause]:
    longest, shortest, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if longest is not None and len(value) > longest:
        return [causes.too_long(_name(path), longest)]
    if shortest is not None and len(value) < shortest:
        return [_invalid(path, value, f"should be at least {shortest} chars long")]
    if pattern and not formats.matches(pattern, value):
        return [_invalid(path, value, f"should match '{pattern}'")]
    return []


def _format(value: str, wanted: list[str], schema: JsonObject, path: str) -> list[Cause]:
    name = formats.known(schema)
    if not name or wanted not in ([], ["string"]) or formats.is_valid(name, value):
        return []
    text = f"{path} in body must be of type {schema['format']}: {causes.shown(value)}"
    return [Cause(_name(path), "FieldValueTypeInvalid", f"Invalid value: {causes.shown(value)}: {text}")]


_RANGES = {"int32": 2**31, "int64": 2**63}


def _number(value: float, wanted: list[str], schema: JsonObject, path: str) -> list[Cause]:
    found: list[Cause] = []
    if wanted == ["integer"]:
        name = schema.get("format") if schema.get("format") in _RANGES else ""
        limit = _RANGES[name or "int64"]
        if not -limit <= value < limit or value != int(value):
            said = f"with format {name}" if name else "(default format)"
            text = f"Checked value must be of type integer {said} in {path}"
            found.append(causes.invalid("<nil>", "", text))
    factor, least, most = schema.get("multipleOf"), schema.get("minimum"), schema.get("maximum")
    if factor is not None and not (value / factor).is_integer():
        found.append(_invalid(path, value, f"should be a multiple of {_bare(factor)}"))
    if least is not None:
        is_exclusive = bool(schema.get("exclusiveMinimum"))
        if value < least or (is_exclusive and value == least):
            text = "greater than" if is_exclusive else "greater than or equal to"
            found.append(_invalid(path, value, f"should be {text} {_bare(least)}"))
    if most is not None:
        is_exclusive = bool(schema.get("exclusiveMaximum"))
        if value > most or (is_exclusive and value == most):
            text = "less than" if is_exclusive else "less than or equal to"
            found.append(_invalid(path, value, f"should be {text} {_bare(most)}"))
    return found


# -- lists and objects


def _too_many(path: str, count: int, most: int) -> Cause:
    items = "item" if most == 1 else "items"
    return Cause(_name(path), "FieldValueTooMany", f"Too many: {count}: must have at most {most} {items}")


def _list(value: list[Any], schema: JsonObject, path: str, old: Any) -> _Result:
    result = _Result()
    items = schema.get("items")
    if isinstance(items, dict):
        before = former(schema, old)
        for index, item in enumerate(value):
            result.merge(_check(item, items, f"{path}[{index}]", before(item)))
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and len(value) < least:
        result.add([_invalid(path, len(value), f"should have at least {least} items")])
    if most is not None and len(value) > most:
        result.add([_too_many(path, len(value), most)])
    if schema.get("uniqueItems") and any(same(one, two) for at, one in enumerate(value) for two in value[:at]):
        result.add([_invalid(path, "", "shouldn't contain duplicates")])
    return result


def former(schema: JsonObject, old: Any) -> Any:
    """How to find what an item of a list was before: by its keys, where the list has them; else nobody can tell."""
    keys = schema.get(LIST_KEYS) or ()
    if schema.get(LIST_TYPE) != "map" or not keys or not isinstance(old, list):
        return lambda item: ABSENT

    def key_of(item: Any) -> Any:
        return [item.get(key) for key in keys] if isinstance(item, dict) else None

    def found(item: Any) -> Any:
        wanted = key_of(item)
        held = [other for other in old if wanted is not None and key_of(other) == wanted]
        return held[0] if len(held) == 1 else ABSENT

    return found


def _object(value: JsonObject, schema: JsonObject, path: str, old: Any) -> _Result:
    result = _Result()
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    if least is not None and len(value) < least:
        result.add([_invalid(path, len(value), f"should have at least {least} properties")])
    if most is not None and len(value) > most:
        result.add([_too_many(path, len(value), most)])
    before = old if isinstance(old, dict) else {}
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, item in value.items():
        if key not in properties:
            if isinstance(additional, dict):
                result.merge(_check(item, additional, f"{path}.{key}", before.get(key, ABSENT)))
            elif additional is False:
                text = f"{path}.{key} in body is a forbidden property"
                result.add([causes.invalid(_name(path), key, text)])
    for key, node in properties.items():
        if key in value:
            here = f"{path}.{key}" if path else key
            result.merge(_check(value[key], node, here, before.get(key, ABSENT)))
    for key in schema.get("required") or ():
        if key not in value:
            result.add([causes.required(f"{path}.{key}".removeprefix("."))])
    return result


# -- compositions


def _said(path: str, text: str) -> Cause:
    return causes.invalid("<nil>", "", f'"{path}" {text}')


def _composed(value: Any, schema: JsonObject, path: str) -> _Result:
    result = _Result()
    if branches := schema.get("anyOf"):
        result.merge(_any_of(value, branches, path))
    if branches := schema.get("oneOf"):
        result.merge(_one_of(value, branches, path))
    if branches := schema.get("allOf"):
        results = [_check(value, branch, path) for branch in branches]
        for one in results:
            result.merge(one)
        valid = sum(not one.found for one in results)
        if valid != len(results):
            result.add([_said(path, f"must validate all the schemas (allOf){'' if valid else '. None validated'}")])
    if "not" in schema and not _check(value, schema["not"], path).found:
        result.add([_said(path, "must not validate the schema (not)")])
    return result


def _any_of(value: Any, branches: list[JsonObject], path: str) -> _Result:
    result = _Result()
    results = [_check(value, branch, path) for branch in branches]
    valid = [one for one in results if not one.found]
    if valid:
        result.merge(valid[0])
        return result
    result.add([_said(path, "must validate at least one schema (anyOf)")])
    result.merge(max(results, key=lambda one: one.matches))
    return result


def _one_of(value: Any, branches: list[JsonObject], path: str) -> _Result:
    result = _Result()
    results = [_check(value, branch, path) for branch in branches]
    valid = [one for one in results if not one.found]
    if len(valid) == 1:
        result.merge(valid[0])
        return result
    how_many = f"Found {len(valid)} valid alternatives" if valid else "Found none valid"
    result.add([_said(path, f"must validate one and only one schema (oneOf). {how_many}")])
    if not valid:
        result.merge(max(results, key=lambda one: one.matches))
    return result
