"""The kubelet's five pod conditions. Source: Kubernetes v1.36.2 pkg/kubelet/status/generate.go.

A condition that another party owns (readiness gates, DisruptionTarget) is never written here, only read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.lab.kubelet.phase import is_initialized
from tidegate.lab.kubelet.states import ContainerFacts


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition without its times."""

    type: str
    is_true: bool
    reason: str = ""
    message: str = ""

    def render(self, before: Mapping[str, Any] | None, now: str) -> dict[str, Any]:
        """Its JSON; the transition time stays while the status does."""
        status = "True" if self.is_true else "False"
        unchanged = before is not None and before.get("status") == status
        body: dict[str, Any] = {
            "type": self.type,
            "status": status,
            "lastProbeTime": None,
            "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else now,
        }
        # null, not absent: the status patch merges conditions by type and would keep what a False one said.
        body["reason"], body["message"] = self.reason or None, self.message or None
        return body


def _named(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def initialized(containers: Sequence[ContainerFacts], phase: str, has_been: bool) -> Condition:
    """True for good once the main containers were started: they are not stopped when a sidecar restarts."""
    if phase == "Succeeded":
        return Condition("Initialized", True, "PodCompleted")
    if has_been or is_initialized(containers):
        return Condition("Initialized", True)
    left = [
        facts.name
        for facts in containers
        if (facts.role == "init" and not facts.ready) or (facts.role == "sidecar" and not facts.started)
    ]
    return Condition(
        "Initialized", False, "ContainersNotInitialized", f"containers with incomplete status: {_named(left)}"
    )


def containers_ready(containers: Sequence[ContainerFacts], phase: str) -> Condition:
    """True when every main container and every sidecar is ready."""
    if phase == "Succeeded":
        return Condition("ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return Condition("ContainersReady", False, "PodFailed")
    unready = [facts.name for facts in containers if facts.role != "init" and not facts.ready]
    if unready:
        message = f"containers with unready status: {_named(unready)}"
        return Condition("ContainersReady", False, "ContainersNotReady", message)
    return Condition("ContainersReady", True)


def ready(containers: Condition, gates: Sequence[str], conditions: Mapping[str, Mapping[str, Any]]) -> Condition:
    """True when the containers are ready and every readiness gate's condition is True."""
    if not containers.is_true:
        return Condition("Ready", False, containers.reason, containers.message)
    messages = []
    for gate in gates:
        condition = conditions.get(gate)
        if condition is None:
            messages.append(f'corresponding condition of pod readiness gate "{gate}" does not exist.')
        elif condition.get("status") != "True":
            messages.append(f'the status of pod readiness gate "{gate}" is not "True", but {condition.get("status")}')
    if messages:
        return Condition("Ready", False, "ReadinessGatesNotReady", ", ".join(messages))
    return Condition("Ready", True)
