"""A pod's phase from its containers. Source: Kubernetes v1.36.2 pkg/kubelet/kubelet_pods.go ``getPhase``."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.lab.kubelet.states import ContainerFacts, Running, Terminated


def is_initialized(containers: Sequence[ContainerFacts]) -> bool:
    """Every init container succeeded, every sidecar has started."""
    for facts in containers:
        if facts.role == "init" and not (isinstance(facts.state, Terminated) and facts.state.succeeded):
            return False
        if facts.role == "sidecar" and not facts.started:
            return False
    return True


def phase(containers: Sequence[ContainerFacts], restart_policy: str, is_ending: bool) -> str:
    """``is_ending``: nothing of the pod will be started again (it is being deleted or has finished)."""
    init_failed = any(
        facts.role == "init" and isinstance(facts.state, Terminated) and not facts.state.succeeded
        for facts in containers
    )
    if init_failed and restart_policy == "Never":
        return "Failed"
    mains = [facts for facts in containers if facts.role == "main"]
    ended = [facts.state for facts in mains if isinstance(facts.state, Terminated)]
    # A container between two runs (CrashLoopBackOff) waits, but has been started: it counts as stopped.
    paused = [facts for facts in mains if not isinstance(facts.state, Running | Terminated) and facts.last_state]
    waiting = [facts for facts in mains if not isinstance(facts.state, Running | Terminated) and not facts.last_state]
    if not is_ending and not is_initialized(containers):
        return "Pending"
    if waiting and not (is_ending and ended):
        return "Pending"
    if any(facts.is_running for facts in mains):
        return "Running"
    succeeded = all(state.succeeded for state in ended) and not paused and not waiting
    if is_ending:
        return "Succeeded" if succeeded and ended else "Failed"
    if restart_policy == "Always":
        return "Running"
    if succeeded:
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"
