"""The JSONPath of printer columns and selectable fields: one expression of client-go's util/jsonpath.

Fields, ``['quoted']`` keys, indices and slices, ``*``, and filters that compare two of ``@.path`` and a literal. A
missing key finds nothing (AllowMissingKeys).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

Step = Callable[[Any], Iterable[Any]]

_FIELD = re.compile(r"\.?((?:\\.|[^.\[\]\\{}'\"\s])+)")
_QUOTED = re.compile(r"""\[\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\s*\]""")
_INDEX = re.compile(r"\[\s*(-?\d+)?\s*(?:(:)\s*(-?\d+)?)?\s*\]")
_FILTER = re.compile(r"\[\?\(\s*(.+?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?)\s*)?\)\]")


class BadPath(ValueError):
    """A path that does not parse."""


def field(name: str) -> Step:
    """One key of a map; ``*`` all values."""

    def step(value: Any) -> Iterable[Any]:
        if name == "*":
            yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        elif isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _slice(first: int | None, last: int | None, *, is_range: bool) -> Step:
    def step(value: Any) -> Iterable[Any]:
        if not isinstance(value, list):
            return
        if is_range:
            yield from value[first:last]
        elif first is not None and -len(value) <= first < len(value):
            yield value[first]

    return step


def _operand(text: str) -> Callable[[Any], Any]:
    text = text.strip()
    if text.startswith("@"):
        path = parse(text[1:]) if len(text) > 1 else ()
        return lambda item: next(iter(walk(path, item)), None)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return lambda item: text[1:-1]
    try:
        literal = json.loads(text)
    except ValueError:
        raise BadPath(f"unrecognized literal {text}") from None
    return lambda item: literal


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: bool(left == right),
    "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}


def _filter(left: str, operator: str | None, right: str | None) -> Step:
    one = _operand(left)
    if operator is None or right is None:
        return lambda value: [item for item in value if one(item) is not None] if isinstance(value, list) else []
    two, compare = _operand(right), _COMPARISONS[operator]

    def is_wanted(item: Any) -> bool:
        try:
            return one(item) is not None and compare(one(item), two(item))
        except TypeError:
            return False

    return lambda value: [item for item in value if is_wanted(item)] if isinstance(value, list) else []


@lru_cache(maxsize=1024)
def parse(text: str) -> tuple[Step, ...]:
    """The steps of a path such as ``.status.conditions[?(@.type=="Ready")].status``."""
    steps: list[Step] = []
    rest = text.strip()
    if rest == ".":
        return ()
    while rest:
        step, rest = _next(rest, text)
        steps.append(step)
    return tuple(steps)


def _next(rest: str, whole: str) -> tuple[Step, str]:
    if rest.startswith("["):
        if found := _QUOTED.match(rest):
            name = found[1] if found[1] is not None else found[2]
            return field(re.sub(r"\\(.)", r"\1", name)), rest[found.end() :]
        if rest.startswith("[*]"):
            return field("*"), rest[3:]
        if found := _INDEX.match(rest):
            first, last = (int(part) if part else None for part in (found[1], found[3]))
            return _slice(first, last, is_range=bool(found[2])), rest[found.end() :]
        if found := _FILTER.match(rest):
            return _filter(found[1], found[2], found[3]), rest[found.end() :]
    elif not rest.startswith("..") and (found := _FIELD.match(rest)):
        return field(re.sub(r"\\(.)", r"\1", found[1])), rest[found.end() :]
    raise BadPath(f"{whole}: cannot be understood from {rest!r} on")


def walk(steps: Iterable[Step], obj: Any) -> list[Any]:
    """Everything the path leads to."""
    found = [obj]
    for step in steps:
        found = [item for value in found for item in step(value)]
    return found


def shown(value: Any) -> str:
    """A value as a column of type string prints it (Go's text of a scalar, JSON of the rest)."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        value = int(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
