"""Back-off of crashing containers and missing images, per container.

Source: client-go util/flowcontrol/backoff.go and ``doBackOff`` in pkg/kubelet/kuberuntime/kuberuntime_manager.go:
10 s, doubling to 300 s; forgotten when the container ran for longer than twice the maximum (10 min).
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 300.0

_TICK_SECONDS = 1e-6
"""Less than this is rounding: a virtual clock counts nanoseconds and would never get through it."""


@dataclass(slots=True)
class Backoff:
    """Instants are the loop's seconds. ``delay_seconds`` is the back-off in force, 0 before the first restart."""

    delay_seconds: float = 0.0
    updated_at: float = 0.0

    def _is_forgotten(self, event_at: float) -> bool:
        return event_at - self.updated_at > 2 * LONGEST_SECONDS

    def remaining(self, event_at: float, now: float) -> float:
        """Seconds to wait before acting on what happened at ``event_at``; 0 = act now."""
        if self.delay_seconds == 0 or self._is_forgotten(event_at):
            return 0.0
        left = event_at + self.delay_seconds - now
        return left if left > _TICK_SECONDS else 0.0

    def advance(self, event_at: float, now: float) -> None:
        """We act now: the next time it takes longer."""
        if self.delay_seconds == 0 or self._is_forgotten(event_at):
            self.delay_seconds = FIRST_SECONDS
        else:
            self.delay_seconds = min(self.delay_seconds * 2, LONGEST_SECONDS)
        self.updated_at = now


def duration(seconds: float) -> str:
    """Whole seconds as Go prints a Duration: ``10s``, ``1m20s``, ``5m0s``, ``1h0m0s``."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
