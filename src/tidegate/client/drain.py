"""``drain_pod``: take a pod out of its Services, verify that everybody has let go, then delete it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec

from tidegate.client.labelled import LabelGrip, NoConnections, NodeConnections, is_tombstoned, origin_of
from tidegate.client.options import VerbOptions
from tidegate.client.plan import DrainPlan, plan_drain
from tidegate.drain.progress import Drain, begin, resume
from tidegate.drain.state import Mode, Policy
from tidegate.engine import act
from tidegate.engine.journal import Journal
from tidegate.engine.loop import Keeper, Ports
from tidegate.engine.settle import UNFENCED, SettleTime
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Reflector
from tidegate.model import endpointslice, service
from tidegate.model.names import DrainResult, Ending
from tidegate.model.service import Service
from tidegate.observers.coordinator import Ask, ask_of
from tidegate.observers.proxied import ProxiedAgents, ProxiedCoordinator, is_installed
from tidegate.traffic import every_endpoint, floors
from tidegate.vtime import Nursery

Told = Callable[[Drain], None]
TRIES = 10


async def drain_pod(
    client: KubeClient, namespace: str, name: str, options: VerbOptions | None = None, told: Told = lambda drain: None
) -> DrainResult:
    """Drain one pod and delete it. ``told`` hears of every state.

    Idempotent: a drain that was interrupted anywhere is continued. Raises ``KubeError`` (404: no such pod).
    """
    chosen = options or VerbOptions()
    plan = await plan_drain(client, namespace, name, chosen, await is_installed(client))
    return await carry_out(client, plan, chosen, told)


async def carry_out(
    client: KubeClient, plan: DrainPlan, options: VerbOptions, told: Told = lambda drain: None
) -> DrainResult:
    """Carry a plan out. A refusal changes nothing. Raises ``KubeError``."""
    refused = plan.refused(options)
    if refused:
        return DrainResult(Ending.REFUSED, "; ".join(refused))
    rng = random.Random() if options.seed is None else random.Random(f"{options.seed}/{plan.pod.uid}")
    origin = origin_of(plan, options, f"{rng.getrandbits(48):012x}")
    refusal = await _reserve(client, plan, options, origin.token) if plan.record is None else None
    if refusal is not None:
        return DrainResult(Ending.REFUSED, refusal)
    try:
        grip = LabelGrip(client, plan, options, origin)
        # A host-network pod's Services may send to a port that it does not declare.
        endpoints = tuple(sorted({*every_endpoint(plan.pod), *(plan.serving if plan.pod.host_network else ())}))
        ask = ask_of((plan.pod.uid, plan.pod.namespace, plan.pod.name), endpoints, Mode.LABEL)
        nonce = f"{origin.token}-{rng.getrandbits(24):06x}"
        keeper = _keeper(client, plan, options, msgspec.structs.replace(ask, round=nonce, seen=origin.seen), grip)
        keeper.told = told
        return await _keep(client, keeper, grip, options)
    finally:
        await _unreserve(client, plan.services, plan.pod.uid)


def _keeper(client: KubeClient, plan: DrainPlan, options: VerbOptions, ask: Ask, grip: LabelGrip) -> Keeper:
    # Nobody to read sockets: the app closes its own connections when told to stop, and the result says so.
    policy = Policy.ABRUPT if plan.is_witnessed else Policy.GRACEFUL
    subject, forced = str(plan.pod), plan.forced(options)
    drain = begin(subject, Mode.LABEL, policy, forced)
    if plan.record is not None:
        # The record may say sealed of labels that somebody has given back since.
        record = msgspec.structs.replace(plan.record, sealed=plan.record.sealed and is_tombstoned(plan.pod))
        drain = replace(resume(subject, record, forced), policy=policy)
    if plan.is_witnessed:
        connections = NodeConnections(ProxiedAgents(client), plan.pod.node, plan.serving)
        ports = Ports(ProxiedCoordinator(client), connections, Journal())
    else:
        ports = Ports(SettleTime(client, options.settle_seconds), NoConnections(), Journal())
    return Keeper(drain, ask, ports, grip, grip.seen)


async def _keep(client: KubeClient, keeper: Keeper, grip: LabelGrip, options: VerbOptions) -> DrainResult:
    """Run the keeper beside a watch of its pod; after the DELETE, watch the pod to its end."""
    pod = grip.seen.pod
    assert pod is not None
    watch = Reflector(client, PODS, Selection(pod.namespace, fields=f"metadata.name={pod.name}"))

    def seen(old: JsonObject | None, new: JsonObject | None) -> None:
        grip.seen.update(new)
        keeper.wake()

    watch.subscribe(seen)
    async with Nursery() as nursery:
        nursery.start(watch.run(), name=f"watch {pod}")
        result = await keeper.run()
        await keeper.watch_to_the_end(pod.grace_seconds + options.app_stop_seconds)
        nursery.cancel()
    # A settle time has no epoch that any data plane showed.
    is_settled = keeper.drain.epoch is not None and keeper.drain.epoch.install == UNFENCED.install
    return msgspec.structs.replace(result, epoch=None) if is_settled else result


# --- reservations ---


async def _reserve(client: KubeClient, plan: DrainPlan, options: VerbOptions, token: str) -> str | None:
    """Count this drain against the floor of every Service before anything is cut; a sentence when one forbids it."""
    done: list[Service] = []
    for planned in plan.services:
        refusal = await _reserve_one(client, plan, options, planned, token)
        if refusal is not None:
            await _unreserve(client, done, plan.pod.uid)
            return refusal
        done.append(planned)
    return None


async def _reserve_one(
    client: KubeClient, plan: DrainPlan, options: VerbOptions, planned: Service, token: str
) -> str | None:
    for _ in range(TRIES):
        current = service.decode(await client.get(SERVICES, planned.name, planned.namespace))
        slices = [endpointslice.decode(obj) for obj in (await client.list(ENDPOINTSLICES)).items]
        alive = {obj["metadata"]["uid"] for obj in (await client.list(PODS, Selection(planned.namespace))).items}
        held = {uid: held_by for uid, held_by in act.reservations(current).items() if uid in alive}
        kept = floors(plan.pod, [current], slices, options.floor, held)
        breached = [str(floor) for floor in kept if not floor.is_kept]
        if breached and not options.force:
            others = len(held) - (plan.pod.uid in held)
            return "; ".join(breached) + (f" ({others} other drains in flight count)" if others else "")
        try:
            await act.reserve(client, current, {**held, plan.pod.uid: token})
            return None
        except ApiError as error:
            if not error.is_conflict:
                raise
    return f"{planned} changes too often to be reserved: try again"


async def _unreserve(client: KubeClient, services: Iterable[Service], uid: str) -> None:
    """Take the reservation back; one that stays counts only for as long as the pod exists."""
    for planned in services:
        for _ in range(TRIES):
            try:
                current = service.decode(await client.get(SERVICES, planned.name, planned.namespace))
                held = act.reservations(current)
                if held.pop(uid, None) is not None:
                    await act.reserve(client, current, held)
                break
            except ApiError as error:
                if not error.is_conflict:
                    break
            except KubeError:
                break
