"""How long ago, in kubectl's words (apimachinery/pkg/util/duration, k8s.io/kubernetes/pkg/printers)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

UNKNOWN = "<unknown>"


def human_duration(seconds: float) -> str:
    """``duration.HumanDuration``: two units at most, and never more precise than a reader needs."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


@lru_cache(maxsize=4096)
def instant(text: str) -> datetime | None:
    """An RFC 3339 instant (Time or MicroTime); None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def since(text: Any, now: datetime) -> str:
    """The age of an instant written in an object; ``<unknown>`` when it is not there."""
    begin = instant(text) if isinstance(text, str) and text else None
    return UNKNOWN if begin is None else human_duration((now - begin).total_seconds())


def age(obj: dict[str, Any], now: datetime) -> str:
    """The AGE column."""
    return since(obj["metadata"].get("creationTimestamp"), now)
