"""Validation of what makes pods: apps/v1, batch/v1, autoscaling, policy (kubernetes/pkg/apis/*/validation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.lab.apiserver.schema import causes, names, validation_pod, validation_selectors
from tidegate.lab.apiserver.schema.causes import Cause, invalid, non_negative, required
from tidegate.lab.apiserver.schema.validation_jobs import job_spec

Json = Mapping[str, Any]
_REPLICA_SET_COUNTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
MISMATCH = "`selector` does not match template `labels`"


def _workload(obj: Json, title: str) -> list[Cause]:
    """Selector, template and replicas, as all four apps/v1 workloads have them."""
    spec = obj.get("spec") or {}
    found = non_negative("spec.replicas", spec.get("replicas"))
    selector, template = spec.get("selector"), spec.get("template")
    if selector is None:
        found.append(required("spec.selector"))
    else:
        problems = validation_selectors.validate(selector, "spec.selector")
        found += problems
        if any(".matchExpressions" in cause.field for cause in problems):
            found.append(invalid("spec.selector", dict(selector), "invalid label selector"))
        if validation_selectors.is_empty(selector):
            found.append(invalid("spec.selector", selector, f"empty selector is invalid for {title}"))
    if template is None:
        return [*found, required("spec.template")]
    labels = (template.get("metadata") or {}).get("labels") or {}
    is_usable = selector is None or (selector and not found)  # none at all selects nothing
    if is_usable and not (selector and validation_selectors.matches(selector, labels)):
        found.append(invalid("spec.template.metadata.labels", labels or None, MISMATCH))
    found += validation_pod.template(template, "spec.template")
    pod = template.get("spec") or {}
    if pod.get("restartPolicy") not in (None, "Always"):
        path = "spec.template.spec.restartPolicy"
        found.append(causes.not_supported(path, pod["restartPolicy"], ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        text = "activeDeadlineSeconds in ReplicaSet is not Supported"
        found.append(causes.forbidden("spec.template.spec.activeDeadlineSeconds", text))
    return found


def _selector_kept(obj: Json, old: Json | None) -> list[Cause]:
    if old is None:
        return []
    return causes.unchanged("spec.selector", obj["spec"].get("selector"), old["spec"].get("selector"))


def deployment(obj: Json, old: Json | None) -> list[Cause]:
    found = _workload(obj, "deployment")
    spec = obj.get("spec") or {}
    found += _deployment_strategy(spec.get("strategy") or {})
    found += _minimum_ready(spec)
    found += non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    found += non_negative("spec.progressDeadlineSeconds", deadline)
    if isinstance(deadline, int) and deadline <= (spec.get("minReadySeconds") or 0):
        text = "must be greater than minReadySeconds"
        found.append(invalid("spec.progressDeadlineSeconds", deadline, text))
    found += _selector_kept(obj, old)
    counted = ("updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    return found if old is None else [*found, *_counts(obj, *counted)]


def _counts(obj: Json, *counted: str) -> list[Cause]:
    """A status whose counts are not negative, none above ``replicas``, nor available above ready."""
    status = obj.get("status") or {}
    total, ready, available = (status.get(key) or 0 for key in ("replicas", "readyReplicas", "availableReplicas"))
    found: list[Cause] = []
    for key in ("observedGeneration", "replicas", *counted):
        found += non_negative(f"status.{key}", status.get(key))
    for key in counted:
        if (value := status.get(key) or 0) > total and key != "unavailableReplicas":
            found.append(invalid(f"status.{key}", value, "cannot be greater than status.replicas"))
    if available > ready:
        found.append(invalid("status.availableReplicas", available, "cannot be greater than readyReplicas"))
    return found


def _minimum_ready(spec: Json) -> list[Cause]:
    return non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))


def _deployment_strategy(strategy: Json) -> list[Cause]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    path = "spec.strategy.rollingUpdate"
    if kind == "Recreate":
        text = "may not be specified when strategy `type` is 'Recreate'"
        return [] if rolling is None else [causes.forbidden(path, text)]
    if kind != "RollingUpdate":
        value = {"Type": kind or "", "RollingUpdate": rolling}  # the internal Go struct, as the real server prints it
        return [causes.not_supported("spec.strategy", value, ("Recreate", "RollingUpdate"))]
    if rolling is None:
        return [required(path, "this should be defaulted and never be nil")]
    found = amount(rolling.get("maxUnavailable"), f"{path}.maxUnavailable")
    found += amount(rolling.get("maxSurge"), f"{path}.maxSurge")
    if is_zero(rolling.get("maxUnavailable")) and is_zero(rolling.get("maxSurge")):
        text = "may not be 0 when `maxSurge` is 0"
        found.append(invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), text))
    return found + _at_most_all(rolling.get("maxUnavailable"), f"{path}.maxUnavailable")


def is_zero(value: Any) -> bool:
    """0 or "0%"."""
    return str(value).rstrip("%") == "0"


def amount(value: Any, path: str) -> list[Cause]:
    """A count or a percentage, not negative."""
    if isinstance(value, str):
        return [invalid(path, value, text) for text in names.percent(value)]
    return non_negative(path, value)


def _at_most_all(value: Any, path: str) -> list[Cause]:
    if isinstance(value, str) and not names.percent(value) and int(value[:-1]) > 100:
        return [invalid(path, value, "must not be greater than 100%")]
    return []


def replica_set(obj: Json, old: Json | None) -> list[Cause]:
    found = _workload(obj, "ReplicaSet") + _minimum_ready(obj.get("spec") or {}) + _selector_kept(obj, old)
    return found if old is None else [*found, *_counts(obj, *_REPLICA_SET_COUNTS)]


def stateful_set(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    found = _stateful_order(spec)
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or () if old is None else ()):
        found += _claim_template(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")
    found += _workload(obj, "statefulset")
    found += _minimum_ready(spec)
    found += non_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    if old is not None:
        found += _counts(obj, "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
        free = (
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        )
        kept = {key: value for key, value in spec.items() if key not in free}
        if kept != {key: value for key, value in old["spec"].items() if key not in free}:
            listed = ", ".join(f"'{name}'" for name in free[:-1])
            text = f"updates to statefulset spec for fields other than {listed} and '{free[-1]}' are forbidden"
            found.append(causes.forbidden("spec", text))
    return found


def _stateful_order(spec: Json) -> list[Cause]:
    """podManagementPolicy and updateStrategy, which Go prints as its own struct."""
    found: list[Cause] = []
    policy, strategy = spec.get("podManagementPolicy"), spec.get("updateStrategy") or {}
    if policy not in ("OrderedReady", "Parallel"):
        found.append(invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "OnDelete" and rolling is not None:
        value = {"Partition": rolling.get("partition") or 0, "MaxUnavailable": rolling.get("maxUnavailable")}
        text = "only allowed for updateStrategy 'RollingUpdate'"
        found.append(invalid("spec.updateStrategy.rollingUpdate", value, text))
    elif kind == "RollingUpdate":
        path = "spec.updateStrategy.rollingUpdate.partition"
        found += non_negative(path, (rolling or {}).get("partition"))
    elif kind != "OnDelete":
        value = {"Type": kind or "", "RollingUpdate": rolling}
        found.append(invalid("spec.updateStrategy", value, "must be 'RollingUpdate' or 'OnDelete'"))
    return found


def _claim_template(spec: Json, path: str) -> list[Cause]:
    found: list[Cause] = []
    if not spec.get("accessModes"):
        found.append(required(f"{path}.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        found.append(required(f"{path}.resources[storage]"))
    return found


def daemon_set(obj: Json, old: Json | None) -> list[Cause]:
    found = _selector_kept(obj, old) + _workload(obj, "daemonset") + _minimum_ready(obj.get("spec") or {})
    strategy = (obj.get("spec") or {}).get("updateStrategy") or {}
    found += causes.one_of("spec.updateStrategy.type", strategy.get("type"), ("OnDelete", "RollingUpdate"))
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "RollingUpdate" and rolling:
        path = "spec.updateStrategy.rollingUpdate"
        found += amount(rolling.get("maxUnavailable"), f"{path}.maxUnavailable")
        found += amount(rolling.get("maxSurge"), f"{path}.maxSurge")
        surges = not is_zero(rolling.get("maxSurge", 0))
        leaves = not is_zero(rolling.get("maxUnavailable", 0))
        if surges and leaves:
            text = "may not be set when maxUnavailable is non-zero"
            found.append(invalid(f"{path}.maxSurge", rolling.get("maxSurge"), text))
        elif not surges and not leaves:
            text = "cannot be 0 when maxSurge is 0"
            found.append(required(f"{path}.maxUnavailable", text))
    return found


def cron_job(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    schedule = str(spec.get("schedule") or "")
    found: list[Cause] = []
    if not schedule:
        found.append(required("spec.schedule"))
    elif len(schedule.split()) != 5 and not schedule.startswith("@"):
        count = len(schedule.split())
        text = f"expected exactly 5 fields, found {count}: [{schedule}]"
        found.append(invalid("spec.schedule", schedule, text))
    policies = ("Allow", "Forbid", "Replace")
    found += causes.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies)
    for key in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        found += non_negative(f"spec.{key}", spec.get(key))
    found += job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")
    name = str((obj.get("metadata") or {}).get("name") or "")
    if old is None and len(name) > 52:  # 11 letters for the job's suffix
        found.append(invalid("metadata.name", name, "must be no more than 52 characters"))
    return found


def disruption_budget(obj: Json, old: Json | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    found: list[Cause] = []
    if low is not None and high is not None:
        text = "minAvailable and maxUnavailable cannot be both set"
        # The internal Go struct, marshalled: that is what the real server prints.
        value: dict[str, Any] = {"MinAvailable": low, "Selector": spec.get("selector"), "MaxUnavailable": high}
        value["UnhealthyPodEvictionPolicy"] = spec.get("unhealthyPodEvictionPolicy")
        found.append(invalid("spec", value, text))
    for key, bound in (("minAvailable", low), ("maxUnavailable", high)):
        if bound is not None:
            found += amount(bound, f"spec.{key}") + _at_most_all(bound, f"spec.{key}")
    found += validation_selectors.validate(spec.get("selector"), "spec.selector")
    policies = ("AlwaysAllow", "IfHealthyBudget")
    policy = spec.get("unhealthyPodEvictionPolicy")
    return found + causes.one_of("spec.unhealthyPodEvictionPolicy", policy, policies)
