"""Label and field selectors in kubectl's grammar.

Grammar and messages follow apimachinery pkg/labels/selector.go and pkg/fields/selector.go. ``!=`` and ``notin``
match objects without the key (labels/selector.go Matches).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.objects import dig, text
from tidegate.lab.apiserver.schema import names

_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|>|<|[^\s=!,()<>]+)")
_OPERATORS = ("in", "notin", "=", "==", "!=", "gt", "lt")
_SYMBOLS = {"=", "==", "!=", "!", ",", "(", ")", ">", "<", ""}


class BadSelector(ValueError):
    """The selector's text does not parse; the message is the real server's."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a label selector. ``operator``: in, notin, exists, absent, gt, lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "in":
            return value in self.values if value is not None else False
        if self.operator == "notin":
            return value is None or value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "absent":
            return value is None
        try:
            number, bound = int(value or ""), int(self.values[0])
        except ValueError:
            return False
        return number > bound if self.operator == "gt" else number < bound


class _Parser:
    def __init__(self, source: str) -> None:
        self.tokens: list[str] = []
        position = 0
        while position < len(source.rstrip()):
            found = _TOKEN.match(source, position)
            if found is None:
                raise BadSelector(f"unable to parse requirement: found '{source[position:]}', expected: identifier")
            self.tokens.append(found[1])
            position = found.end()
        self.index = 0

    def peek(self) -> str:
        return self.tokens[self.index] if self.index < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.index += 1
        return token

    def requirements(self) -> tuple[Requirement, ...]:
        found: list[Requirement] = []
        while self.peek():
            found.append(self.requirement())
            token = self.take()
            if token == "":
                break
            if token != ",":
                raise BadSelector(f"found '{token}', expected: ',' or 'end of string'")
            if self.peek() in ("", ","):
                raise BadSelector(f"found '{self.peek()}', expected: identifier after ','")
        return tuple(found)

    def requirement(self) -> Requirement:
        absent = self.peek() == "!"
        if absent:
            self.take()
        key = self.take()
        if key in _SYMBOLS:
            if not absent:
                raise BadSelector(f"found '{key}', expected: !, identifier, or 'end of string'")
            raise BadSelector(f"unable to parse requirement: found '{key}', expected: identifier")
        if wrong := names.qualified_name(key):
            raise BadSelector(f'unable to parse requirement: <nil>: Invalid value: "{key}": {"; ".join(wrong)}')
        if absent or self.peek() in ("", ","):
            return Requirement(key, "absent" if absent else "exists")
        return self.compared(key, self.take())

    def compared(self, key: str, operator: str) -> Requirement:
        if operator in ("in", "notin"):
            return Requirement(key, operator, _checked(key, self.several()))
        if operator in ("=", "=="):
            return Requirement(key, "in", _checked(key, (self.exact(),)))
        if operator == "!=":
            return Requirement(key, "notin", _checked(key, (self.exact(),)))
        if operator in (">", "<"):
            bound = self.exact()
            if not re.fullmatch(r"[-+]?\d+", bound):
                why = "for 'Gt', 'Lt' operators, the value must be an integer"
                raise BadSelector(f'unable to parse requirement: values[0]: Invalid value: "{bound}": {why}')
            return Requirement(key, "gt" if operator == ">" else "lt", (bound,))
        raise BadSelector(f"unable to parse requirement: found '{operator}', expected: {', '.join(_OPERATORS)}")

    def exact(self) -> str:
        token = self.peek()
        if token in ("", ","):
            return ""
        if token in _SYMBOLS:
            raise BadSelector(f"unable to parse requirement: found '{token}', expected: identifier")
        return self.take()

    def several(self) -> tuple[str, ...]:
        token = self.take()
        if token != "(":
            raise BadSelector(f"unable to parse requirement: found '{token}' expected: '('")
        values: list[str] = []
        while True:
            token = self.take()
            if token == ")":
                return tuple(values or [""])
            if token == ",":
                continue
            if token in _SYMBOLS:
                raise BadSelector(f"unable to parse requirement: found '{token}', expected: ',', or identifier")
            values.append(token)


