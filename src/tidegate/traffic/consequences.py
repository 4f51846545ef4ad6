"""What else looks at the labels a verb would touch: budgets, policies, monitors, autoscalers; a sentence each.

Labels are shared: the key that takes a pod out of its Service may also take it out of its PodDisruptionBudget, open
or close a NetworkPolicy on connections in flight, or hide it from its PodMonitor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tidegate.model.pod import Pod
from tidegate.model.selector import Selector

Labels = Mapping[str, str | None]
"""Labels to set; None removes one."""


@dataclass(frozen=True, slots=True)
class Onlooker:
    """An object that selects pods by their labels. ``role``: which of its selectors (empty for the only one)."""

    kind: str
    name: str
    selector: Selector
    role: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def after(labels: Mapping[str, str], changed: Labels) -> dict[str, str]:
    """The labels once ``changed`` is set."""
    merged = {**labels, **changed}
    return {key: value for key, value in merged.items() if value is not None}


def severed(pod: Pod, changed: Labels, policies: Iterable[Onlooker]) -> tuple[str, ...]:
    """NetworkPolicies that look at a label we would touch: in-flight work could die. A refusal, each.

    Whether the change would open or close something cannot be told from labels alone (rules name ports and peers), so
    any look at a touched key counts.
    """
    found: dict[str, list[str]] = {}
    for policy in policies:
        touched = sorted(set(policy.selector.keys) & set(changed))
        if touched and policy.name not in found:
            found[policy.name] = touched
    return tuple(
        f"NetworkPolicy {name} selects on {', '.join(touched)}: in-flight work would die"
        for name, touched in found.items()
    )


def consequences(pod: Pod, changed: Labels, onlookers: Iterable[Onlooker]) -> tuple[str, ...]:
    """What else follows from setting ``changed`` on ``pod``."""
    return tuple(sentence for one in onlookers for sentence in _of(pod, changed, one))


def _of(pod: Pod, changed: Labels, one: Onlooker) -> Iterator[str]:
    was, will = one.selector.matches(pod.labels), one.selector.matches(after(pod.labels, changed))
    by = ", ".join(sorted(set(one.selector.keys) & set(changed)))
    match one.kind:
        case _ if was is will:
            return
        case "PodDisruptionBudget" if was:
            yield f"{one} (by {by}) no longer counts it: from then on only Tidegate keeps the budget for it"
        case "HorizontalPodAutoscaler" if was:
            yield f"{one} no longer measures it: its target's selector looks at {by}"
        case "PodMonitor" if was:
            yield f"{one} (by {by}) stops scraping it"
        case _ if was:
            yield f"{one} (by {by}) lets go of it"
        case _:
            yield f"{one} (by {by}) begins to select it"


def unmanaged(pod: Pod, changed: Labels, onlookers: Iterable[Onlooker]) -> tuple[str, ...]:
    """What goes on counting a pod whose owner lets go of it, and reckons with its owner."""
    labels = after(pod.labels, changed)
    return tuple(
        f"{one} still selects it although nothing owns it then: its count of expected pods is off until the pod ends"
        for one in onlookers
        if one.kind == "PodDisruptionBudget" and one.selector.matches(labels)
    )


def restarts(pod: Pod) -> tuple[str, ...]:
    """A kept pod is not frozen: its liveness probes go on."""
    if not pod.liveness_probed:
        return ()
    names = ", ".join(pod.liveness_probed)
    return (f"its liveness probe ({names}) goes on: the kubelet restarts the container when it fails, work and all",)
