"""What a HorizontalPodAutoscaler is told of its target: in a lab, what its own annotations say.

    kubectl annotate hpa web lab.tidegate.dev/load=900 --overwrite      # in all: shared by the pods that are ready
    kubectl annotate hpa web lab.tidegate.dev/metric=160 --overwrite    # what each pod is measured at

``lab.tidegate.dev/load.NAME`` and ``lab.tidegate.dev/metric.NAME`` set the metric of one name. Amounts are quantities;
of a target in percent, percent of the request. Without one there is no metric, as on a cluster without a metrics API.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.schema import quantity
from tidegate.lab.controllers import autoscaling
from tidegate.lab.controllers.autoscaling import Samples, Tolerance
from tidegate.lab.controllers.labels import annotations_of
from tidegate.lab.controllers.pods import condition, is_ready, is_terminating, phase
from tidegate.lab.instants import parse_stamp

LOAD, EACH = "lab.tidegate.dev/load", "lab.tidegate.dev/metric"

_CPU_SETTLES = timedelta(minutes=5)
_READY_DELAY = timedelta(seconds=30)
"""--horizontal-pod-autoscaler-cpu-initialization-period and -initial-readiness-delay, as kube-controller-manager has
them."""


class NoMetric(Exception):
    """Nothing can be computed from this metric: ``reason`` of the condition and the Event, and in words."""

    def __init__(self, reason: str, why: str, outer: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.outer = outer


@dataclass(frozen=True, slots=True)
class Target:
    """What is scaled: replicas as wanted and as they are, and the pods it selects."""

    wanted: int
    have: int
    pods: tuple[JsonObject, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one metric asks for: replicas, its name in words, and its entry of status.currentMetrics."""

    replicas: int
    name: str
    status: JsonObject


@dataclass(frozen=True, slots=True)
class _Reading:
    """One metric of an autoscaler, about to be read."""

    hpa: JsonObject
    metric: JsonObject
    target: Target
    now: datetime

    @property
    def kind(self) -> str:
        return str(self.metric["type"])

    @property
    def key(self) -> str:
        return self.kind[:1].lower() + self.kind[1:]

    @property
    def source(self) -> JsonObject:
        found: JsonObject = self.metric[self.key]
        return found

    @property
    def name(self) -> str:
        return str(self.source["name"] if "Resource" in self.kind else self.source["metric"]["name"])

    @property
    def wanted(self) -> JsonObject:
        found: JsonObject = self.source["target"]
        return found

    @property
    def is_percent(self) -> bool:
        return self.wanted.get("averageUtilization") is not None

    @property
    def tolerance(self) -> Tolerance:
        return _tolerance(self.hpa["spec"].get("behavior") or {})

    def failure(self, why: str) -> NoMetric:
        """Nothing can be computed, in the controller's words."""
        outer = {"Object": "object metric value", "Pods": "pods metric value"}.get(self.kind)
        if outer is None and self.kind == "ContainerResource":
            outer = f"{self.source['container']} container metric value"
        if self.kind == "External":
            again = f"{self.name} external metric" if "averageValue" in self.wanted else f"external metric {self.name}"
            outer = f"{self.name} external metric value: failed to get {again}"
        outer = outer or f"{self.name} {self.kind.lower()} metric value"
        head = f"failed to get {self.name} {'utilization' if self.is_percent else 'usage'}: "
        return NoMetric(f"FailedGet{self.kind}Metric", f"{head if 'Resource' in self.kind else ''}{why}", outer)

    def told(self) -> tuple[str, int]:
        """(which annotation, thousandths). Raises ``NoMetric``."""
        annotations = annotations_of(self.hpa)
        for key in (f"{LOAD}.{self.name}", f"{EACH}.{self.name}", LOAD, EACH):
            if key in annotations:
                try:
                    return key, _milli(annotations[key])
                except ValueError as error:
                    raise self.failure(f"annotation {key}: {error}") from None
        raise self.failure(self._unanswered())

    def _unanswered(self) -> str:
        """What the controller says where nobody serves a metrics API."""
        gone = "the server could not find the requested resource"
        custom = (
            "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
        )
        namespace, name = self.hpa["metadata"]["namespace"], self.name
        if self.kind == "Pods":
            return f"unable to get metric {name}: {custom}"
        if self.kind == "Object":
            about = self.source["describedObject"]
            return f"unable to get metric {name}: {about['kind']} on {namespace} {about['name']}/{custom}"
        if self.kind == "External":
            why = f"unable to fetch metrics from external metrics API: {gone} (get {name}.external.metrics.k8s.io)"
            return f"unable to get external metric {namespace}/{name}/nil: {why}"
        why = f"unable to fetch metrics from resource metrics API: {gone} (get pods.metrics.k8s.io)"
        return f"unable to get metrics for resource {name}: {why}"


