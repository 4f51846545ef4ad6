"""The PodDisruptionBudget controller: how many pods may be evicted now (pkg/controller/disruption)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate import vtime
from tidegate.kube.api import PODDISRUPTIONBUDGETS, PODS, JsonObject
from tidegate.kube.reflector import Key
from tidegate.lab.controllers.fenceposts import scaled
from tidegate.lab.controllers.labels import labels_of, matches
from tidegate.lab.controllers.pods import is_ready, is_terminating
from tidegate.lab.controllers.scales import NoScaleError, Scales
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.writes import Replace
from tidegate.lab.events import Event
from tidegate.lab.instants import parse_stamp, stamp

_EXPECTED_GONE_SECONDS = 120
"""An evicted pod that still has no deletionTimestamp after this long counts again (DeletionTimeout)."""


_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)


@dataclass(frozen=True, slots=True)
class View:
    """The budget, the pods it selects, and the sum of what their controllers want (0 where nobody needs to know)."""

    budget: JsonObject
    pods: tuple[JsonObject, ...]
    wanted: int
    now: datetime


def needs_scale(budget: JsonObject) -> bool:
    """Whether the controllers' replicas enter: not for a minAvailable that is a number."""
    spec = budget["spec"]
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def expectation(view: View) -> tuple[int, int]:
    """(expected pods, pods that must be healthy); (0, 0) for a budget that says neither."""
    spec = view.budget["spec"]
    if spec.get("maxUnavailable") is not None:
        allowed = scaled(spec["maxUnavailable"], view.wanted, up=True)
        return view.wanted, max(0, view.wanted - allowed)
    least = spec.get("minAvailable")
    if isinstance(least, str):
        return view.wanted, scaled(least, view.wanted, up=True)
    return (0, 0) if least is None else (len(view.pods), int(least))


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
        "conditions": [_condition(view.budget, _Verdict(bool(allowed)), generation, view.now)],
    }
    return result | ({"disruptedPods": leaving} if leaving else {})


def failed(budget: JsonObject, why: str, now: datetime) -> JsonObject:
    """The status of a budget nobody can count for: no eviction, and the rest as it was last known (failSafe)."""
    status = budget.get("status") or {}
    seen = status.get("observedGeneration") or 0
    conditions = [_condition(budget, _Verdict(False, why), seen, now)]
    return {**status, "disruptionsAllowed": 0, "conditions": conditions}


@dataclass(frozen=True, slots=True)
class _Verdict:
    is_allowed: bool
    failure: str = ""

    @property
    def reason(self) -> str:
        return "SyncFailed" if self.failure else "SufficientPods" if self.is_allowed else "InsufficientPods"


def _condition(budget: JsonObject, verdict: _Verdict, generation: int | None, now: datetime) -> JsonObject:
    value, since = "True" if verdict.is_allowed else "False", stamp(now)
    for old in (budget.get("status") or {}).get("conditions") or ():
        if old["type"] == "DisruptionAllowed" and old["status"] == value:
            since = old["lastTransitionTime"]
    made: JsonObject = {"type": "DisruptionAllowed", "status": value, "lastTransitionTime": since}
    made |= {"reason": verdict.reason, "message": verdict.failure}
    return made | ({"observedGeneration": generation} if generation else {})


def _shown(selector: JsonObject | None) -> str:
    """A selector as Go prints the pointer."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{term['key']},Operator:{term['operator']},"
        f"Values:[{' '.join(term.get('values') or ())}],}},"
        for term in selector.get("matchExpressions") or ()
    )
    held = f"map[string]string{{{labels}}}"
    return f"&LabelSelector{{MatchLabels:{held},MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"


class DisruptionController(Controller):
    """Level-triggered over budgets and pods."""

    component = "controllermanager"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._budgets, self._pods = map(self.cache, (PODDISRUPTIONBUDGETS, PODS))
        self._scales = Scales(world)
        self._budgets.subscribe(self._budget_changed)
        self._pods.subscribe(self._pod_changed)

    def _budget_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        if new is not None:
            self.enqueue(new)

    def _pod_changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        """Wake the budgets of the pod as it is now.

        Those it has left are not told, as in v1.36.2 (updatePod): a budget goes on counting a pod that lost its label
        until another of its pods changes.
        """
        pod = new or old
        assert pod is not None
        found = [
            budget
            for budget in self._budgets.within(pod["metadata"]["namespace"])
            if matches(budget["spec"].get("selector"), labels_of(pod))
        ]
        for budget in found:
            self.enqueue(budget)
        if len(found) > 1 and new is not None:
            meta = pod["metadata"]
            said = f'Pod "{meta["namespace"]}"/"{meta["name"]}" matches multiple PodDisruptionBudgets.'
            said += f'  Chose "{found[0]["metadata"]["name"]}" arbitrarily.'
            self.recorder.event(pod, Event("Warning", "MultiplePodDisruptionBudgets", said))

    async def reconcile(self, key: Key) -> float | None:
        budget = self._budgets.get(key)
        if budget is None:
            return None
        selector = budget["spec"].get("selector")
        pods = tuple(pod for pod in self._pods.within(key[0]) if matches(selector, labels_of(pod)))
        if not pods:
            self.recorder.event(budget, Event("Normal", "NoPods", "No matching pods found"))
        try:
            wanted, unmanaged = self._scales.expected(pods) if needs_scale(budget) else (0, [])
        except NoScaleError as error:
            said = f"Failed to calculate the number of expected pods: {error}"
            self.recorder.event(budget, Event("Warning", "CalculateExpectedPodCountFailed", said))
            now_true = failed(budget, str(error), vtime.now())
        else:
            if unmanaged:
                self.recorder.event(budget, Event("Warning", "UnmanagedPods", _UNMANAGED.format(_shown(selector))))
            now_true = status(View(budget, pods, wanted, vtime.now()))
        if now_true != (budget.get("status") or {}):
            await self.carry_out(key, Replace(PODDISRUPTIONBUDGETS, {**budget, "status": now_true}, "status"))
        return float(_EXPECTED_GONE_SECONDS) if "disruptedPods" in now_true else None
