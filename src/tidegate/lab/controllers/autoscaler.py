"""The HorizontalPodAutoscaler controller: every 15 s, from what ``measured`` says to the target's scale.

Follows pkg/controller/podautoscaler/horizontal.go (reconcileAutoscaler); the arithmetic is in ``autoscaling``.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from tidegate import vtime
from tidegate.kube.api import (
    CUSTOMRESOURCEDEFINITIONS,
    DEPLOYMENTS,
    HORIZONTALPODAUTOSCALERS,
    PODS,
    REPLICASETS,
    JsonObject,
    Resource,
)
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.apiserver.subresources import selector_text
from tidegate.lab.controllers.autoscaling import Bounds, Memory, decided
from tidegate.lab.controllers.kinds import STATEFULSETS
from tidegate.lab.controllers.labels import labels_of, matches
from tidegate.lab.controllers.measured import NoMetric, Proposal, Target, proposal
from tidegate.lab.controllers.scales import REPLICATIONCONTROLLERS
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.writes import Replace
from tidegate.lab.events import Event
from tidegate.lab.instants import stamp

AUTOSCALERS = HORIZONTALPODAUTOSCALERS
SYNC_SECONDS = 15.0
"""--horizontal-pod-autoscaler-sync-period. A new or changed object waits for it too."""

_KEPT_SECONDS = 3600.0
"""The longest window and period that validation lets through."""

_BUILT_IN = (DEPLOYMENTS, REPLICASETS, STATEFULSETS, REPLICATIONCONTROLLERS)
_PLAIN = (".spec.replicas", ".status.replicas", "")
_UNSCALED = "the HPA controller was unable to get the target's current scale: "


@dataclass(frozen=True, slots=True)
class Scale:
    """A target's resource and its scale; the object itself says which pods are meant."""

    resource: Resource
    obj: JsonObject
    wanted: int
    have: int
    selector: JsonObject | str


class _NoScale(Exception):
    """The target cannot be scaled; the message is the controller's own."""


@dataclass(slots=True)
class _Status:
    """The status as one sync makes it."""

    conditions: list[JsonObject]

    def set(self, kind: str, *, holds: bool, why: tuple[str, str]) -> None:
        """Replace a condition where it stands; its time is that of its last change."""
        status, now = "True" if holds else "False", stamp(vtime.now())
        made = {"type": kind, "status": status, "lastTransitionTime": now, "reason": why[0], "message": why[1]}
        for at, old in enumerate(self.conditions):
            if old["type"] == kind:
                if old["status"] == status:
                    made["lastTransitionTime"] = old["lastTransitionTime"]
                self.conditions[at] = made
                return
        self.conditions.append(made)


