"""Label selectors as structs (``matchLabels``, ``matchExpressions``): well-formedness and matching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.lab.apiserver.schema import causes, metadata, names
from tidegate.lab.apiserver.schema.causes import Cause

Json = Mapping[str, Any]
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def is_empty(selector: Json) -> bool:
    return not selector.get("matchLabels") and not selector.get("matchExpressions")


def matches(selector: Json, labels: Json) -> bool:
    """Whether a well-formed selector selects these labels; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(rule, labels) for rule in selector.get("matchExpressions") or ())


def _holds(rule: Json, labels: Json) -> bool:
    key, values = str(rule.get("key")), rule.get("values") or ()
    match rule.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def validate(selector: Json | None, field: str) -> list[Cause]:
    """apimachinery/pkg/apis/meta/v1/validation: keys, values, operators."""
    if not selector:
        return []
    found = metadata.label_set(selector.get("matchLabels"), f"{field}.matchLabels")
    for index, rule in enumerate(selector.get("matchExpressions") or ()):
        path = f"{field}.matchExpressions[{index}]"
        operator, values = rule.get("operator"), rule.get("values") or []
        if operator in ("In", "NotIn") and not values:
            text = "must be specified when `operator` is 'In' or 'NotIn'"
            found.append(causes.required(f"{path}.values", text))
        elif operator in ("Exists", "DoesNotExist") and values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            found.append(causes.forbidden(f"{path}.values", text))
        elif operator not in _OPERATORS:
            found.append(causes.invalid(f"{path}.operator", operator or "", "not a valid selector operator"))
        key = str(rule.get("key") or "")
        found += [causes.invalid(f"{path}.key", key, text) for text in names.qualified_name(key)]
        for at, value in enumerate(values):
            found += [causes.invalid(f"{path}.values[{at}]", value, t) for t in names.label_value(str(value))]
    return found
