"""The eviction subresource: a delete that PodDisruptionBudgets may refuse.

Follows pkg/registry/core/pod/storage/eviction.go. The budget's status is data here; the disruption controller
keeps it. A 429 without retryAfterSeconds is deliberate: with a Retry-After header client-go would retry inside
itself and ``kubectl drain`` would print nothing.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import deletions, failures
from tidegate.lab.apiserver.deletions import DeleteOptions
from tidegate.lab.apiserver.objects import stamp
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.selectors import Requirement
from tidegate.lab.apiserver.verbs import Options, Verbs
from tidegate.lab.apiserver.versions import Version

VIOLATES = "Cannot evict pod as it would violate the pod's disruption budget."
DISRUPTED_MAX = 2000
STALE_RETRY_SECONDS = 10
SUCCESS: JsonObject = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def evict(verbs: Verbs, row: Row, place: tuple[str, str], eviction: JsonObject, options: Options) -> Version:
    """Delete the pod at ``place`` if its budget allows: a Status of success, or ApiError 429 (500 with two budgets)."""
    namespace, name = place
    options = replace(options, admission=None)  # asked about the eviction; a delete that follows is nobody's request
    named = (eviction.get("metadata") or {}).get("name") or name
    if named != name:
        raise failures.bad_request("name in URL does not match name in Eviction object")
    pod = verbs.get(row, namespace, name)
    body = eviction.get("deleteOptions") or {}
    asked = _delete_options(body)
    if body.get("dryRun"):
        options = replace(options, dry_run=True)
    if not _is_exempt(pod.object):
        budgets = _budgets(verbs, pod.object)
        if len(budgets) > 1:
            raise failures.failure(
                500,
                "",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )
        if budgets and not _is_unready_and_uncounted(pod.object, budgets[0].object):
            _take(verbs, budgets[0], pod.object, options)
    deletions.check_preconditions(row, pod.object["metadata"], asked)  # nobody is marked for another's sake
    if not options.dry_run:
        _mark(verbs, row, pod)
        asked = replace(asked, resource_version="")  # checked; the mark has made a new one
    deletions.delete(verbs, row, place, asked, options)
    return Version(SUCCESS, 0)


def _mark(verbs: Verbs, row: Row, pod: Version) -> None:
    """The condition DisruptionTarget: why the pod goes, for who looks at it while it ends."""
    status = pod.object.get("status") or {}
    now = stamp(verbs.world().now)
    held = status.get("conditions") or []
    made = {"type": "DisruptionTarget", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    made |= {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    for at, one in enumerate(held):
        if one["type"] == made["type"]:
            if one["status"] == "True":
                made["lastTransitionTime"] = one["lastTransitionTime"]
            conditions = [*held[:at], made, *held[at + 1 :]]
            break
    else:
        conditions = [*held, made]
    if conditions != held:
        marked = {
            **pod.object,
            "metadata": dict(pod.object["metadata"]),
            "status": {**status, "conditions": conditions},
        }
        verbs.store.replace(row, pod, marked)


def _delete_options(body: JsonObject) -> DeleteOptions:
    preconditions = body.get("preconditions") or {}
    return DeleteOptions(
        body.get("gracePeriodSeconds"),
        preconditions.get("uid") or "",
        preconditions.get("resourceVersion") or "",
        body.get("propagationPolicy") or "",
    )


def _is_exempt(pod: JsonObject) -> bool:
    """Pods that are pending, ended or already leaving cost no budget (canIgnorePDB)."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Pending", "Succeeded", "Failed") or bool(pod["metadata"].get("deletionTimestamp"))


def _is_unready_and_uncounted(pod: JsonObject, budget: JsonObject) -> bool:
    """An unready pod may go when the budget says so, or when the healthy ones suffice (KEP-3017)."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    if any(held.get("type") == "Ready" and held.get("status") == "True" for held in conditions):
        return False
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy", 0)
    return bool(desired > 0 and status.get("currentHealthy", 0) >= desired)


def _budgets(verbs: Verbs, pod: JsonObject) -> list[Version]:
    row = verbs.registry.named("policy", "poddisruptionbudgets")
    labels = pod["metadata"].get("labels") or {}
    held = verbs.store.collection(row).versions(pod["metadata"]["namespace"])
    return [budget for budget in held if _selects((budget.object.get("spec") or {}).get("selector"), labels)]


def _selects(selector: JsonObject | None, labels: JsonObject) -> bool:
    """policy/v1: a missing selector selects nothing, an empty one everything in the namespace."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    return all(
        Requirement(term["key"], operators[term["operator"]], tuple(term.get("values") or ())).matches(labels)
        for term in selector.get("matchExpressions") or []
    )


def _take(verbs: Verbs, budget: Version, pod: JsonObject, options: Options) -> None:
    """Spend one disruption, and name the pod so that the controller does not count it twice."""
    row = verbs.registry.named("policy", "poddisruptionbudgets")
    metadata, status = budget.object["metadata"], budget.object.get("status") or {}
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        why = f"The disruption budget {metadata['name']} is still being processed by the server."
        cause = {"reason": "DisruptionBudget", "message": why}
        raise failures.too_many_requests(VIOLATES, STALE_RETRY_SECONDS, [cause])
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise failures.forbidden(row, metadata["name"], "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or {}) > DISRUPTED_MAX:
        raise failures.forbidden(
            row, metadata["name"], "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        )
    if allowed == 0:
        why = f"The disruption budget {metadata['name']} {_reason(status)}"
        raise failures.too_many_requests(VIOLATES, 0, [{"reason": "DisruptionBudget", "message": why}])
    if options.dry_run:
        return
    disrupted = {**(status.get("disruptedPods") or {}), pod["metadata"]["name"]: stamp(verbs.world().now)}
    spent = {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}
    spent["conditions"] = _allowing(status, metadata, allowed - 1, stamp(verbs.world().now))
    verbs.store.replace(row, budget, {**budget.object, "metadata": dict(metadata), "status": spent})


def _reason(status: JsonObject) -> str:
    """Why a budget allows nothing; counts mean nothing after a sync that failed."""
    verdict: JsonObject = next(
        (one for one in status.get("conditions") or [] if one["type"] == "DisruptionAllowed"), {}
    )
    said = verdict.get("message") if verdict.get("status") == "False" else ""
    healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    if said and verdict.get("reason") == "SyncFailed":
        return f"does not allow evicting pods currently because it failed sync: {said}"
    if healthy <= desired:
        return f"needs {desired} healthy pods and has {healthy} currently"
    return "does not allow evicting pods currently" + (f" ({verdict['reason']}): {said}" if said else "")


def _allowing(status: JsonObject, metadata: JsonObject, allowed: int, now: str) -> list[JsonObject]:
    """The conditions with DisruptionAllowed brought up to date (component-helpers/apps/poddisruptionbudget)."""
    held = status.get("conditions") or []
    old: JsonObject = next((one for one in held if one["type"] == "DisruptionAllowed"), {})
    value = "True" if allowed > 0 else "False"
    made = {
        "type": "DisruptionAllowed",
        "status": value,
        "observedGeneration": status.get("observedGeneration", metadata.get("generation", 0)),
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == value else now,
        "reason": "SufficientPods" if allowed > 0 else "InsufficientPods",
        "message": "",
    }
    return [*(one for one in held if one["type"] != "DisruptionAllowed"), made]
