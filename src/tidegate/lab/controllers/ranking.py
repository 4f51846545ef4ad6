"""Which pods a shrinking ReplicaSet deletes first (pkg/controller/controller_utils.go ActivePodsWithRanks).

Ready times are compared in buckets of powers of two, and within a bucket by uid: which of two pods of nearly
one age goes is a coin toss on a real cluster too (KEP-2185), unless their deletion costs differ (KEP-2255).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cmp_to_key

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.labels import annotations_of
from tidegate.lab.controllers.pods import is_active, is_ready, phase, ready_since, restarts
from tidegate.lab.instants import parse_stamp

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def deletion_cost(pod: JsonObject) -> int:
    """The annotation's value, int32; 0 when absent or malformed."""
    text = annotations_of(pod).get(DELETION_COST, "0")
    try:
        cost = int(text)
    except ValueError:
        return 0
    return cost if -(2**31) <= cost < 2**31 and str(cost) == text else 0


def _bucket(since: datetime, now: datetime) -> int:
    """floor(log2(age in nanoseconds)); -1 for no age."""
    age = (now - since) // timedelta(microseconds=1) * 1000
    return age.bit_length() - 1 if age > 0 else -1


def _node(pod: JsonObject) -> str:
    return str(pod["spec"].get("nodeName") or "")


def _compare_ages(first: tuple[datetime | None, str], second: tuple[datetime | None, str], now: datetime) -> int:
    """Unknown before younger bucket before older; uid within a bucket; 0 for one and the same instant."""
    (since, uid), (other_since, other_uid) = first, second
    if since == other_since:
        return 0
    if since is None or other_since is None:
        return -1 if since is None else 1
    difference = _bucket(since, now) - _bucket(other_since, now)
    return difference or (-1 if uid < other_uid else 1)


def _compare(one: JsonObject, other: JsonObject, crowd: Counter[str], now: datetime) -> int:
    """Negative when ``one`` is deleted before ``other``."""
    nodes = _node(one), _node(other)
    if nodes[0] != nodes[1] and not all(nodes):
        return -1 if not nodes[0] else 1
    ready = is_ready(one), is_ready(other)
    for mine, theirs in (
        (_PHASES.get(phase(one), 0), _PHASES.get(phase(other), 0)),
        (ready[0], ready[1]),
        (deletion_cost(one), deletion_cost(other)),
        (-crowd[nodes[0]], -crowd[nodes[1]]),
    ):
        if mine != theirs:
            return -1 if mine < theirs else 1
    uids = one["metadata"]["uid"], other["metadata"]["uid"]
    if all(ready):
        by_age = _compare_ages((ready_since(one), uids[0]), (ready_since(other), uids[1]), now)
        if by_age:
            return by_age
    if restarts(one) != restarts(other):
        return -1 if restarts(one) > restarts(other) else 1
    made = (parse_stamp(pod["metadata"].get("creationTimestamp")) for pod in (one, other))
    return _compare_ages((next(made), uids[0]), (next(made), uids[1]), now)


def victims(
    active: Sequence[JsonObject], related: Iterable[JsonObject], surplus: int, now: datetime
) -> list[JsonObject]:
    """The ``surplus`` pods of ``active`` to delete, in order. ``related``: all pods of sibling ReplicaSets."""
    if surplus >= len(active):
        return list(active)
    crowd = Counter(_node(pod) for pod in related if is_active(pod))

    def compare(one: JsonObject, other: JsonObject) -> int:
        return _compare(one, other, crowd, now)

    return sorted(active, key=cmp_to_key(compare))[:surplus]
