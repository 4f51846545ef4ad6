"""Instants as Kubernetes writes them: ``metav1.Time`` (whole seconds) and ``metav1.MicroTime``."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(instant: datetime) -> str:
    """``2026-11-21T09:20:13Z``: creationTimestamp and condition times. Truncates, as Go does."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(instant: datetime) -> str:
    """``2026-11-21T09:20:13.403761Z``: eventTime and a Lease's renewTime."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_stamp(text: str | None) -> datetime | None:
    """The instant of either form; None for absent, null or unreadable text."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def nanoseconds(instant: datetime) -> int:
    """Nanoseconds since 1970, exact (``datetime.timestamp`` would round to a float)."""
    since = instant.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
