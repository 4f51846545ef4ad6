"""Formats and patterns of strings (kube-openapi pkg/validation/strfmt; apiextensions validation/formats.go)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

_UUID = "[0-9a-f]{8}-?[0-9a-f]{4}-?%s[0-9a-f]{3}-?%s[0-9a-f]{3}-?[0-9a-f]{12}"
_DURATION = r"[-+]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+"
_UNITS = (
    "ns|nanos?(econds?)?|us|µs|micros?(econds?)?|ms|millis?(econds?)?|s|secs?(onds?)?|m|mins?(utes?)?|h|hours?|d|days?"
    "|w|weeks?"
)
_SCALA = rf"\d+\s*({_UNITS})"
_DATE_TIME = r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d([.,]\d+)?([Zz]|[-+]\d\d:?\d\d)?"
_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

_PATTERNS = {
    "bsonobjectid": "[0-9a-fA-F]{24}",
    "email": r"[^@\s]+@[^@\s]+",
    "hostname": r"(?=.{1,255}\Z)[a-zA-Z0-9\u0080-\U0010ffff]([-a-zA-Z0-9\u0080-\U0010ffff]*[a-zA-Z0-9])?"
    r"(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*\.?",
    "mac": r"([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2})|([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}",
    "uuid": "(?i:" + _UUID % ("[0-9a-f]", "[0-9a-f]") + ")",
    "uuid3": "(?i:" + _UUID % ("3", "[0-9a-f]") + ")",
    "uuid4": "(?i:" + _UUID % ("4", "[89ab]") + ")",
    "uuid5": "(?i:" + _UUID % ("5", "[89ab]") + ")",
    "ssn": r"\d{3}[- ]?\d{2}[- ]?\d{4}",
    "hexcolor": "#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})",
    "rgbcolor": r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)",
    "duration": f"{_DURATION}|{_SCALA}",
    "k8sshortname": _LABEL,
    "k8slongname": rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*",
}


def known(schema: dict[str, Any]) -> str:
    """The format of a string schema without its dashes; "" for one that the server ignores."""
    name = str(schema.get("format") or "").replace("-", "")
    return name if schema.get("type", "string") == "string" and name in _ALL else ""


def is_recognized(schema: dict[str, Any]) -> bool:
    """Nobody need be warned about this node's format."""
    name, kind = str(schema.get("format") or ""), schema.get("type", "")
    if not name:
        return True
    numbers = {"integer": ("int32", "int64"), "number": ("float", "double")}
    return name in numbers[kind] if kind in numbers else bool(known(schema))


def is_valid(name: str, value: str) -> bool:
    """The value has the format."""
    check = _CHECKS.get(name)
    if check is not None:
        try:
            return check(value)
        except ValueError:
            return False
    pattern = _PATTERNS.get(name)
    return pattern is None or re.fullmatch(pattern, value) is not None


def _date_time(value: str) -> bool:
    if re.fullmatch(_DATE_TIME, value) is None:
        return False
    date.fromisoformat(value[:10])
    return int(value[11:13]) < 24 and int(value[14:16]) < 60 and int(value[17:19]) < 60


def _is_uri(value: str) -> bool:
    """As Go's ParseRequestURI: an absolute URI or an absolute path."""
    if any(ord(letter) < 0x20 or letter == "\x7f" or letter == " " for letter in value):
        return False
    return value.startswith("/") or bool(urlsplit(value).scheme)


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except binascii.Error:
        return False
    return True


def _is_isbn10(value: str) -> bool:
    digits = re.sub("[- ]", "", value)
    if re.fullmatch(r"\d{9}[\dX]", digits) is None:
        return False
    values = [10 if digit == "X" else int(digit) for digit in digits]
    return sum(digit * (10 - at) for at, digit in enumerate(values)) % 11 == 0


def _is_isbn13(value: str) -> bool:
    digits = re.sub("[- ]", "", value)
    return re.fullmatch(r"\d{13}", digits) is not None and not (
        sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(digits)) % 10
    )


def _is_credit_card(value: str) -> bool:
    digits = [int(digit) for digit in re.sub(r"\D", "", value)]
    if not 13 <= len(digits) <= 16:
        return False
    return not sum(digit if at % 2 == 0 else sum(divmod(2 * digit, 10)) for at, digit in enumerate(digits[::-1])) % 10


_CHECKS: dict[str, Callable[[str], bool]] = {
    "byte": _is_base64,
    "cidr": lambda value: "/" in value and bool(ipaddress.ip_interface(value)),
    "creditcard": _is_credit_card,
    "date": lambda value: len(value) == 10 and bool(date.fromisoformat(value)),
    "datetime": _date_time,
    "ipv4": lambda value: bool(ipaddress.IPv4Address(value)),
    "ipv6": lambda value: bool(ipaddress.IPv6Address(value)),
    "isbn": lambda value: _is_isbn10(value) or _is_isbn13(value),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "password": lambda value: True,
    "uri": _is_uri,
}

_ALL = frozenset((*_PATTERNS, *_CHECKS))


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """A Go pattern for Python's engine: ``\\z`` and an end that no newline may follow. ValueError for what is none."""
    text = pattern.replace(r"\z", r"\Z")
    text = re.sub(r"(?<!\\)((?:\\\\)*)\$(?=$|\)|\|)", r"\1\\Z", text)
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{pattern}: {error}") from None


def matches(pattern: str, value: str) -> bool:
    """The pattern is found somewhere in the value, as Go's MatchString."""
    return compiled(pattern).search(value) is not None
