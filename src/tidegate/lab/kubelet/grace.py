"""The arithmetic of ending a container: which grace period counts, and what is left of it after the hook.

Source: Kubernetes v1.36.2 pkg/kubelet/kuberuntime/kuberuntime_container.go (``killContainer``,
``setTerminationGracePeriod``) and pkg/kubelet/pod_workers.go (``calculateEffectiveGracePeriod``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

MINIMUM_SECONDS = 2
"""minimumGracePeriodInSeconds: what every container gets between SIGTERM and SIGKILL, whatever the hook took."""

DEFAULT_SECONDS = 30


class Cause(StrEnum):
    """Why a container is ended."""

    POD_ENDS = "pod ends"
    LIVENESS = "liveness probe"
    STARTUP = "startup probe"
    POST_START = "post-start hook"


def pod_grace(pod: dict[str, Any], shortest_so_far: int = 0) -> int:
    """Seconds a terminating pod gets in all: the API's value, never longer than one already in force, at least 1."""
    grace = shortest_so_far
    given = pod["metadata"].get("deletionGracePeriodSeconds")
    if given is not None and (grace == 0 or given < grace):
        grace = given
    if grace == 0:
        grace = pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_SECONDS)
    return max(grace, 1)


def container_grace(pod: dict[str, Any], container: dict[str, Any], cause: Cause) -> int:
    """Seconds one container gets when it is ended for its own sake (a probe), not with its pod."""
    given = pod["metadata"].get("deletionGracePeriodSeconds")
    if given is not None:
        return int(given)
    of_spec = pod["spec"].get("terminationGracePeriodSeconds")
    if of_spec is None:
        return MINIMUM_SECONDS
    probe = {Cause.LIVENESS: "livenessProbe", Cause.STARTUP: "startupProbe"}.get(cause)
    of_probe = (container.get(probe) or {}).get("terminationGracePeriodSeconds") if probe else None
    return int(of_spec if of_probe is None else of_probe)


def after(grace: int, elapsed: float) -> int:
    """What is left of ``grace`` after ``elapsed`` seconds of hook or waiting: whole seconds spent are deducted."""
    return grace - int(elapsed)


def stop_budget(grace: int) -> int:
    """Seconds between SIGTERM and SIGKILL."""
    return max(grace, MINIMUM_SECONDS)
