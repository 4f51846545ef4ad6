"""``drain_pod``: take a pod out of its Services, verify that everybody has let go, then delete it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from tidegate.client.activity import annotate, is_probed, probed
from tidegate.client.holding import HeldByOther, Holding
from tidegate.client.labelled import LabelGrip, NoConnections, NodeConnections, is_tombstoned, origin_of
from tidegate.client.ledger import chronicle_of
from tidegate.client.options import VerbOptions
from tidegate.client.plan import ISOLATED, PodPlan, plan_pod
from tidegate.client.replacement import make_way
from tidegate.client.reservation import sweep, unreserve
from tidegate.client.scraping import see_to
from tidegate.drain.progress import Drain, begin, resume
from tidegate.drain.state import Mode, Policy, State
from tidegate.engine.chronicle import Chronicle, InFlight
from tidegate.engine.journal import Journal
from tidegate.engine.loop import Keeper, Ports
from tidegate.engine.observe import PodSeen
from tidegate.engine.settle import UNFENCED, SettleTime
from tidegate.kube.api import PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.patience import within
from tidegate.kube.reflector import Reflector
from tidegate.model.names import DrainResult, Ending, decode_drain
from tidegate.observers.coordinator import ask_of
from tidegate.observers.proxied import ProxiedAgents, ProxiedCoordinator, is_installed
from tidegate.traffic import every_endpoint
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
    try:
        plan = await plan_pod(client, (namespace, name), "drain", chosen, await is_installed(client))
    except ApiError as error:
        if error.is_not_found:
            await sweep(client, namespace)
            await see_to(client, namespace)
        raise
    return await carry_out(client, plan, chosen, told)


async def carry_out(
    client: KubeClient, plan: PodPlan, options: VerbOptions, told: Told = lambda drain: None
) -> DrainResult:
    """Carry a plan out. A refusal changes nothing. Raises ``KubeError``."""
    refused = plan.refused(options)
    if refused:
        return DrainResult(Ending.REFUSED, "; ".join(refused))
    rng = random.Random() if options.seed is None else random.Random(f"{options.seed}/{plan.pod.uid}")
    origin = origin_of(plan, options, f"{rng.getrandbits(48):012x}")
    holding = Holding(client, PodSeen(plan.pod.uid, plan.pod), origin, options.identity)
    try:
        async with holding.leased():
            with within(options.timeout_seconds):
                ready = await make_way(client, plan, options, holding, told)
            if isinstance(ready, DrainResult):
                chronicle_of(client, plan, options, origin.token).conclude(ready)
                return ready
            await annotate(client, holding.seen, options)
            nonce = f"{origin.token}-{rng.getrandbits(24):06x}"
            grip = LabelGrip(client, ready, options, holding)
            keeper = _keeper(client, ready, options, grip, nonce)
            keeper.told = told
            with chronicle_of(client, ready, options, origin.token) as chronicle:
                keeper.heard = chronicle.follow(_in_flight(client, ready) if ready.is_witnessed else None)
                grip.ending = _written_down(chronicle, options)
                with within(options.timeout_seconds):
                    return _with_way_on(await _kept(client, keeper, options, chronicle), holding)
    except HeldByOther as other:
        return DrainResult(Ending.REFUSED, str(other))
    finally:
        # A run before ours may have made the reservation and died: whoever holds the pod takes it back.
        found = decode_drain(holding.pod.annotations)
        is_ours = found is not None and found.token == holding.record.token
        await unreserve(client, plan.services, plan.pod.uid, "" if is_ours else origin.token)
        await see_to(client, plan.pod.namespace)


def _with_way_on(result: DrainResult, holding: Holding) -> DrainResult:
    """A deadline that gave a pod back gave it its traffic only, where another stands in for it."""
    if holding.record.state != ISOLATED or holding.seen.is_gone:
        return result
    where = f"pod/{holding.pod.name} -n {holding.pod.namespace}"
    way_on = f"its traffic was given back, `tidegate restore {where}` gives it to its owner"
    return msgspec.structs.replace(result, reason=f"{result.reason}; {way_on}")


def _keeper(client: KubeClient, plan: PodPlan, options: VerbOptions, grip: LabelGrip, nonce: str) -> Keeper:
    # A host-network pod's Services may send to a port that it does not declare.
    endpoints = tuple(sorted({*every_endpoint(plan.pod), *(plan.serving if plan.pod.host_network else ())}))
    ask = ask_of((plan.pod.uid, plan.pod.namespace, plan.pod.name), endpoints, Mode.LABEL)
    # A pod that is to stay in other Services is routed for ever: only those it leaves are asked about.
    only = tuple(sorted(map(str, plan.services))) if options.services else ()
    ask = msgspec.structs.replace(ask, round=nonce, seen=grip.record.seen, services=only)
    # Nobody to read sockets: the app closes its own connections when told to stop, and the result says so.
    # An activity probe is the workload's own word: it is waited for with or without agents.
    policy = Policy.ABRUPT if plan.is_witnessed or is_probed(grip.seen) else Policy.GRACEFUL
    subject, forced = str(plan.pod), grip.record.forced
    drain = begin(subject, Mode.LABEL, policy, forced)
    if plan.record is not None:
        # The record may say sealed of labels that somebody has given back since.
        record = msgspec.structs.replace(plan.record, sealed=plan.record.sealed and is_tombstoned(plan.pod))
        drain = replace(resume(subject, record, forced), policy=policy)
    if plan.is_witnessed:
        sockets = NodeConnections(ProxiedAgents(client), plan.pod.node, plan.serving)
        ports = Ports(ProxiedCoordinator(client), probed(client, grip.seen, sockets, True), Journal())
    else:
        connections = probed(client, grip.seen, NoConnections(), False)
        ports = Ports(SettleTime(client, options.settle_seconds), connections, Journal())
    keeper = Keeper(drain, ask, ports, grip, grip.seen)
    keeper.goal = State.GONE if plan.verb == "drain" else State.UNROUTED
    return keeper


def _written_down(chronicle: Chronicle, options: VerbOptions) -> Callable[[Drain, DrainResult], Awaitable[None]]:
    """The pod ends, and its record goes with it: the ledger has it first."""

    async def ending(drain: Drain, result: DrainResult) -> None:
        chronicle.conclude(result, drain)
        if options.ledger is not None:
            await options.ledger.settled()

    return ending


def _in_flight(client: KubeClient, plan: PodPlan) -> InFlight:
    """The pod's connections, for the ledger: what its own word is, the drain asks later."""
    sockets = NodeConnections(ProxiedAgents(client), plan.pod.node, plan.serving)
    return lambda: sockets.read(every_endpoint(plan.pod))


