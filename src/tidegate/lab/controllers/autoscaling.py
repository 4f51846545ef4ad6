"""How many replicas a HorizontalPodAutoscaler wants (pure): from what is measured, then within what it allows.

Follows pkg/controller/podautoscaler/replica_calculator.go and horizontal.go (v1.36): amounts are in thousandths, and a
ratio is a float as there, so that the last digit falls the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tidegate.kube.api import JsonObject

TOLERANCE = 0.1
DOWN_WINDOW_SECONDS = 300
_UP_FACTOR, _UP_LEAST = 2.0, 4
"""Without a behavior: at most twice as many at a time, or 4."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is near enough to the target."""

    down: float = TOLERANCE
    up: float = TOLERANCE

    def has(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Samples:
    """What each counting pod was measured at, and how many pods do not count: Pending, or not ready yet."""

    amounts: tuple[int, ...]
    unready: int = 0


def per_pod(current: int, samples: Samples, target: int, tolerance: Tolerance) -> tuple[int, int]:
    """(replicas, amount per pod) by a target of so much per pod (calcPlainMetricReplicas, GetResourceReplicas).

    Pods that do not count yet hold back a scale-up: they are taken to use nothing.
    """
    usage = _average(samples.amounts)
    ratio = usage / target
    if not (samples.unready and ratio > 1.0):
        return (current if tolerance.has(ratio) else math.ceil(ratio * len(samples.amounts))), usage
    amounts = (*samples.amounts, *([0] * samples.unready))
    ratio = _average(amounts) / target
    wanted = math.ceil(ratio * len(amounts))
    if tolerance.has(ratio) or ratio < 1.0 or wanted < current:
        return current, usage
    return wanted, usage


def _average(amounts: tuple[int, ...]) -> int:
    return sum(amounts) // len(amounts)


def in_all(current: int, ready: int, ratio: float, tolerance: Tolerance) -> int:
    """Replicas by a target for all of them together (getUsageRatioReplicaCount)."""
    return current if tolerance.has(ratio) else math.ceil(ratio * ready)


def shared(replicas: int, usage: int, target: int, tolerance: Tolerance) -> tuple[int, int]:
    """(replicas, amount per pod) by an amount that ``replicas`` share (GetExternalPerPodMetricReplicas)."""
    if replicas == 0:
        return math.ceil(usage / target), 0
    is_near = tolerance.has(usage / (target * replicas))
    return (replicas if is_near else math.ceil(usage / target)), math.ceil(usage / replicas)


# -- what it allows


@dataclass(slots=True)
class Memory:
    """What was recommended and done, at which instants (seconds): it is lost when the controller restarts."""

    recommended: list[tuple[int, float]] = field(default_factory=list)
    added: list[tuple[int, float]] = field(default_factory=list)
    removed: list[tuple[int, float]] = field(default_factory=list)

    def forget(self, before: float) -> None:
        """What is older than any window."""
        for kept in (self.recommended, self.added, self.removed):
            kept[:] = [one for one in kept if one[1] >= before]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a recommendation is held against."""

    least: int
    most: int
    current: int
    now: float


@dataclass(frozen=True, slots=True)
class Decision:
    """How many there will be, and why not as many as wanted: (reason, message) of AbleToScale and of ScalingLimited."""

    replicas: int
    able: tuple[str, str]
    limit: tuple[str, str]
    is_limited: bool


_READY = ("ReadyForNewScale", "recommended size matches current size")
_DOWN = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
_UP = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FAST = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_TOO_FAST_DOWN = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")


def decided(wanted: int, bounds: Bounds, behavior: JsonObject | None, memory: Memory) -> Decision:
    """``wanted`` as it may be carried out; it is remembered as recommended."""
    if behavior is None:
        recent = [count for count, at in memory.recommended if at >= bounds.now - DOWN_WINDOW_SECONDS]
        steady, able = max([wanted, *recent]), _DOWN
        held, limit = _plainly(steady, bounds)
    else:
        steady, able = _stabilized(wanted, bounds, behavior, memory)
        held, limit = _by_rate(steady, bounds, behavior, memory)
    memory.recommended.append((wanted, bounds.now))
    return Decision(held, able if steady != wanted else _READY, limit, held != steady)


def _plainly(wanted: int, bounds: Bounds) -> tuple[int, tuple[str, str]]:
    fastest = int(max(_UP_FACTOR * bounds.current, _UP_LEAST))
    most, why = (fastest, _TOO_FAST) if bounds.most > fastest else (bounds.most, _TOO_MANY)
    if wanted < bounds.least:
        return bounds.least, _TOO_FEW
    return (most, why) if wanted > most else (wanted, _WITHIN)


def _window_seconds(behavior: JsonObject, direction: str) -> int:
    """The stabilization window of "scaleUp" or "scaleDown"."""
    seconds = behavior[direction].get("stabilizationWindowSeconds")
    return int(seconds) if seconds is not None else DOWN_WINDOW_SECONDS if direction == "scaleDown" else 0


def _stabilized(wanted: int, bounds: Bounds, behavior: JsonObject, memory: Memory) -> tuple[int, tuple[str, str]]:
    """No more than the least of the window up, no less than the most of the window down."""

    def recent(direction: str) -> list[int]:
        since = bounds.now - _window_seconds(behavior, direction)
        return [wanted, *(count for count, at in memory.recommended if at > since)]

    steady = max(bounds.current, min(recent("scaleUp")))
    steady = min(steady, max(recent("scaleDown")))
    return steady, (_UP if wanted >= bounds.current else _DOWN)


def _by_rate(wanted: int, bounds: Bounds, behavior: JsonObject, memory: Memory) -> tuple[int, tuple[str, str]]:
    if wanted > bounds.current:
        fastest = max(_rate_limit(bounds, behavior["scaleUp"], memory, +1), bounds.current)
        most, why = (fastest, _TOO_FAST) if bounds.most > fastest else (bounds.most, _TOO_MANY)
        return (most, why) if wanted > most else (wanted, _WITHIN)
    if wanted < bounds.current:
        fastest = min(_rate_limit(bounds, behavior["scaleDown"], memory, -1), bounds.current)
        least, why = (fastest, _TOO_FAST_DOWN) if bounds.least < fastest else (bounds.least, _TOO_FEW)
        return (least, why) if wanted < least else (wanted, _WITHIN)
    return wanted, _WITHIN


def _rate_limit(bounds: Bounds, rules: JsonObject, memory: Memory, sign: int) -> int:
    """How far the policies let the count go in one direction: of several, the furthest or (Min) the nearest."""
    if rules["selectPolicy"] == "Disabled":
        return bounds.current
    proposed: list[int] = []
    for policy in rules["policies"]:
        since = bounds.now - policy["periodSeconds"]
        added = sum(count for count, at in memory.added if at > since)
        removed = sum(count for count, at in memory.removed if at > since)
        start = bounds.current - added + removed
        if policy["type"] == "Pods":
            proposed.append(start + sign * policy["value"])
        elif sign > 0:
            proposed.append(math.ceil(start * (1 + policy["value"] / 100)))
        else:
            proposed.append(int(start * (1 - policy["value"] / 100)))
    is_furthest = (rules["selectPolicy"] == "Max") == (sign > 0)
    return max(proposed) if is_furthest else min(proposed)
