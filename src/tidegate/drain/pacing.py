"""How often the fence may be written: at once, ten times a second, or seldom, by what it costs every kube-proxy.

A write makes every kube-proxy of the cluster sync, once a second at most (minSyncPeriod), and a sync costs more the
more Services there are. In a second in which other slices changed it would have synced anyway. What is left is paid out
of an allowance of 1 % of a core: saved up, so that a rollout after a quiet hour is not held up.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.drain.fence import COALESCE_SECONDS

CPU_SHARE = 0.01
"""Of one core, on every node."""
SAVED_CPU_SECONDS_MAX = 30.0
"""50 minutes of the allowance: 150 syncs at 1,000 Services."""
SYNC_SECONDS = 0.01
SYNC_SECONDS_PER_SERVICE = 0.0002
"""Of one sync: 9 to 27 ms with few Services; 1,000 of five endpoints made it 164 to 213 ms (v1.36.2, measured from the
slice's change to the kernel's; much of that is waiting for nft, so the CPU is less)."""
MIN_SYNC_SECONDS = 1.0


@dataclass(slots=True)
class Pacing:
    """Of one fence. All instants are the writer's monotonic seconds."""

    saved: float = SAVED_CPU_SECONDS_MAX
    _as_of: float = 0.0
    _sent_at: float | None = None
    _stirred_at: float | None = None

    def stirred(self, now: float) -> None:
        """A slice that is not the fence's has changed."""
        self._stirred_at = now

    def due_at(self, now: float, services: int) -> float:
        """When the next write may be sent, in a cluster of so many Services."""
        due = now if self._sent_at is None else max(now, self._sent_at + COALESCE_SECONDS)
        if self._cost(due, services) <= self._saved(due):
            return due
        return due + max(0.0, _sync(services) - self._saved(due)) / CPU_SHARE  # by then it is a whole sync

    def sent(self, now: float, services: int) -> None:
        """A write was sent, taken or not."""
        self.saved = self._saved(now) - self._cost(now, services)
        self._as_of = self._sent_at = now

    def _saved(self, now: float) -> float:
        return min(SAVED_CPU_SECONDS_MAX, self.saved + CPU_SHARE * max(0.0, now - self._as_of))

    def _cost(self, now: float, services: int) -> float:
        """Of a write at ``now``: the share of a sync that is its own."""
        if self._stirred_at is not None and now - self._stirred_at < MIN_SYNC_SECONDS:
            return 0.0
        own = 1.0 if self._sent_at is None else min(1.0, (now - self._sent_at) / MIN_SYNC_SECONDS)
        return own * _sync(services)


def _sync(services: int) -> float:
    return SYNC_SECONDS + services * SYNC_SECONDS_PER_SERVICE
