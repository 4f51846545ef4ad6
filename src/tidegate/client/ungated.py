"""Pods without a gate: which, why, and what gives them one. A gate is given when a pod is made, never afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.model.names import GATE, GATE_OFF, GATE_ON, REPLACE_SLEEP, UNGATED
from tidegate.model.pod import Pod
from tidegate.model.workload import Workload

GATED_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
"""A Job's pods end by themselves."""
_MADE_WITHOUT = "no hook is in its template, and no webhook gave it one when it was made"


@dataclass(frozen=True, slots=True)
class WithoutGate:
    """Pods with one reason, and the next step, empty for those that want none."""

    reason: str
    pods: tuple[str, ...]
    next_step: str


def why_ungated(pod: Pod) -> str:
    """Empty for one that has its gate."""
    if pod.is_gated:
        return ""
    if pod.labels.get(GATE) == GATE_OFF:
        return f"it opted out (label {GATE}={GATE_OFF})"
    if told := pod.annotations.get(UNGATED, ""):
        return told
    if pod.gated:
        bare = ", ".join(one for one in pod.containers if one not in pod.gated)
        return f"no hook in {bare}: a container without one is told to stop at once"
    return _MADE_WITHOUT


def is_wanted(pod: Pod) -> bool:
    """Whether it has none though nobody opted it out."""
    return not pod.is_gated and pod.labels.get(GATE) != GATE_OFF


def without_gate(workload: Workload, pods: Iterable[Pod]) -> tuple[WithoutGate, ...]:
    """Of a workload's pods that are not on their way out, by reason; sorted."""
    if workload.kind not in GATED_KINDS:
        return ()
    by_reason: dict[str, list[Pod]] = {}
    for pod in pods:
        if not pod.is_terminating and not pod.is_finished and (why := why_ungated(pod)):
            by_reason.setdefault(why, []).append(pod)
    return tuple(
        WithoutGate(why, tuple(sorted(pod.name for pod in found)), _step(workload, why, found[0]))
        for why, found in sorted(by_reason.items())
    )


def _step(workload: Workload, why: str, pod: Pod) -> str:
    where = f"-n {workload.namespace}"
    again = f"kubectl {where} rollout restart {workload.kind.lower()}/{workload.name}"
    if workload.kind == "ReplicaSet":  # it has no rollout
        again = f"tidegate drain rs/{workload.name} {where}"
    if not is_wanted(pod):
        return ""
    if "its preStop sleep" in why:
        return f"kubectl label namespace {workload.namespace} {REPLACE_SLEEP}=true; {again}"
    if why != _MADE_WITHOUT:
        return ""  # what it says is for its template's author to do
    return f"kubectl label namespace {workload.namespace} {GATE}={GATE_ON} (where the webhook is installed); {again}"
