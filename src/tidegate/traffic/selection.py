"""Which Services select a pod, and for those that do not, which label is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tidegate.model.pod import Pod
from tidegate.model.selector import Requirement
from tidegate.model.service import Service


@dataclass(frozen=True, slots=True)
class Selection:
    """Whether one Service selects one pod. ``missing`` is a sentence for each requirement that is not met."""

    service: Service
    missing: tuple[str, ...]

    @property
    def selects(self) -> bool:
        return not self.missing

    def __str__(self) -> str:
        return f"{self.service} selects it" if self.selects else f"{self.service} does not: {'; '.join(self.missing)}"


def selections(pod: Pod, services: Iterable[Service]) -> tuple[Selection, ...]:
    """What each Service of the pod's namespace makes of it, in order. Services without selector are left out."""
    return tuple(
        Selection(service, tuple(_missing(unmet, pod.labels) for unmet in service.selector.unmet(pod.labels)))
        for service in services
        if service.namespace == pod.namespace and service.selector is not None
    )


def selecting(pod: Pod, services: Iterable[Service]) -> tuple[Service, ...]:
    """The Services that select ``pod``."""
    return tuple(selection.service for selection in selections(pod, services) if selection.selects)


def _missing(requirement: Requirement, labels: Mapping[str, str]) -> str:
    has = f"it has {requirement.key}={labels[requirement.key]}" if requirement.key in labels else "it has no such label"
    return f"{requirement} is asked for, {has}"
