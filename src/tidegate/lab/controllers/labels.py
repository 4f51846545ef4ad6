"""Label selectors as objects carry them: a Service's plain map, and ``matchLabels`` with ``matchExpressions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.kube.api import JsonObject


def labels_of(obj: JsonObject) -> dict[str, str]:
    """An object's labels; empty when it has none."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: JsonObject) -> dict[str, str]:
    """An object's annotations; empty when it has none."""
    return obj["metadata"].get("annotations") or {}


def has_all(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """True when every pair of ``wanted`` stands in ``labels`` (an empty ``wanted`` matches everything)."""
    return all(labels.get(key) == value for key, value in wanted.items())


def _expression(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(term["key"]), term.get("values") or ()
    match term["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """metav1.LabelSelector against labels. None matches nothing, ``{}`` everything (LabelSelectorAsSelector)."""
    if selector is None:
        return False
    if not has_all(selector.get("matchLabels") or {}, labels):
        return False
    return all(_expression(term, labels) for term in selector.get("matchExpressions") or ())


def is_everything(selector: Mapping[str, Any] | None) -> bool:
    """True for a selector without a single term."""
    return selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions")
