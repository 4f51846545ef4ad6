"""Decode ``application/vnd.kubernetes.protobuf`` request bodies into the JSON they stand for.

kubectl >= 1.32 sends ``create NOUN``, ``autoscale``, ``create token`` and ``auth`` this way, client-go programs all
their built-in kinds; a 415 is final for them. Answers stay JSON: every client accepts it. Field numbers come from
``data/numbers.txt`` (made by ``tools/generate_numbers.py``), a message a line:

    core.v1.Probe: 1 ^ core.v1.ProbeHandler; 2 initialDelaySeconds int; 7 terminationGracePeriodSeconds ?int

``^`` is an inlined struct, ``?`` a pointer, ``[]`` a list, ``{}`` a string map. gogo writes the zero values of
fields that are no pointers; JSON leaves them out, and so does this.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

from tidegate.lab.apiserver.schema import types

MAGIC = b"k8s\0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Undecodable(ValueError):
    """A body that is no Kubernetes protobuf, or of a kind the number table does not have."""


@cache
def _lines() -> dict[str, str]:
    text = resources.files(__package__).joinpath("data", "numbers.txt").read_text()
    return dict(line.split(": ", 1) for line in text.splitlines())


@cache
def _fields(name: str) -> dict[int, tuple[str, str]]:
    """Fields of a message by number: (JSON name or ``^``, type word)."""
    found = {}
    for entry in filter(None, _lines()[name].split("; ")):
        number, field, word = entry.split(" ", 2)
        found[int(number)] = (field, word)
    return found


def decode(body: bytes) -> dict[str, Any]:
    """The object in a body: magic, ``runtime.Unknown`` envelope, message. Raises ``Undecodable``."""
    if not body.startswith(MAGIC):
        raise Undecodable("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        envelope = {number: value for number, _, value in _pairs(body[len(MAGIC) :])}
        meta = {number: value.decode() for number, _, value in _pairs(envelope.get(1, b""))}
        version, kind = meta.get(1, ""), meta.get(2, "")
        name = types.resolve(kind, version)
        if name not in _lines():
            raise Undecodable(f'no kind "{kind}" is registered for version "{version}"')
        return {"kind": kind, "apiVersion": version, **_message(envelope.get(2, b""), name)}
    except (IndexError, struct.error, UnicodeDecodeError, AttributeError) as error:
        raise Undecodable(f"unable to decode protobuf: {error}") from error


def _pairs(data: bytes) -> list[tuple[int, int, Any]]:
    """Number, wire type and raw value of every field, in order."""
    found: list[tuple[int, int, Any]] = []
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            if at + size > end:
                raise IndexError("unexpected EOF")
            value, at = data[at : at + size], at + size
        elif wire == _FIXED64:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        elif wire == _FIXED32:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        else:
            raise IndexError(f"illegal wire type {wire}")
        found.append((key >> 3, wire, value))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _message(data: bytes, name: str) -> dict[str, Any]:
    known = _fields(name)
    made: dict[str, Any] = {}
    for number, wire, value in _pairs(data):
        field, word = known.get(number, ("", ""))
        if not field:
            continue
        if field == "^":
            made.update(_message(value, word.lstrip("?")))
        elif word.startswith("[]"):
            made.setdefault(field, []).extend(_items(value, wire, word[2:]))
        elif word.startswith("{}"):
            key, item = _entry(value, word[2:])
            made.setdefault(field, {})[key] = item
        else:
            made[field] = _value(value, word.lstrip("?"))
    for field, word in known.values():
        if field in made and not word.startswith("?") and _is_zero(made[field], word):
            del made[field]
    return made


def _is_zero(value: Any, word: str) -> bool:
    """What Go leaves out under omitempty; maps and lists that came have elements, so they are not empty."""
    return value in ("", 0, None) or (value == {} and word != "raw")


def _items(value: Any, wire: int, word: str) -> list[Any]:
    if word == "int" and wire == _BYTES:  # packed
        found, at = [], 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(_signed(number))
        return found
    return [_value(value, word)]


def _entry(data: bytes, word: str) -> tuple[str, Any]:
    """One entry of a map: key 1, value 2; an absent value is the type's zero."""
    parts = {number: value for number, _, value in _pairs(data)}
    raw = parts.get(2, 0 if word in ("int", "bool", "double") else b"")
    key: str = parts.get(1, b"").decode()
    if word.startswith("[]"):  # a map cannot hold lists: Go's named slice is a message with one repeated field
        return key, [item.decode() for _, _, item in _pairs(raw)]
    return key, _value(raw, word)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _value(value: Any, word: str) -> Any:
    match word:
        case "string":
            return value.decode()
        case "int":
            return _signed(value)
        case "bool":
            return bool(value)
        case "double":
            return float(value)
        case "bytes":
            return b64encode(value).decode()
        case "strings":
            return [item.decode() for _, _, item in _pairs(value)]
        case "raw":
            return _raw(value)
        case "Quantity":
            return _only(value, 1, b"0").decode()
        case "IntOrString":
            return _int_or_string(value)
        case "Time" | "MicroTime":
            return _instant(value, is_micro=word == "MicroTime")
        case _:
            return _message(value, word)


def _only(data: bytes, number: int, default: Any) -> Any:
    return next((value for found, _, value in _pairs(data) if found == number), default)


def _raw(data: bytes) -> Any:
    """RawExtension and FieldsV1: JSON bytes in field 1."""
    text = _only(data, 1, b"")
    try:
        return json.loads(text) if text else {}
    except ValueError as error:
        raise Undecodable(f"embedded JSON: {error}") from error


def _int_or_string(data: bytes) -> int | str:
    """{1 type, 2 int, 3 string}: type 1 is the string."""
    parts = {number: value for number, _, value in _pairs(data)}
    if parts.get(1, 0) == 1:
        text: str = parts.get(3, b"").decode()
        return text
    return _signed(parts.get(2, 0))


def _instant(data: bytes, *, is_micro: bool) -> str | None:
    """{1 seconds, 2 nanos}; the zero Time is an empty message and null in JSON."""
    parts = {number: _signed(value) for number, _, value in _pairs(data)}
    if not parts:
        return None
    moment = _EPOCH + timedelta(seconds=parts.get(1, 0), microseconds=parts.get(2, 0) // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if is_micro else "%Y-%m-%dT%H:%M:%SZ")
