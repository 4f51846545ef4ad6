"""The wall clock, as everything but the pure core reads it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

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
