"""How many pods a rollout may have too many and too few (pkg/controller/deployment/util ResolveFenceposts)."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.kube.api import JsonObject

IntOrPercent = int | str | None


@dataclass(frozen=True, slots=True)
class Fenceposts:
    """``surge`` pods above and ``unavailable`` pods below the desired number are allowed."""

    surge: int
    unavailable: int


def scaled(value: IntOrPercent, total: int, *, up: bool) -> int:
    """An absolute number, or a percentage of ``total`` rounded up or down; ValueError for other text."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError(f"invalid value for IntOrString: {value!r} is not a percentage")
    share = int(value[:-1]) * total
    return -(-share // 100) if up else share // 100


def resolve(max_surge: IntOrPercent, max_unavailable: IntOrPercent, desired: int) -> Fenceposts:
    """Surge rounds up, unavailable down; were both 0 nothing could ever move, so unavailable becomes 1."""
    surge = scaled(max_surge, desired, up=True)
    unavailable = scaled(max_unavailable, desired, up=False)
    return Fenceposts(surge, 1 if surge == 0 and unavailable == 0 else unavailable)


def fenceposts(deployment: JsonObject) -> Fenceposts:
    """The limits of a Deployment as it stands: none for Recreate, never more unavailable than desired."""
    spec = deployment["spec"]
    desired = replicas(deployment)
    if not is_rolling(deployment):
        return Fenceposts(0, 0)
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    posts = resolve(rolling.get("maxSurge"), rolling.get("maxUnavailable"), desired)
    return Fenceposts(posts.surge, min(posts.unavailable, desired) if desired else 0)


def is_rolling(deployment: JsonObject) -> bool:
    """True for strategy RollingUpdate (the default)."""
    return bool((deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate") == "RollingUpdate")


def replicas(obj: JsonObject) -> int:
    """spec.replicas; 1 when absent (the server defaults it)."""
    value = obj["spec"].get("replicas")
    return 1 if value is None else int(value)


def reported(replicaset: JsonObject, field: str) -> int:
    """A count of the status; 0 when omitted."""
    return int((replicaset.get("status") or {}).get(field) or 0)