def proposal(hpa: JsonObject, metric: JsonObject, target: Target, now: datetime) -> Proposal:
    """Raises ``NoMetric``."""
    reading = _Reading(hpa, metric, target, now)
    return _together(reading) if reading.kind in ("Object", "External") else _each(reading)


def _tolerance(behavior: JsonObject) -> Tolerance:
    found = [(behavior.get(key) or {}).get("tolerance") for key in ("scaleDown", "scaleUp")]
    down, up = (autoscaling.TOLERANCE if one is None else float(quantity.parse(one)) for one in found)
    return Tolerance(down, up)


def _milli(text: object) -> int:
    return int(-(-quantity.parse(text) * 1000 // 1))


def _shown(milli: int) -> str:
    return str(quantity.canonical(f"{milli}m"))


# -- so much per pod


def _each(reading: _Reading) -> Proposal:
    samples, source, kind, name = _samples(reading), reading.source, reading.kind, reading.name
    if reading.is_percent:  # whole percents, as GetResourceUtilizationRatio rounds them
        samples = Samples(tuple(amount // 1000 for amount in samples.amounts), samples.unready)
        goal = int(reading.wanted["averageUtilization"])
    else:
        goal = _milli(reading.wanted["averageValue"])
    replicas, usage = autoscaling.per_pod(reading.target.wanted, samples, goal, reading.tolerance)
    current: JsonObject = {"averageUtilization": usage} if reading.is_percent else {"averageValue": _shown(usage)}
    if kind == "Pods":
        held = {"metric": source["metric"], "current": current}
        return Proposal(replicas, f"pods metric {name}", {"type": kind, reading.key: held})
    where = " container" if kind == "ContainerResource" else ""
    words = f"{name}{where} resource utilization (percentage of request)" if reading.is_percent else f"{name} resource"
    held = {"name": name} | ({"container": source["container"]} if where else {}) | {"current": current}
    return Proposal(replicas, words, {"type": kind, reading.key: held})


def _samples(reading: _Reading) -> Samples:
    told = reading.told()
    if not reading.target.pods:
        raise reading.failure("no pods returned by selector while calculating replica count")
    is_cpu = reading.name == "cpu" and reading.kind != "Pods"
    counted, unready = _grouped(reading.target.pods, is_cpu, reading.now)
    if not counted:
        raise reading.failure("did not receive metrics for targeted pods (pods might be unready)")
    return Samples(_amounts(told, counted), unready)


def _amounts(told: tuple[str, int], pods: list[JsonObject]) -> tuple[int, ...]:
    """What each pod is measured at: all the same, or its share of a load that goes to those that are ready."""
    key, milli = told
    if key.startswith(EACH):
        return tuple(milli for _ in pods)
    ready = sum(map(is_ready, pods))
    return tuple(milli // ready if is_ready(pod) else 0 for pod in pods)


def _grouped(pods: Iterable[JsonObject], is_cpu: bool, now: datetime) -> tuple[list[JsonObject], int]:
    """(pods that count, how many do not count yet); those that end count for nothing (groupPods)."""
    counted, unready = [], 0
    for pod in pods:
        if is_terminating(pod) or phase(pod) == "Failed":
            continue
        if phase(pod) == "Pending" or (is_cpu and not _has_settled(pod, now)):
            unready += 1
        else:
            counted.append(pod)
    return counted, unready


def _has_settled(pod: JsonObject, now: datetime) -> bool:
    """Whether its CPU says anything yet: a pod that starts uses more than it will."""
    ready, started = condition(pod, "Ready"), parse_stamp((pod.get("status") or {}).get("startTime"))
    if ready is None or started is None:
        return False
    if ready["status"] == "True":
        return True
    changed = parse_stamp(ready.get("lastTransitionTime"))
    is_young = started + _CPU_SETTLES > now
    return not (is_young or (changed is not None and started + _READY_DELAY > changed))


# -- so much in all


def _together(reading: _Reading) -> Proposal:
    source, kind, name, target = reading.source, reading.kind, reading.name, reading.target
    usage, wanted = reading.told()[1], reading.wanted
    if wanted.get("averageValue") is not None:
        replicas, each = autoscaling.shared(target.have, usage, _milli(wanted["averageValue"]), reading.tolerance)
        current = {"averageValue": _shown(each)}
    else:
        if not target.pods:
            raise reading.failure("no pods returned by selector while calculating replica count")
        ready = sum(phase(pod) == "Running" and is_ready(pod) for pod in target.pods)
        replicas = autoscaling.in_all(target.wanted, ready, usage / _milli(wanted["value"]), reading.tolerance)
        current = {"value": _shown(usage)}
    held: JsonObject = {"metric": source["metric"], "current": current}
    if kind == "External":
        return Proposal(replicas, f"external metric {name}(nil)", {"type": kind, "external": held})
    about = source["describedObject"]
    held["describedObject"] = about
    return Proposal(replicas, f"{about['kind']} metric {name}", {"type": kind, "object": held})
