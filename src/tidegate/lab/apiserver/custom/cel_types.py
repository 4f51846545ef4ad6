"""A schema as CEL types, and values as CEL has them (apiextensions schema/cel/model, apiserver pkg/cel/common).

Types are protobuf messages made at run time: CEL's own checker then knows every field of a rule's ``self``, and a
misspelt one is refused when the definition is created. Rules run over plain maps and lists.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from itertools import count
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, struct_pb2, timestamp_pb2

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom.structural import INT_OR_STRING, Schema
from tidegate.lab.apiserver.schema.human import instant

_KEYWORDS = frozenset(
    (
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    )
)
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": (_Field.TYPE_STRING, cel.Type.STRING),
    "integer": (_Field.TYPE_INT64, cel.Type.INT),
    "number": (_Field.TYPE_DOUBLE, cel.Type.DOUBLE),
    "boolean": (_Field.TYPE_BOOL, cel.Type.BOOL),
}
_META = Schema({}, "object", {"name": Schema({}, "string"), "generateName": Schema({}, "string")})
_TEXT = Schema({}, "string")


def escaped(name: str) -> str:
    """A property as rules spell it (apiserver pkg/cel/escaping.go); "" for one that no rule can reach."""
    if name in _KEYWORDS:
        return f"__{name}__"
    found = re.sub(r"__|[.\-/]", lambda hit: _ESCAPES[hit[0]], name)
    return found if _NAME.fullmatch(found) else ""


def fields(schema: Schema, *, is_root: bool = False) -> dict[str, Schema]:
    """The properties rules can see: of an object with metadata its kind, its version and its name, too."""
    found = {name: node for name, node in schema.properties.items() if _is_typed(node)}
    if is_root or schema.is_embedded:
        found |= {"apiVersion": _TEXT, "kind": _TEXT, "metadata": _META}
    return found


def _is_typed(schema: Schema) -> bool:
    return bool(schema.type or schema.raw.get(INT_OR_STRING))


def _is_map(schema: Schema) -> bool:
    return schema.additional is not None and not schema.properties


# -- types


_numbers = count(1)


class Types:
    """The message types of one schema, in a pool of their own."""

    def __init__(self, *, is_loose: bool = False) -> None:
        self._is_loose = is_loose
        """Numbers are dynamic."""
        self.pool = descriptor_pool.DescriptorPool()
        for known in (struct_pb2, timestamp_pb2, duration_pb2):
            proto = descriptor_pb2.FileDescriptorProto()
            known.DESCRIPTOR.CopyToProto(proto)
            self.pool.Add(proto)

    def of(self, schema: Schema, *, is_root: bool = False) -> Any:
        """The CEL type of a node."""
        if schema.raw.get(INT_OR_STRING) or not schema.type:
            return cel.Type.DYN
        if schema.type == "array":
            return cel.Type.List(self.of(schema.items) if schema.items is not None else cel.Type.DYN)
        if schema.type == "object":
            if _is_map(schema) and not is_root:
                assert schema.additional is not None
                return cel.Type.Map(cel.Type.STRING, self.of(schema.additional))
            return cel.Type(self._message(schema, is_root=is_root))
        if self._is_loose and schema.type in ("integer", "number"):
            return cel.Type.DYN
        return _special(schema)[1] or _SCALARS[schema.type][1]

    def _message(self, schema: Schema, *, is_root: bool) -> str:
        number = next(_numbers)
        proto = descriptor_pb2.FileDescriptorProto(name=f"{number}.proto", package=f"custom{number}", syntax="proto2")
        proto.dependency.extend(f"google/protobuf/{name}.proto" for name in ("struct", "timestamp", "duration"))
        self._fill(
            proto, proto.message_type.add(name="Self"), fields(schema, is_root=is_root), f".{proto.package}.Self"
        )
        self.pool.Add(proto)
        return f"{proto.package}.Self"

    def _fill(self, file: Any, message: Any, properties: dict[str, Schema], path: str) -> None:
        for number, (name, node) in enumerate(properties.items(), 1):
            spelled = escaped(name)
            if spelled:
                field = message.field.add(name=spelled, number=number, label=_Field.LABEL_OPTIONAL)
                self._type(file, message, field, node, path)

    def _type(self, file: Any, message: Any, field: Any, schema: Schema, path: str) -> None:
        """Give a field the type of a node. What messages cannot say (lists of lists) is dynamic."""
        if schema.type == "array" and schema.items is not None and field.label == _Field.LABEL_OPTIONAL:
            if schema.items.type == "array" or _is_map(schema.items):
                return _dynamic(field, is_list=True)
            field.label = _Field.LABEL_REPEATED
            return self._type(file, message, field, schema.items, path)
        if schema.type == "object" and _is_map(schema):
            assert schema.additional is not None
            if schema.additional.type == "array" or _is_map(schema.additional):
                return _dynamic(field)
            entry = message.nested_type.add(name=_entry(field.name))
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
            value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL)
            self._type(file, message, value, schema.additional, path)
            field.type, field.type_name, field.label = (
                _Field.TYPE_MESSAGE,
                f"{path}.{entry.name}",
                _Field.LABEL_REPEATED,
            )
            return None
        if schema.type == "object":
            below = file.message_type.add(name=f"Type{next(_numbers)}")
            field.type, field.type_name = _Field.TYPE_MESSAGE, f".{file.package}.{below.name}"
            return self._fill(file, below, fields(schema), field.type_name)
        special = _special(schema)[0]
        if special:
            field.type, field.type_name = _Field.TYPE_MESSAGE, special
        elif self._is_loose and schema.type in ("integer", "number"):
            return _dynamic(field)
        elif schema.type in _SCALARS and not schema.raw.get(INT_OR_STRING):
            is_bytes = schema.type == "string" and schema.raw.get("format") == "byte"
            field.type = _Field.TYPE_BYTES if is_bytes else _SCALARS[schema.type][0]
        else:
            return _dynamic(field)
        return None


def _entry(name: str) -> str:
    """What protobuf wants the entries of a map to be called."""
    return re.sub(r"(?:^|_+)([^_]?)", lambda hit: hit[1].upper(), name) + "Entry"


def _dynamic(field: Any, *, is_list: bool = False) -> None:
    field.type = _Field.TYPE_MESSAGE
    field.type_name = ".google.protobuf.ListValue" if is_list else ".google.protobuf.Value"


def _special(schema: Schema) -> tuple[str, Any]:
    """Strings that are instants, durations or bytes to a rule: the message's name and the type."""
    kind = str(schema.raw.get("format") or "") if schema.type == "string" else ""
    if kind in ("date", "date-time", "datetime"):
        return ".google.protobuf.Timestamp", cel.Type.TIMESTAMP
    if kind == "duration":
        return ".google.protobuf.Duration", cel.Type.DURATION
    return "", cel.Type.BYTES if kind == "byte" else None


