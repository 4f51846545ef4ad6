"""What is wrong with one field, in the words of apimachinery's validation/field/errors.go.

Numbers and booleans are printed bare, strings quoted, everything else as JSON with sorted keys (Go marshals
maps so); the real server's 1.36 answers are the oracle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause of a 422: the field's path, the Status cause reason, and the text after the path."""

    field: str
    reason: str
    message: str

    @property
    def text(self) -> str:
        return f"{self.field}: {self.message}"


def shown(value: Any) -> str:
    """A rejected value as the server prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, str):
        return text
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text


def invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause(field, "FieldValueInvalid", _with(f"Invalid value: {shown(value)}", detail))


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", _with("Required value", detail))


def duplicate(field: str, value: Any) -> Cause:
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def not_found(field: str, value: Any) -> Cause:
    return Cause(field, "FieldValueNotFound", f"Not found: {shown(value)}")


def not_supported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    listed = ", ".join(shown(option) for option in supported)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {listed}")


def forbidden(field: str, detail: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> Cause:
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def non_negative(field: str, value: Any) -> list[Cause]:
    """A number that may be absent but not below zero."""
    return [invalid(field, value, NEGATIVE)] if isinstance(value, int) and value < 0 else []


def one_of(field: str, value: Any, options: tuple[str, ...]) -> list[Cause]:
    """A value that may be absent; options are listed as given (the server sorts most of its own)."""
    return [] if value in (None, "") or value in options else [not_supported(field, value, options)]


def unchanged(field: str, new: Any, old: Any) -> list[Cause]:
    """An immutable field."""
    return [] if new == old else [invalid(field, new, IMMUTABLE)]