async def _kept(client: KubeClient, keeper: Keeper, options: VerbOptions, chronicle: Chronicle) -> DrainResult:
    """What came of it; also where the API takes nothing for longer than the deadline, and the pod stands cut."""
    try:
        return await _keep(client, keeper, options, chronicle)
    except KubeError as error:
        is_denied = isinstance(error, ApiError) and error.code == 403
        if is_denied or keeper.drain.state is State.SERVING:
            raise
        state = keeper.drain.state.name.lower()
        reason = f"the API took nothing more ({error}): it stands at {state}, the same command again goes on"
        result = DrainResult(Ending.TIMED_OUT, reason)
        chronicle.conclude(result, keeper.drain)
        return result


async def _keep(client: KubeClient, keeper: Keeper, options: VerbOptions, chronicle: Chronicle) -> DrainResult:
    """Run the keeper beside a watch of its pod; after a DELETE, watch the pod to its end."""
    pod = keeper.pod.pod
    assert pod is not None
    watch = Reflector(client, PODS, Selection(pod.namespace, fields=f"metadata.name={pod.name}"))

    def seen(old: JsonObject | None, new: JsonObject | None) -> None:
        keeper.pod.update(new)
        keeper.wake()

    watch.subscribe(seen)
    async with Nursery() as nursery:
        nursery.start(watch.run(), name=f"watch {pod}")
        result = await keeper.run()
        chronicle.conclude(result, keeper.drain)
        await keeper.watch_to_the_end(pod.grace_seconds + options.app_stop_seconds)
        nursery.cancel()
    # A settle time has no epoch that any data plane showed.
    is_settled = keeper.drain.epoch is not None and keeper.drain.epoch.install == UNFENCED.install
    return msgspec.structs.replace(result, epoch=None) if is_settled else result
