"""The wall clock, as everything but the pure core reads it, and who is hosted on a virtual loop: what is asked in real
time, too, without importing the virtual world."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Where virtual time starts. Fixed, so that a seed replays to the same timestamps."""


def now() -> datetime:
    """The current instant in UTC: virtual on a ``VirtualLoop``, else the machine's."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return datetime.now(UTC)  # noqa: TID251 - the one place that asks the machine
    now_ns: int | None = getattr(loop, "now_ns", None)
    if now_ns is None:
        return datetime.now(UTC)  # noqa: TID251 - the one place that asks the machine
    return EPOCH + timedelta(microseconds=now_ns // 1000)


def hosted() -> dict[str, Any]:
    """HTTP servers of this virtual world by URL, to be asked without a socket; empty on an ordinary loop."""
    found: dict[str, Any] | None = getattr(asyncio.get_running_loop(), "hosted", None)
    return {} if found is None else found