class AutoscalerController(Controller):
    """A key is an autoscaler, looked at on its own clock whatever happens around it."""

    component = "horizontal-pod-autoscaler"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._autoscalers, self._pods = map(self.cache, (AUTOSCALERS, PODS))
        self._memories: dict[str, Memory] = {}
        self._selectors: dict[Key, JsonObject] = {}
        """Which pods each meant when it was last looked at."""
        self._autoscalers.subscribe(self._changed)

    def _changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None:
            self.queue.add_after(key_of(new), SYNC_SECONDS)
        elif old is not None:
            self._memories.pop(old["metadata"]["uid"], None)
            self._selectors.pop(key_of(old), None)

    async def reconcile(self, key: Key) -> float | None:
        hpa = self._autoscalers.get(key)
        if hpa is None:
            return None
        before = hpa.get("status") or {}
        status = _Status([dict(one) for one in before.get("conditions") or []])
        try:
            scale = await self._scale(hpa)
        except _NoScale as error:
            self.recorder.event(hpa, Event("Warning", "FailedGetScale", str(error)))
            status.set("AbleToScale", holds=False, why=("FailedGetScale", f"{_UNSCALED}{error}"))
            made = {**before, "conditions": status.conditions}
        else:
            why = ("SucceededGetScale", "the HPA controller was able to get the target's current scale")
            status.set("AbleToScale", holds=True, why=why)
            made = await self._synced(hpa, scale, status)
        if made != before:
            await self.carry_out(key, Replace(AUTOSCALERS, {**hpa, "status": made}, "status"))
        return SYNC_SECONDS

    async def _synced(self, hpa: JsonObject, scale: Scale, status: _Status) -> JsonObject:
        """The autoscaler's status once its target has the replicas it should have."""
        spec, before = hpa["spec"], hpa.get("status") or {}
        now = asyncio.get_running_loop().time()
        memory = self._memories.setdefault(hpa["metadata"]["uid"], Memory([(scale.wanted, now)]))
        memory.forget(now - _KEPT_SECONDS)
        least, most = spec.get("minReplicas", 1), spec["maxReplicas"]
        metrics: list[JsonObject] = []
        wanted, reason = scale.wanted, ""
        if scale.wanted == 0:
            why = ("ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
            status.set("ScalingActive", holds=False, why=why)
        elif scale.wanted > most:
            wanted, reason = most, "Current number of replicas above Spec.MaxReplicas"
        elif scale.wanted < least:
            wanted, reason = least, "Current number of replicas below Spec.MinReplicas"
        else:
            best, metrics = self._best(hpa, scale, status)
            if best is None:
                return self._made(before, scale.wanted, before.get("desiredReplicas", 0), metrics, status)
            wanted = best.replicas
            reason = f"{best.name} above target" if wanted > scale.wanted else ""
            reason = "All metrics below target" if wanted < scale.wanted else reason
            held = decided(wanted, Bounds(least, most, scale.wanted, now), spec.get("behavior"), memory)
            status.set("AbleToScale", holds=True, why=held.able)
            status.set("ScalingLimited", holds=held.is_limited, why=held.limit)
            wanted = held.replicas
        has_rescaled = wanted != scale.wanted and await self._rescale(hpa, scale, wanted, reason, status)
        if has_rescaled:
            change = (abs(wanted - scale.wanted), now)
            (memory.added if wanted > scale.wanted else memory.removed).append(change)
        made = self._made(before, scale.wanted, wanted, metrics, status)
        return made | ({"lastScaleTime": stamp(vtime.now())} if has_rescaled else {})

    def _made(
        self, before: JsonObject, current: int, desired: int, metrics: list[JsonObject], status: _Status
    ) -> JsonObject:
        made: JsonObject = {"currentReplicas": current} if current else {}
        made |= {"desiredReplicas": desired, "currentMetrics": metrics or None, "conditions": status.conditions}
        return made | ({"lastScaleTime": before["lastScaleTime"]} if before.get("lastScaleTime") else {})

    def _best(self, hpa: JsonObject, scale: Scale, status: _Status) -> tuple[Proposal | None, list[JsonObject]]:
        """What the metric that asks for most asks for, and status.currentMetrics. None where there is no answer: no
        metric gives one, or one does not and the rest ask for less."""
        pods = self._selected(hpa, scale, status)
        if pods is None:
            return None, []
        found: list[Proposal] = []
        failed: list[NoMetric] = []
        shown: list[JsonObject] = []
        for metric in hpa["spec"]["metrics"]:
            try:
                found.append(proposal(hpa, metric, Target(scale.wanted, scale.have, pods), vtime.now()))
                shown.append(found[-1].status)
            except NoMetric as error:
                self.recorder.event(hpa, Event("Warning", error.reason, str(error)))
                failed.append(error)
                shown.append({"type": ""})  # as the controller leaves it
        best = max(found, key=lambda one: one.replicas) if found else None
        if best is not None and not (failed and best.replicas < scale.wanted):
            words = f"the HPA was able to successfully calculate a replica count from {best.name}"
            status.set("ScalingActive", holds=True, why=("ValidMetricFound", words))
            return best, shown
        first = failed[0]
        words = f"the HPA was unable to compute the replica count: {first}"
        status.set("ScalingActive", holds=False, why=(first.reason, words))
        count = f"invalid metrics ({len(failed)} invalid out of {len(shown)})"
        said = f"{count}, first error is: failed to get {first.outer}: {first}"
        self.recorder.event(hpa, Event("Warning", "FailedComputeMetricsReplicas", said))
        return None, shown

    def _selected(self, hpa: JsonObject, scale: Scale, status: _Status) -> tuple[JsonObject, ...] | None:
        """The target's pods; None where nobody can say which, or another autoscaler means one of them too."""
        selector = _as_selector(scale.selector)
        text = selector_text(selector)
        if not text:
            self.recorder.event(hpa, Event("Warning", "SelectorRequired", "selector is required"))
            why = ("InvalidSelector", "the HPA target's scale is missing a selector")
            self._stand_still(hpa, status, why, "selector is required")
            return None
        key = key_of(hpa)
        self._selectors[key] = selector
        pods = tuple(pod for pod in self._pods.within(key[0]) if matches(selector, labels_of(pod)))
        also = sorted(
            other
            for other, meant in self._selectors.items()
            if other[0] == key[0] and any(matches(meant, labels_of(pod)) for pod in pods)
        )
        if len(also) > 1:
            named = " ".join(f"{namespace}/{name}" for namespace, name in also)
            words = f"pods by selector {text} are controlled by multiple HPAs: [{named}]"
            self.recorder.event(hpa, Event("Warning", "AmbiguousSelector", words))
            self._stand_still(hpa, status, ("AmbiguousSelector", words), words)
            return None
        return pods

    def _stand_still(self, hpa: JsonObject, status: _Status, why: tuple[str, str], said: str) -> None:
        status.set("ScalingActive", holds=False, why=why)
        self.recorder.event(hpa, Event("Warning", "FailedComputeMetricsReplicas", said))

    # -- the target

    async def _scale(self, hpa: JsonObject) -> Scale:
        ref, namespace = hpa["spec"]["scaleTargetRef"], hpa["metadata"]["namespace"]
        resource, paths = await self._resolve(ref)
        try:
            obj = await self.api.get(resource, ref["name"], namespace)
        except ApiError as error:
            raise _NoScale(str(error)) from error
        wanted, have = (int(_at(obj, path) or 0) for path in paths[:2])
        selector = _at(obj, paths[2]) if paths[2] else (obj.get("spec") or {}).get("selector")
        return Scale(resource, obj, wanted, have, selector or {})

    async def _resolve(self, ref: JsonObject) -> tuple[Resource, tuple[str, str, str]]:
        """The resource of a reference, and where its scale is written (the paths of a CustomResourceDefinition)."""
        version, kind = ref.get("apiVersion") or "", ref["kind"]
        group = version.rpartition("/")[0]
        for one in _BUILT_IN:
            if (one.group, one.kind) == (group, kind):
                return one, _PLAIN
        try:
            listing = await self.api.list(CUSTOMRESOURCEDEFINITIONS)
            definitions = [one["spec"] for one in listing.items]
        except ApiError:
            definitions = []
        for spec in definitions:
            if (spec["group"], spec["names"]["kind"]) != (group, kind):
                continue
            for served in spec["versions"]:
                scale = (served.get("subresources") or {}).get("scale")
                if served.get("served") and scale and served["name"] == version.rpartition("/")[2]:
                    resource = Resource(group, served["name"], spec["names"]["plural"], kind)
                    paths = (
                        scale["specReplicasPath"],
                        scale["statusReplicasPath"],
                        scale.get("labelSelectorPath") or "",
                    )
                    return resource, paths
        raise _NoScale(f'no matches for kind "{kind}" in group "{group}"')

    async def _rescale(self, hpa: JsonObject, scale: Scale, wanted: int, reason: str, status: _Status) -> bool:
        """Write the target's scale; whether that worked is said in the conditions."""
        metadata = scale.obj["metadata"]
        body = {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "spec": {"replicas": wanted},
        }
        try:
            await self.api.replace(scale.resource, body, "scale")
        except KubeError as error:
            said = f"New size: {wanted}; reason: {reason}; error: {error}"
            self.recorder.event(hpa, Event("Warning", "FailedRescale", said))
            words = f"the HPA controller was unable to update the target scale: {error}"
            status.set("AbleToScale", holds=False, why=("FailedUpdateScale", words))
            return False
        words = f"the HPA controller was able to update the target scale to {wanted}"
        status.set("AbleToScale", holds=True, why=("SucceededRescale", words))
        self.recorder.event(hpa, Event("Normal", "SuccessfulRescale", f"New size: {wanted}; reason: {reason}"))
        return True


def _at(obj: JsonObject, path: str) -> Any:
    """What a simple JSON path (".spec.replicas") leads to."""
    found: Any = obj
    for key in re.findall(r"[^.\[\]']+", path):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _as_selector(selector: JsonObject | str) -> JsonObject:
    """A scale's selector as a LabelSelector: a custom kind has it as text, a ReplicationController as a plain map."""
    if isinstance(selector, str):
        terms = (term.replace("==", "=").split("=", 1) for term in selector.split(",") if "=" in term)
        return {"matchLabels": {key.strip(): value.strip() for key, value in terms}}
    return selector if "matchLabels" in selector or "matchExpressions" in selector else {"matchLabels": selector}
