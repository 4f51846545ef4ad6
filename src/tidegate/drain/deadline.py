"""How long a gate may be held: the kubelet's clock. (A label drain's patience is its caller's, ``--timeout``.)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Budget:
    """The times of a held gate, in seconds."""

    app_stop_seconds: float = 10.0
    """What the app gets between SIGTERM and SIGKILL, kept free at the end of the grace period."""
    fallback_sleep_seconds: float = 15.0
    """What the holder sleeps when its agent is silent: never worse than the ``sleep 15`` of the articles."""


DEFAULT_BUDGET = Budget()
KUBELET_MINIMUM_SECONDS = 2.0
"""kubelet's minimumGracePeriodInSeconds: what it gives after a hook that overran; measured 2 s on 1.36.2."""


def gate_deadline(deletion_timestamp: datetime, budget: Budget = DEFAULT_BUDGET) -> datetime:
    """The latest safe instant to answer a held preStop call.

    deletion time + grace - the app's stop budget - 2 s; the API server already writes deletionTimestamp as deletion
    time + grace (BeforeDelete in k8s:registry/rest/delete.go), in whole seconds, truncated, so we err on the early
    side. Ask again with the pod's newest deletionTimestamp: a later delete can only shorten it. A kubelet that
    restarted runs the hook again with the full grace (measured on 1.36.2), which this does not count on.
    """
    return deletion_timestamp - timedelta(seconds=budget.app_stop_seconds + KUBELET_MINIMUM_SECONDS)
