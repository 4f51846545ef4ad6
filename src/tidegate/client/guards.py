"""What stands around a pod and looks at its labels, read once for a plan: budgets, policies, autoscalers, monitors.

What guards the pod and cannot be read blocks, naming the permission; what only follows from a change is a note.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tidegate.kube.api import PODDISRUPTIONBUDGETS, PODS, Api, JsonObject, Resource, Selection
from tidegate.kube.errors import ApiError
from tidegate.model import pod as pod_noun
from tidegate.model import selector
from tidegate.model.pod import Pod
from tidegate.model.selector import Selector
from tidegate.model.workload import Workload
from tidegate.traffic.consequences import Labels, Onlooker, consequences, restarts, severed, unmanaged

NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
PODMONITORS = Resource("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor")


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget. ``allowed`` is what its status allows; ``is_known``: that is about the spec that stands
    there now.

    ``spare``: the healthy pods it selects now, by our own count, beyond those it wants; None where nobody could count.
    Its controller is not told of a pod that loses its label and goes on counting it until another of its pods changes
    (pkg/controller/disruption: updatePod looks up the budgets of the new labels only; measured on v1.36.2).
    """

    name: str
    selector: Selector
    allowed: int
    is_known: bool = True
    spare: int | None = None

    @property
    def room(self) -> int:
        """How many may go: as its status has it, and by our own count."""
        return self.allowed if self.spare is None else min(self.allowed, self.spare)


@dataclass(frozen=True, slots=True)
class Guards:
    """Everything in one namespace that selects pods and is no Service. ``unread``: what could not be listed."""

    budgets: tuple[Budget, ...] = ()
    policies: tuple[Onlooker, ...] = ()
    onlookers: tuple[Onlooker, ...] = ()
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def breached(self, pod: Pod) -> tuple[str, ...]:
        """Budgets that let no pod go now: force overrides them."""
        return tuple(
            f"PodDisruptionBudget {one.name} allows no disruption now"
            if one.is_known
            else f"PodDisruptionBudget {one.name} was changed and its status is of before: try again in a moment"
            for one in self.budgets
            if one.selector.matches(pod.labels) and (one.room < 1 or not one.is_known)
        )

    def severed(self, pod: Pod, changed: Labels) -> tuple[str, ...]:
        """Policies that could end in-flight work: no force overrides them."""
        return severed(pod, changed, self.policies)

    def consequences(self, pod: Pod, changed: Labels, is_released: bool) -> tuple[str, ...]:
        """What else follows from the change; ``is_released``: its owner lets go of it."""
        found = consequences(pod, changed, self.onlookers)
        return (*found, *(unmanaged(pod, changed, self.onlookers) if is_released else ()), *restarts(pod), *self.notes)


async def read_guards(api: Api, namespace: str, controllers: Iterable[Workload] = ()) -> Guards:
    """Raises ``KubeError`` where the API does not answer; what is not permitted is in ``unread`` and ``notes``."""
    kinds = (PODDISRUPTIONBUDGETS, NETWORKPOLICIES, AUTOSCALERS, PODMONITORS)
    listed = await asyncio.gather(*(_list(api, kind, namespace) for kind in kinds))
    (budgets, policies, scalers, monitors), denied = [found for found, _ in listed], [why for _, why in listed]
    return Guards(
        budgets=tuple(_budgets(budgets, await _pods(api, namespace) if budgets else None)),
        policies=tuple(one for obj in policies for one in _policy(obj)),
        onlookers=(
            *_onlookers("PodDisruptionBudget", budgets),
            *_onlookers("PodMonitor", monitors),
            *_scalers(scalers, tuple(controllers)),
        ),
        unread=tuple(why for why in denied[:2] if why),
        notes=tuple(f"what else looks at it is not known: {why}" for why in denied[2:] if why),
    )


async def _list(api: Api, resource: Resource, namespace: str) -> tuple[list[JsonObject], str]:
    """The objects, or why they cannot be listed. A kind the cluster does not have has no objects."""
    try:
        return (await api.list(resource, Selection(namespace))).items, ""
    except ApiError as error:
        if error.is_not_found:
            return [], ""
        if error.code != 403:
            raise
        plural = f"{resource.plural}.{resource.group}"
        return [], f"these credentials may not list {plural} in namespace {namespace}"


async def _pods(api: Api, namespace: str) -> tuple[Pod, ...] | None:
    """Everything a budget could count; None where it may not be listed: then its status alone is believed."""
    try:
        return tuple(pod_noun.decode(obj) for obj in (await api.list(PODS, Selection(namespace))).items)
    except ApiError as error:
        if error.code != 403:
            raise
        return None


def _budgets(objects: Iterable[JsonObject], pods: tuple[Pod, ...] | None) -> Iterator[Budget]:
    for obj in objects:
        name, wanted, status = obj["metadata"]["name"], (obj.get("spec") or {}).get("selector"), obj.get("status") or {}
        if wanted is None:
            continue
        observed, generation = status.get("observedGeneration"), obj["metadata"].get("generation")
        is_known = generation is None or (observed is not None and observed >= generation)
        chosen = selector.of_json(wanted, f"PodDisruptionBudget {name}")
        desired, spare = status.get("desiredHealthy"), None
        if pods is not None and desired is not None:
            disrupted = status.get("disruptedPods") or {}
            counted = (one for one in pods if chosen.matches(one.labels) and one.name not in disrupted)
            spare = sum(one.is_ready and not one.is_terminating for one in counted) - int(desired)
        yield Budget(name, chosen, int(status.get("disruptionsAllowed") or 0), is_known, spare)


def _onlookers(kind: str, objects: Iterable[JsonObject]) -> Iterator[Onlooker]:
    """Those whose selector is ``spec.selector``."""
    for obj in objects:
        name, wanted = obj["metadata"]["name"], (obj.get("spec") or {}).get("selector")
        if wanted is not None:
            yield Onlooker(kind, name, selector.of_json(wanted, f"{kind} {name}"))


def _policy(obj: JsonObject) -> Iterator[Onlooker]:
    """Every podSelector a NetworkPolicy has: whom it is about, and whom it lets in and out."""
    spec, name = obj.get("spec") or {}, obj["metadata"]["name"]
    peers: list[tuple[str, Any]] = [("podSelector", spec.get("podSelector"))]
    for rule in spec.get("ingress") or []:
        peers += [("ingress", peer.get("podSelector")) for peer in rule.get("from") or []]
    for rule in spec.get("egress") or []:
        peers += [("egress", peer.get("podSelector")) for peer in rule.get("to") or []]
    for role, wanted in peers:
        if wanted is not None:
            yield Onlooker("NetworkPolicy", name, selector.of_json(wanted, f"NetworkPolicy {name}"), role)


def _scalers(objects: Iterable[JsonObject], controllers: tuple[Workload, ...]) -> Iterator[Onlooker]:
    """An autoscaler measures the pods that its target's selector selects, owned or not (horizontal.go reads
    ``status.selector`` of the scale subresource)."""
    for obj in objects:
        target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
        for one in controllers:
            if (one.kind, one.name) == (target.get("kind"), target.get("name")) and one.selector is not None:
                yield Onlooker("HorizontalPodAutoscaler", obj["metadata"]["name"], one.selector)
