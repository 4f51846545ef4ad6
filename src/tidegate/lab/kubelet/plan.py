"""What a pod needs next, as a pure function: containers to end, to start, or to wait for.

Source: Kubernetes v1.36.2 pkg/kubelet/kuberuntime/kuberuntime_manager.go ``computePodActions``. Init containers
run one after another; a sidecar only has to have started; main containers start together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.lab.kubelet.states import ContainerFacts, Running, Terminated


@dataclass(frozen=True, slots=True)
class Next:
    """Names to start now, in order. ``is_over``: nothing runs and nothing will."""

    start: tuple[str, ...] = ()
    is_over: bool = False


def wants_restart(facts: ContainerFacts, policy: str) -> bool:
    """Whether an ended container is to run again. One that is backing off ended as ``last_state`` says."""
    ended = facts.state if isinstance(facts.state, Terminated) else facts.last_state
    if ended is None:
        return True
    if facts.role == "sidecar" or (policy == "Always" and facts.role == "main"):
        return True
    return policy != "Never" and not ended.succeeded


def plan(containers: Sequence[ContainerFacts], policy: str, is_initialized: bool) -> Next:
    """``is_initialized``: main containers were started before, so init containers are not run again."""
    start = []
    for facts in containers:
        if facts.role == "main":
            continue
        if facts.role == "sidecar":
            if not isinstance(facts.state, Running):
                start.append(facts.name)
            if not facts.started and not is_initialized:
                return Next(tuple(start))
        elif not is_initialized and not (isinstance(facts.state, Terminated) and facts.state.succeeded):
            if isinstance(facts.state, Running):
                return Next(tuple(start))
            if not wants_restart(facts, policy):
                return Next(is_over=True)
            return Next((*start, facts.name))
    mains = [facts for facts in containers if facts.role == "main"]
    stopped = [facts for facts in mains if not isinstance(facts.state, Running)]
    again = [facts.name for facts in stopped if wants_restart(facts, policy)]
    if len(stopped) == len(mains) and not again:
        return Next(is_over=True)
    return Next((*start, *again))
