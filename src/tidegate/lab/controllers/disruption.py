"""The PodDisruptionBudget controller: how many pods may be evicted now (pkg/controller/disruption)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, PODDISRUPTIONBUDGETS, PODS, REPLICASETS, JsonObject
from tidegate.kube.reflector import Key
from tidegate.lab.controllers.fenceposts import replicas, scaled
from tidegate.lab.controllers.labels import labels_of, matches
from tidegate.lab.controllers.owners import controller_of
from tidegate.lab.controllers.pods import is_ready, is_terminating
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.writes import Replace
from tidegate.lab.events import Event
from tidegate.lab.instants import parse_stamp, stamp

_EXPECTED_GONE_SECONDS = 120
"""An evicted pod that still has no deletionTimestamp after this long counts again (DeletionTimeout)."""


@dataclass(frozen=True, slots=True)
class View:
    """The budget, the pods it selects, and the sum of what their controllers want."""

    budget: JsonObject
    pods: tuple[JsonObject, ...]
    wanted: int
    now: datetime


def expectation(view: View) -> tuple[int, int]:
    """(expected pods, pods that must be healthy)."""
    spec = view.budget["spec"]
    if spec.get("maxUnavailable") is not None:
        allowed = scaled(spec["maxUnavailable"], view.wanted, up=True)
        return view.wanted, max(0, view.wanted - allowed)
    least = spec.get("minAvailable")
    if isinstance(least, str):
        return view.wanted, scaled(least, view.wanted, up=True)
    return len(view.pods), 1 if least is None else int(least)


def disrupted(view: View) -> dict[str, str]:
    """Evicted pods that are not seen terminating yet, with the instant of the eviction."""
    noted: Mapping[str, str] = (view.budget.get("status") or {}).get("disruptedPods") or {}
    limit = timedelta(seconds=_EXPECTED_GONE_SECONDS)
    return {
        pod["metadata"]["name"]: noted[pod["metadata"]["name"]]
        for pod in view.pods
        if pod["metadata"]["name"] in noted
        and not is_terminating(pod)
        and (since := parse_stamp(noted[pod["metadata"]["name"]])) is not None
        and since + limit > view.now
    }


def status(view: View) -> JsonObject:
    """The budget's status; no disruption is allowed while no pod is expected."""
    expected, desired = expectation(view)
    leaving = disrupted(view)
    healthy = sum(
        is_ready(pod) and not is_terminating(pod) and pod["metadata"]["name"] not in leaving for pod in view.pods
    )
    allowed = max(0, healthy - desired) if expected > 0 else 0
    generation = view.budget["metadata"].get("generation")
    result: JsonObject = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": generation,
        "conditions": [_condition(view, allowed)],
    }
    return result | ({"disruptedPods": leaving} if leaving else {})


def _condition(view: View, allowed: int) -> JsonObject:
    verdict = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    since = stamp(view.now)
    for old in (view.budget.get("status") or {}).get("conditions") or ():
        if old["type"] == "DisruptionAllowed" and old["status"] == verdict[0]:
            since = old["lastTransitionTime"]
    return {
        "type": "DisruptionAllowed",
        "status": verdict[0],
        "observedGeneration": view.budget["metadata"].get("generation"),
        "lastTransitionTime": since,
        "reason": verdict[1],
        "message": "",
    }


class DisruptionController(Controller):
    """Level-triggered over budgets and pods."""

    component = "controllermanager"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        kinds = (PODDISRUPTIONBUDGETS, PODS, REPLICASETS, DEPLOYMENTS)
        self._budgets, self._pods, self._sets, self._deployments = map(self.cache, kinds)
        self._budgets.subscribe(self._budget_changed)
        self._pods.subscribe(self._pod_changed)

    def _budget_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None:
            self.enqueue(new)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        views = [labels_of(one) for one in (old, new) if one is not None]
        pod = new or old
        assert pod is not None
        for budget in self._budgets.within(pod["metadata"]["namespace"]):
            if any(matches(budget["spec"].get("selector"), labels) for labels in views):
                self.enqueue(budget)

    async def reconcile(self, key: Key) -> float | None:
        budget = self._budgets.get(key)
        if budget is None:
            return None
        selector = budget["spec"].get("selector")
        pods = tuple(pod for pod in self._pods.within(key[0]) if matches(selector, labels_of(pod)))
        if not pods:
            self.recorder.event(budget, Event("Normal", "NoPods", "No matching pods found"))
        view = View(budget, pods, self._wanted(pods), vtime.now())
        now_true = status(view)
        if now_true != (budget.get("status") or {}):
            await self.carry_out(key, Replace(PODDISRUPTIONBUDGETS, {**budget, "status": now_true}, "status"))
        return float(_EXPECTED_GONE_SECONDS) if "disruptedPods" in now_true else None

    def _wanted(self, pods: tuple[JsonObject, ...]) -> int:
        """The replicas of the distinct controllers of the pods, seen through to the Deployment."""
        scales: dict[str, int] = {}
        for pod in pods:
            ref = controller_of(pod)
            if ref is None or ref["kind"] != "ReplicaSet":
                continue
            namespace = pod["metadata"]["namespace"]
            found = self._sets.get((namespace, ref["name"]))
            above = controller_of(found) if found is not None else None
            if found is not None and above is not None and above["kind"] == "Deployment":
                found = self._deployments.get((namespace, above["name"]))
            if found is not None:
                scales[found["metadata"]["uid"]] = replicas(found)
        return sum(scales.values())
