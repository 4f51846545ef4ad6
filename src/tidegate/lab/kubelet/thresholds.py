"""When a run of probe results changes what the kubelet believes of a container.

Source: Kubernetes v1.36.2 pkg/kubelet/prober/worker.go ``doProbe`` and staging defaults (periodSeconds 10,
timeoutSeconds 1, successThreshold 1, failureThreshold 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

ProbeKind = Literal["liveness", "readiness", "startup"]


@dataclass(frozen=True, slots=True)
class ProbeTiming:
    """A probe's numbers with the API's defaults; ``successes`` and ``failures`` are runs in a row."""

    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    successes: int = 1
    failures: int = 3

    @classmethod
    def of(cls, probe: dict[str, Any]) -> ProbeTiming:
        """Zero means the default, as in the API's defaulting."""
        return cls(
            initial_delay_seconds=probe.get("initialDelaySeconds") or 0,
            period_seconds=probe.get("periodSeconds") or 10,
            timeout_seconds=probe.get("timeoutSeconds") or 1,
            successes=probe.get("successThreshold") or 1,
            failures=probe.get("failureThreshold") or 3,
        )


@dataclass(slots=True)
class Run:
    """The current run of equal results of one probe of one container."""

    timing: ProbeTiming
    last: bool | None = None
    length: int = field(default=0)

    def take(self, passed: bool) -> bool | None:
        """Count one result. Returns the belief it settles (True, False), or None: below the threshold, no change."""
        if passed == self.last:
            self.length += 1
        else:
            self.last, self.length = passed, 1
        needed = self.timing.successes if passed else self.timing.failures
        return passed if self.length >= needed else None

    def restart(self) -> None:
        """A liveness or startup probe gave its verdict: the next container begins at zero."""
        self.length = 0


INITIAL: dict[ProbeKind, bool | None] = {"liveness": True, "readiness": False, "startup": None}
"""What is believed before a threshold is reached."""
