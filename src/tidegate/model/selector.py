"""Label selectors: kubectl's grammar, Kubernetes' JSON form, and which requirement a set of labels misses.

Semantics of k8s.io/apimachinery/pkg/labels: ``notin`` and ``!=`` also hold when the key is missing. The two empty
forms differ: a LabelSelector ``{}`` selects everything; a Service without selector selects nothing, it has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.model.decode import Malformed

_KEY = r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_VALUE_ONLY = re.compile(_VALUE)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key. ``operator`` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` meet it."""
        match self.operator:
            case "In":
                return self.key in labels and labels[self.key] in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values or self.key not in labels
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels

    def __str__(self) -> str:
        match self.operator:
            case "In" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "NotIn" if len(self.values) == 1:
                return f"{self.key}!={self.values[0]}"
            case "In" | "NotIn":
                return f"{self.key} {self.operator.lower()} ({','.join(self.values)})"
            case "Exists":
                return self.key
            case _:
                return f"!{self.key}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All of ``requirements`` at once. Without any it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether every requirement is met."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def unmet(self, labels: Mapping[str, str]) -> tuple[Requirement, ...]:
        """The requirements that ``labels`` do not meet."""
        return tuple(requirement for requirement in self.requirements if not requirement.matches(labels))

    @property
    def keys(self) -> tuple[str, ...]:
        """The label keys it looks at, sorted."""
        return tuple(sorted({requirement.key for requirement in self.requirements}))

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def of_labels(labels: Mapping[str, str]) -> Selector:
    """The selector of a Service, or a ``matchLabels``: every key has exactly this value."""
    return Selector(tuple(Requirement(key, "In", (labels[key],)) for key in sorted(labels)))


def of_json(obj: Any, what: str = "selector") -> Selector:
    """A LabelSelector (``matchLabels``, ``matchExpressions``). Raises ``Malformed``."""
    if not isinstance(obj, dict):
        raise Malformed(what, "$", "Expected `object`")
    by_label = obj.get("matchLabels") or {}
    if not isinstance(by_label, dict) or not all(isinstance(value, str) for value in by_label.values()):
        raise Malformed(what, "$.matchLabels", "Expected an object of strings")
    requirements = list(of_labels(by_label).requirements)
    for index, expression in enumerate(obj.get("matchExpressions") or ()):
        requirements.append(_of_expression(expression, what, f"$.matchExpressions[{index}]"))
    return Selector(tuple(requirements))


def _of_expression(expression: Any, what: str, path: str) -> Requirement:
    if not isinstance(expression, dict) or not isinstance(expression.get("key"), str):
        raise Malformed(what, path, "Expected an object with a `key`")
    operator, values = expression.get("operator"), expression.get("values") or []
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        raise Malformed(what, f"{path}.operator", f"{operator!r} is not a valid label selector operator")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Malformed(what, f"{path}.values", "Expected an array of strings")
    if bool(values) is not (operator in ("In", "NotIn")):
        raise Malformed(what, f"{path}.values", f"{operator} takes {'no' if values else 'at least one'} value")
    return Requirement(expression["key"], operator, tuple(values))


def parse(text: str) -> Selector:
    """kubectl's ``-l`` grammar: ``a=b,c!=d,e in (f,g),h notin (i),j,!k``. Raises ``Malformed``."""
    return Selector(tuple(_requirement(part, text) for part in _parts(text)))


def _parts(text: str) -> list[str]:
    """Split at the commas that are not inside parentheses."""
    parts = [part.strip() for part in re.split(r",(?![^(]*\))", text)]
    return [] if parts == [""] else parts


def _requirement(part: str, text: str) -> Requirement:
    if found := _EQUALITY.fullmatch(part):
        key, operator, value = found.groups()
        return Requirement(key, "NotIn" if operator == "!=" else "In", (value,))
    if found := _SET.fullmatch(part):
        key, operator, listed = found.groups()
        values = tuple(sorted({value.strip() for value in listed.split(",")}))
        if all(_VALUE_ONLY.fullmatch(value) for value in values):
            return Requirement(key, "In" if operator == "in" else "NotIn", values)
    if found := _EXISTS.fullmatch(part):
        negation, key = found.groups()
        return Requirement(key, "DoesNotExist" if negation else "Exists")
    raise Malformed("selector", repr(text), f"cannot read the requirement {part!r}")
