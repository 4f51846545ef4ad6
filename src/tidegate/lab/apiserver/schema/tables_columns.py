"""What a printer is: a layout of columns and a function from an object to its cells; and small texts for cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

Json = dict[str, Any]
NONE = "<none>"
UNSET = "<unset>"


@dataclass(frozen=True, slots=True)
class Printer:
    """One kind's table. ``layout`` is ``Name|#Count|*Wide``: ``#`` marks integers, ``@`` instants, ``*`` columns of
    ``-o wide``."""

    layout: str
    cells: Callable[[Json, datetime], list[Any]]
    conditions: Callable[[Json], list[Json]] | None = None


@lru_cache(maxsize=128)
def _columns(layout: str) -> tuple[Json, ...]:
    made = []
    for word in layout.split("|"):
        name = word.lstrip("*#@")
        is_wide, is_number = "*" in word[:2], "#" in word[:2]
        made.append(
            {
                "name": name,
                "type": "integer" if is_number else "date" if word.startswith("@") else "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 1 if is_wide else 0,
            }
        )
    return tuple(made)


def columns(layout: str) -> list[Json]:
    """columnDefinitions of a layout."""
    return list(_columns(layout))


def dig(obj: Json, *path: str) -> Any:
    """The value at a path of keys; None where any is missing."""
    found: Any = obj
    for key in path:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def count(obj: Json, *path: str) -> int:
    """A number at a path; 0 where it is missing (Go's zero value)."""
    return int(dig(obj, *path) or 0)


def labels(found: dict[str, str] | None) -> str:
    """``a=b,c=d`` sorted; ``<none>`` for none (labels.FormatLabels)."""
    return ",".join(f"{key}={found[key]}" for key in sorted(found)) if found else NONE


def selector(found: Json | None) -> str:
    """A LabelSelector on one line (metav1.FormatLabelSelector)."""
    if found is None:
        return NONE
    terms = [(key, f"{key}={value}") for key, value in (found.get("matchLabels") or {}).items()]
    for rule in found.get("matchExpressions") or ():
        key, values = rule.get("key", ""), ",".join(sorted(rule.get("values") or ()))
        text = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }.get(rule.get("operator"), key)
        terms.append((key, text))
    return ",".join(text for _, text in sorted(terms)) or NONE


def containers(pod_spec: Json | None) -> list[str]:
    """The cells CONTAINERS and IMAGES of a pod template."""
    found = (pod_spec or {}).get("containers") or []
    return [",".join(str(item.get(key) or "") for item in found) for key in ("name", "image")]


def some(items: Iterable[str], limit: int = 3) -> str:
    """The first few, and how many more."""
    listed = list(items)
    text = ",".join(listed[:limit])
    return f"{text} + {len(listed) - limit} more..." if len(listed) > limit else text