def _checked(key: str, values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if wrong := names.label_value(value):
            place = f"values[{index}][{key}]"
            raise BadSelector(f'unable to parse requirement: {place}: Invalid value: "{value}": {"; ".join(wrong)}')
    return values


@lru_cache(maxsize=1024)
def parse_labels(source: str) -> tuple[Requirement, ...]:
    """The terms of a label selector; raises ``BadSelector``."""
    return _Parser(source).requirements()


@lru_cache(maxsize=1024)
def parse_fields(source: str) -> tuple[tuple[str, bool, str], ...]:
    """The terms of a field selector as (label, equal?, value); empty terms are skipped (kr8s sends ``a=b,``)."""
    terms: list[tuple[str, bool, str]] = []
    for term in source.split(","):
        if not term.strip():
            continue
        for operator in ("!=", "==", "="):
            label, found, value = term.partition(operator)
            if found:
                terms.append((label.strip(), operator != "!=", value.strip()))
                break
        else:
            raise BadSelector(f"invalid selector: '{source}'; can't understand '{term}'")
    return tuple(terms)


_FALSE_WHEN_ABSENT = {"unschedulable", "hostNetwork"}


FieldPath = tuple[str, ...]
"""Where a selectable field stands in an object: ("spec", "nodeName")."""


def field_text(obj: JsonObject, path: FieldPath) -> str:
    """A field as its selector sees it: absent booleans are "false" (core/v1/conversion.go, node and pod strategies)."""
    value = dig(obj, path)
    if value is None and path[-1] in _FALSE_WHEN_ABSENT:
        return "false"
    return text(value)


_ALWAYS: dict[str, FieldPath] = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which objects of one collection: a namespace ("" = all), label terms and field terms (path, equal?, value)."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[tuple[FieldPath, bool, str], ...] = ()
    name: str = ""

    @property
    def is_trivial(self) -> bool:
        return not (self.labels or self.fields or self.name)

    def matches(self, obj: JsonObject) -> bool:
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        if self.name and metadata["name"] != self.name:
            return False
        if self.labels:
            labels = metadata.get("labels") or {}
            for requirement in self.labels:
                if not requirement.matches(labels):
                    return False
        for path, equal, value in self.fields:  # noqa: SIM110 - asked for every event and watcher; all() costs twice
            if (field_text(obj, path) == value) is not equal:
                return False
        return True

    @property
    def trigger(self) -> tuple[FieldPath, str] | None:
        """A field (path, value) an object must have to match, so that a store need not ask every watcher."""
        if self.name:
            return _ALWAYS["metadata.name"], self.name
        return next(((path, value) for path, equal, value in self.fields if equal), None)


EVERYTHING = Filter()


def select(known: Mapping[str, FieldPath], namespace: str, labels: str, fields: str) -> Filter:
    """A filter from selector texts. ``known`` maps a kind's field labels to paths; raises ``BadSelector``."""
    if not labels and not fields:
        return Filter(namespace) if namespace else EVERYTHING
    terms = []
    name = ""
    for label, equal, value in parse_fields(fields) if fields else ():
        path = _ALWAYS.get(label) or known.get(label)
        if not label and equal and not value:
            continue  # "=" says nothing
        if path is None and not known:
            names_known = ", ".join(f'"{one}"' for one in _ALWAYS)
            raise BadSelector(f'"{label}" is not a known field selector: only {names_known}')
        if path is None:
            raise BadSelector(f"field label not supported: {label}")
        if label == "metadata.name" and equal:
            if name and name != value:
                terms.append((path, True, value))
            name = name or value
            continue
        terms.append((path, equal, value))
    return Filter(namespace, parse_labels(labels) if labels else (), tuple(terms), name)
