"""UDP flows that pass through this node without being translated here, and carry nothing any more.

A client's node translates; the pod's own node then tracks the same flow a second time, dialled at the pod's address.
It stays there for 120 s after its last datagram: kube-proxy forgets what was dialled at a Service, and moving it would
lead where it leads now. Whether a translation is left, its own node tells. What is left to see here is whether somebody
still sends: by the time at which the entry ends, which each datagram puts off.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.dataplane.facts import Tracked

QUIET_SECONDS = 5.0
"""As long as a resolver waits for its answer."""
SLACK_SECONDS = 1.5
"""The kernel tells whole seconds; a datagram this soon after the first look is not noticed."""
GAP_SECONDS = 15.0
"""What was not seen for so long may be another flow by now."""
FLOWS_MAX = 8192
"""More are forgotten, and waited for anew."""


@dataclass(slots=True)
class IdleFlows:
    """Of one node. All instants are seconds of one clock; one that is set makes every flow wait anew."""

    _known: dict[Tracked, tuple[float, float, float]] = field(default_factory=dict)
    """Flow -> when it ends, since when that has not changed, when it was last seen."""

    def is_idle(self, flow: Tracked, seconds_left: float, now: float) -> bool:
        """Whether nothing has come by this flow, which was dialled at the pod itself, for ``QUIET_SECONDS``."""
        if flow.protocol != "UDP" or flow.destination != flow.endpoint:
            return False
        ends_at, since, seen_at = self._known.get(flow, (now + seconds_left, now, now))
        if abs(now + seconds_left - ends_at) > SLACK_SECONDS or not 0 <= now - seen_at <= GAP_SECONDS:
            ends_at, since = now + seconds_left, now
        if len(self._known) >= FLOWS_MAX:
            self._known.clear()
        self._known[flow] = (ends_at, since, now)
        return now - since >= QUIET_SECONDS
