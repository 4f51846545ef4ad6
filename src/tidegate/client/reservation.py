"""Reservations: drains in flight count against the floor of every Service before anything is cut.

Written on the Service itself and tested by resourceVersion, so that two callers who each see room for one more pod
to leave do not both take it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.client.budgets import denied
from tidegate.client.options import VerbOptions
from tidegate.client.plan import PodPlan
from tidegate.engine import act
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import endpointslice, pod, service
from tidegate.model.service import Service
from tidegate.traffic import floors

TRIES = 10


async def reserve(client: KubeClient, plan: PodPlan, options: VerbOptions, token: str) -> str | None:
    """Count this drain against the floor of every Service before anything is cut; a sentence when one forbids it, or a
    budget does."""
    is_free = options.force and not options.keeps_budgets
    if not plan.leaving:
        return None if is_free else "; ".join(await denied(client, plan.pod, ())) or None
    done: list[Service] = []
    for planned in plan.leaving:
        refusal = await _reserve_one(client, plan, options, planned, token)
        if refusal is not None:
            await unreserve(client, done, plan.pod.uid, token)
            return refusal
        done.append(planned)
    return None


async def _reserve_one(
    client: KubeClient, plan: PodPlan, options: VerbOptions, planned: Service, token: str
) -> str | None:
    for _ in range(TRIES):
        current = service.decode(await client.get(SERVICES, planned.name, planned.namespace))
        slices = [endpointslice.decode(obj) for obj in (await client.list(ENDPOINTSLICES)).items]
        alive = {obj["metadata"]["uid"]: obj for obj in (await client.list(PODS, Selection(planned.namespace))).items}
        held = {uid: held_by for uid, held_by in act.reservations(current).items() if uid in alive}
        kept = floors(plan.pod, [current], slices, options.floor, held)
        breached = [str(floor) for floor in kept if not floor.is_kept]
        others = tuple(pod.decode(alive[uid]) for uid in sorted(held) if uid != plan.pod.uid)
        if breached and others:
            breached[-1] += f" ({len(others)} other drains in flight count)"
        if options.force:
            breached = []
        if not options.force or options.keeps_budgets:
            breached += await denied(client, plan.pod, others)
        if breached:
            return "; ".join(breached)
        try:
            await act.reserve(client, current, {plan.pod.uid: token, **held})
            return None
        except ApiError as error:
            if not error.is_conflict:
                raise
    return f"{planned} changes too often to be reserved: try again"


async def unreserve(client: KubeClient, services: Iterable[Service], uid: str, token: str = "") -> None:
    """Take the reservation of ``token`` back (of whoever made it, for none); one that stays counts only for as long as
    the pod exists."""
    for planned in services:
        for _ in range(TRIES):
            try:
                current = service.decode(await client.get(SERVICES, planned.name, planned.namespace))
                held = act.reservations(current)
                if uid in held and (not token or held[uid] == token):
                    del held[uid]
                    await act.reserve(client, current, held)
                break
            except ApiError as error:
                if not error.is_conflict:
                    break
            except KubeError:
                break


async def sweep(client: KubeClient, namespace: str) -> None:
    """Take off what killed runs left: reservations of pods that are no more. They count for nothing; they look bad."""
    services = [service.decode(obj) for obj in (await client.list(SERVICES, Selection(namespace))).items]
    stale = [(one, uid) for one in services for uid in act.reservations(one)]
    if stale:
        alive = {obj["metadata"]["uid"] for obj in (await client.list(PODS, Selection(namespace))).items}
        for one, uid in stale:
            if uid not in alive:
                await unreserve(client, (one,), uid)
