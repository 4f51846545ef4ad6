"""A pod's whole status from what the kubelet knows: a pure function, sent whenever its answer changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tidegate.lab.instants import stamp
from tidegate.lab.kubelet import conditions
from tidegate.lab.kubelet.conditions import Condition
from tidegate.lab.kubelet.phase import phase as phase_of
from tidegate.lab.kubelet.states import ContainerFacts


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the kubelet knows of a pod. ``ip`` "" = no sandbox. ``has_ended``: nothing of it will run again."""

    containers: Sequence[ContainerFacts]
    host_ip: str
    ip: str = ""
    second_ip: str = ""
    """Of the other family, in a dual-stack lab."""
    started_at: datetime | None = None
    has_ended: bool = False
    was_initialized: bool = False
    sent: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Our own conditions as last sent, by type: newer than what the watch has shown us of them."""
    reason: str = ""
    message: str = ""


def pod_status(pod: dict[str, Any], facts: PodFacts, now: datetime) -> dict[str, Any]:
    """The status to patch (strategic: conditions merge by type). ``pod`` is the latest the API showed."""
    phase = phase_of(facts.containers, pod["spec"].get("restartPolicy", "Always"), facts.has_ended)
    shown = {condition["type"]: condition for condition in (pod.get("status") or {}).get("conditions") or []}
    before = {**shown, **facts.sent}
    ready_containers = conditions.containers_ready(facts.containers, phase)
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    all_conditions = [
        Condition("PodReadyToStartContainers", bool(facts.ip) and not facts.has_ended),
        conditions.initialized(facts.containers, phase, facts.was_initialized),
        conditions.ready(ready_containers, gates, before),
        ready_containers,
        Condition("PodScheduled", True),
    ]
    at = stamp(now)
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": [condition.render(before.get(condition.type), at) for condition in all_conditions],
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "containerStatuses": [item.render() for item in facts.containers if item.role == "main"],
    }
    inits = [item.render() for item in facts.containers if item.role != "main"]
    if inits:
        status["initContainerStatuses"] = inits
    if "generation" in pod["metadata"]:
        status["observedGeneration"] = pod["metadata"]["generation"]
        for condition in status["conditions"]:
            condition["observedGeneration"] = pod["metadata"]["generation"]
    if facts.started_at is not None:
        status["startTime"] = stamp(facts.started_at)
    if facts.ip:
        both = [{"ip": ip} for ip in (facts.ip, facts.second_ip) if ip]
        status |= {"podIP": facts.ip, "podIPs": both}
    if facts.reason:
        status |= {"reason": facts.reason, "message": facts.message}
    return status
