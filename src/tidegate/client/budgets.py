"""Disruption budgets, asked at the cut and not only in the plan: what stood in a status then is old by now.

The eviction API is the authority (it knows of unready pods, of several budgets, of evictions under way), so it is
asked with a dry run where that is permitted: a dry run spends nothing (k8s: pkg/registry/core/pod/storage/eviction.go,
``checkAndDecrement``). Elsewhere the budgets' own status is read, and one of before its spec counts as none.

A cut spends nothing of a budget until its controller has seen it, and it is not told of a label that goes: that comes
to light with the next change of another of its pods. So the cuts in flight, known by their reservations on the pod's
Services, are taken off what a status allows, and the pods that a budget still selects are counted here as well
(``Budget.spare``): a cut that is long over does not leave room for the next one.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tidegate.client.guards import Budget, read_guards
from tidegate.kube.api import PODS
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.model.names import decode_drain
from tidegate.model.pod import Pod

TOO_MANY = 429


async def denied(client: KubeClient, pod: Pod, leaving: tuple[Pod, ...]) -> tuple[str, ...]:
    """Why no budget lets ``pod`` go now, a sentence each; ``leaving`` are pods that are being cut beside it.

    Raises ``KubeError`` where the API does not answer. What may not be read denies.
    """
    is_allowed, why = await _evictable(client, pod)
    if is_allowed is False:
        return (why,)
    guards = await read_guards(client, pod.namespace)
    found = [] if is_allowed else list(guards.breached(pod))
    for budget in guards.budgets:
        if budget.selector.matches(pod.labels):
            found += _overdrawn(budget, leaving)
    return tuple(dict.fromkeys(found)) if guards.budgets or is_allowed else guards.unread


def _overdrawn(budget: Budget, leaving: tuple[Pod, ...]) -> Iterator[str]:
    """Why a budget whose status may still be of before some cuts has no room for one more."""
    beside = sum(any(map(budget.selector.matches, _labels(one))) for one in leaving)
    if beside and budget.allowed - beside < 1:
        yield f"PodDisruptionBudget {budget.name} allows {budget.allowed} now, with {beside} in flight already"
    elif budget.spare is not None:
        going = sum(budget.selector.matches(one.labels) for one in leaving)
        if budget.spare - going < 1:
            yield f"PodDisruptionBudget {budget.name} allows {budget.allowed} and has no healthy pod to spare"


async def _evictable(client: KubeClient, pod: Pod) -> tuple[bool | None, str]:
    """What the eviction API says about ``pod``; None where it may not be asked, or cannot tell."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"dryRun": ["All"], "preconditions": {"uid": pod.uid}},
    }
    path = PODS.path(pod.namespace, pod.name, "eviction")
    headers = {"accept": "application/json", "content-type": "application/json"}
    # Dry both in the query and in the body: whichever of the two a server reads, nothing is evicted.
    query = (("dryRun", "All"), ("fieldManager", "tidegate"))
    try:
        await (await client.request(Request("POST", path, query, headers, msgspec.json.encode(body)))).read()
    except ApiError as error:
        if error.code != TOO_MANY:
            return None, error.message
        causes = (error.status.get("details") or {}).get("causes") or ()
        return False, "; ".join(str(one.get("message") or "") for one in causes) or error.message
    return True, ""


def _labels(pod: Pod) -> tuple[dict[str, str], ...]:
    """Its labels now, and before the cut: its flip may have taken it out of the budget's selector."""
    record = decode_drain(pod.annotations)
    return (pod.labels,) if record is None or not record.labels else (pod.labels, record.labels)
