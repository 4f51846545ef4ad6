"""Validation of HorizontalPodAutoscalers (pkg/apis/autoscaling/validation)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tidegate.lab.apiserver.schema import names
from tidegate.lab.apiserver.schema.causes import Cause, forbidden, invalid, not_supported, required
from tidegate.lab.apiserver.schema.quantity import parse

Json = Mapping[str, Any]

_SOURCES = ("ContainerResource", "External", "Object", "Pods", "Resource")
_TARGETS = ("Utilization", "Value", "AverageValue")
_WINDOW_SECONDS_MAX = 3600
_PERIOD_SECONDS_MAX = 1800


def autoscaler(obj: Json, old: Json | None) -> list[Cause]:
    """A HorizontalPodAutoscaler of autoscaling/v2, defaulted."""
    return list(_spec(obj.get("spec") or {}))


def _spec(spec: Json) -> Iterator[Cause]:
    low, high = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if isinstance(low, int) and low < 1:
        yield invalid("spec.minReplicas", low, "must be greater than or equal to 1")
    if high == 0:
        yield required("spec.maxReplicas", "must be set and greater than 0")
    elif high < 0:
        yield invalid("spec.maxReplicas", high, "must be greater than or equal to 1")
    if isinstance(low, int) and high < low:
        yield invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
    yield from _reference(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef", needs_group=True)
    metrics = spec.get("metrics") or []
    for index, metric in enumerate(metrics):
        yield from _metric(metric, f"spec.metrics[{index}]")
    if low == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        text = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield forbidden("spec.metrics", text)
    for key in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(key)
        if rules is not None:
            yield from _rules(rules, f"spec.behavior.{key}")


def _reference(ref: Json, path: str, *, needs_group: bool) -> Iterator[Cause]:
    for key in ("kind", "name"):
        value = str(ref.get(key) or "")
        if not value:
            yield required(f"{path}.{key}")
        for text in names.path_segment(value):
            yield invalid(f"{path}.{key}", value, text)
    version = str(ref.get("apiVersion") or "")
    if version.count("/") > 1:
        yield invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}")
    elif needs_group and "/" not in version:
        yield invalid(f"{path}.apiVersion", version, "apiVersion must specify API group")


def _metric(metric: Json, path: str) -> Iterator[Cause]:
    kind = str(metric.get("type") or "")
    if not kind:
        yield required(f"{path}.type", "must specify a metric source type")
    if kind not in _SOURCES:
        yield not_supported(f"{path}.type", kind, _SOURCES)
    fields = {source: source[0].lower() + source[1:] for source in ("Object", "External", "Pods", "Resource")}
    fields["ContainerResource"] = "containerResource"
    present = [field for field in fields.values() if metric.get(field) is not None]
    if present:
        yield from _source(present[0], metric[present[0]], f"{path}.{present[0]}")
    if kind in fields and fields[kind] not in present:
        yield required(f"{path}.{fields[kind]}", "must populate information for the given metric source")
    if kind not in _SOURCES:
        yield not_supported(f"{path}.type", kind, _SOURCES)
    if len(present) != 1:
        for field in sorted(set(present) - {fields.get(kind, "")}):
            yield forbidden(f"{path}.{field}", "must populate the given metric source only")


def _source(kind: str, source: Json, path: str) -> Iterator[Cause]:
    target = source.get("target") or {}
    if kind in ("resource", "containerResource"):
        if not source.get("name"):
            yield required(f"{path}.name", "must specify a resource name")
        if kind == "containerResource" and not source.get("container"):
            yield required(f"{path}.container", "must specify a container")
        yield from _target(target, f"{path}.target")
        is_set = [target.get(key) is not None for key in ("averageUtilization", "averageValue")]
        if not any(is_set):
            text = "must set either a target raw value or a target utilization"
            yield required(f"{path}.target.averageUtilization", text)
        if all(is_set):
            text = "may not set both a target raw value and a target utilization"
            yield forbidden(f"{path}.target.averageValue", text)
        return
    if kind == "object":
        yield from _reference(source.get("describedObject") or {}, f"{path}.describedObject", needs_group=False)
    name = str((source.get("metric") or {}).get("name") or "")
    if not name:
        yield required(f"{path}.metric.name", "must specify a metric name")
    for text in names.path_segment(name):
        yield invalid(f"{path}.metric.name", name, text)
    yield from _target(target, f"{path}.target")
    yield from _amount(kind, target, f"{path}.target")


_MISSING = {
    "object": "must set either a target value or averageValue",
    "external": "must set either a target value for metric or a per-pod target",
    "pods": "must specify a positive target averageValue",
}


def _amount(kind: str, target: Json, path: str) -> Iterator[Cause]:
    has_value, has_average = (target.get(key) is not None for key in ("value", "averageValue"))
    if not has_average and (kind == "pods" or not has_value):
        yield required(f"{path}.averageValue", _MISSING[kind])
    if kind == "external" and has_value and has_average:
        yield forbidden(f"{path}.value", "may not set both a target value for metric and a per-pod target")


def _target(target: Json, path: str) -> Iterator[Cause]:
    kind = str(target.get("type") or "")
    if not kind:
        yield required(f"{path}.type", "must specify a metric target type")
    if kind not in _TARGETS:
        yield invalid(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue")
    for key in ("value", "averageValue"):
        amount = target.get(key)
        if amount is not None and parse(str(amount)) <= 0:
            yield invalid(f"{path}.{key}", amount, "must be positive")
    share = target.get("averageUtilization")
    if isinstance(share, int) and share < 1:
        yield invalid(f"{path}.averageUtilization", share, "must be greater than 0")


def _rules(rules: Json, path: str) -> Iterator[Cause]:
    window = rules.get("stabilizationWindowSeconds")
    if isinstance(window, int) and window < 0:
        yield invalid(f"{path}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
    if isinstance(window, int) and window > _WINDOW_SECONDS_MAX:
        text = f"must be less than or equal to {_WINDOW_SECONDS_MAX}"
        yield invalid(f"{path}.stabilizationWindowSeconds", window, text)
    select = rules.get("selectPolicy")
    if select is not None and select not in ("Disabled", "Max", "Min"):
        yield not_supported(f"{path}.selectPolicy", select, ("Disabled", "Max", "Min"))
    if not rules.get("policies"):
        yield required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(rules.get("policies") or ()):
        here, period = f"{path}.policies[{index}]", policy.get("periodSeconds") or 0
        if policy.get("type") not in ("Pods", "Percent"):
            yield not_supported(f"{here}.type", policy.get("type") or "", ("Percent", "Pods"))
        if (policy.get("value") or 0) <= 0:
            yield invalid(f"{here}.value", policy.get("value") or 0, "must be greater than zero")
        if period <= 0:
            yield invalid(f"{here}.periodSeconds", period, "must be greater than zero")
        if period > _PERIOD_SECONDS_MAX:
            yield invalid(f"{here}.periodSeconds", period, f"must be less than or equal to {_PERIOD_SECONDS_MAX}")