# -- values


@lru_cache(maxsize=4096)
def _reached(schema: Schema, is_root: bool) -> list[tuple[str, str, Schema]]:
    """The properties of a node that rules can name: as they are, as rules spell them, and their schemas."""
    return [(key, escaped(key), node) for key, node in fields(schema, is_root=is_root).items() if escaped(key)]


def data(value: Any, schema: Schema | None, *, is_root: bool = False) -> Any:
    """A value as rules see it: what the schema does not name is not there."""
    if schema is None or value is None:
        return value
    if isinstance(value, dict):
        if _is_map(schema) and not is_root:
            return {key: data(item, schema.additional) for key, item in value.items()}
        return {spelled: data(value[key], node) for key, spelled, node in _reached(schema, is_root) if key in value}
    if isinstance(value, list):
        return [data(item, schema.items) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):  # what no int64 holds is a float to the server, too
        return float(value) if schema.type == "number" or not -(2**63) <= value < 2**63 else value
    if schema.type == "integer" and isinstance(value, float):
        return int(value)
    return _special_value(value, schema) if isinstance(value, str) else value


def _special_value(value: str, schema: Schema) -> Any:
    kind = _special(schema)
    if kind[0].endswith("Timestamp"):
        found = instant(value)
        if found is not None:
            stamp = timestamp_pb2.Timestamp()
            stamp.FromDatetime(found)
            return stamp
    elif kind[0].endswith("Duration"):
        nanoseconds = nanoseconds_of(value)
        if nanoseconds is not None:
            lasting = duration_pb2.Duration()
            lasting.FromNanoseconds(nanoseconds)
            return lasting
    elif kind[1] is not None:
        try:
            return base64.b64decode(value)
        except binascii.Error:
            return value
    return value


def nanoseconds_of(text: str) -> int | None:
    """A Go duration; None for what is none."""
    if re.fullmatch(r"[-+]?(\d+(\.\d*)?(ns|us|µs|μs|ms|s|m|h))+|[-+]?0", text) is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|μs|ms|s|m|h)", text)
    total = sum(round(float(number) * _UNITS[unit]) for number, unit in parts)
    return -total if text.startswith("-") else total


def aligned(old: Any, new: Any, schema: Schema | None) -> Any:
    """``old`` with its sets and maps-in-lists in the order of ``new``: to a rule they are equal in any order."""
    if schema is None:
        return old
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            key: aligned(item, new.get(key), schema.properties.get(key, schema.additional)) for key, item in old.items()
        }
    if isinstance(old, list) and isinstance(new, list) and schema.list_type in ("set", "map"):
        keys = [_key(item, schema) for item in new]
        items = sorted(
            old, key=lambda item: keys.index(_key(item, schema)) if _key(item, schema) in keys else len(keys)
        )
        return [aligned(item, _same_key(item, new, schema), schema.items) for item in items]
    return old


def _key(item: Any, schema: Schema) -> Any:
    if schema.list_type == "map" and isinstance(item, dict):
        return [item.get(key) for key in schema.list_keys]
    return item


def _same_key(item: Any, others: list[Any], schema: Schema) -> Any:
    return next((other for other in others if _key(other, schema) == _key(item, schema)), None)


def former(old: Any, item: Any, schema: Schema) -> JsonObject | None:
    """What an item of a list of maps was before; None where the list does not tell its items apart."""
    if schema.list_type != "map" or not isinstance(old, list):
        return None
    found = [other for other in old if _key(other, schema) == _key(item, schema)]
    return found[0] if len(found) == 1 else None
