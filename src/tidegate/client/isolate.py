"""``isolate_pod``: its owner lets go of a pod and replaces it; the pod goes on serving, or is cut in the same write."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate import vtime
from tidegate.client.drain import Told, carry_out
from tidegate.client.guards import Guards, read_guards
from tidegate.client.holding import HeldByOther, Holding, told
from tidegate.client.keeping import LOOK_SECONDS, hold, newness, owned_by
from tidegate.client.labelled import origin_of
from tidegate.client.lease import is_at_work
from tidegate.client.ledger import chronicle_of
from tidegate.client.options import VerbOptions
from tidegate.client.permissions import Deed, review
from tidegate.client.plan import ISOLATED, PodPlan, Refusal, Step, label, plan_pod
from tidegate.drain.state import Mode
from tidegate.engine import owners
from tidegate.engine.observe import PodSeen
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Api, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.model import endpointslice, pod, service, workload
from tidegate.model.names import HELD, HELD_ISOLATED, DrainRecord, DrainResult, Ending, decode_drain
from tidegate.model.pod import Pod
from tidegate.model.workload import Workload
from tidegate.observers.proxied import is_installed
from tidegate.traffic import LabelCut, isolation, listings, not_isolated, selecting, serving_endpoints
from tidegate.traffic.labels import severance

ISOLATE_SECONDS = 60.0
"""An owner lets go and makes another pod within a second; what takes longer has a reason that is named."""
NOTHING = LabelCut({}, False, ())


@dataclass(frozen=True, slots=True)
class IsolationPlan(PodPlan):
    """``isolation`` is what will be set, None where it is set already. ``workload`` is the owner."""

    workload: Workload | None = None

    def steps(self, options: VerbOptions) -> tuple[Step, ...]:
        """What will be done, in order, each with its reason."""
        if self.refused(options):
            return ()
        changes = ", ".join(label(key, value) for key, value in self._labels().items())
        owner = str(self.workload) if self.workload is not None else "its owner"
        services = ", ".join(map(str, self.services))
        stays = f"{services} {'go' if len(self.services) > 1 else 'goes'} on sending to it" if services else ""
        return (
            Step(f"isolate: set {changes}" if changes else "isolate: nothing to change", self._why()),
            Step(f"wait until {owner} has let go of it and has made another", stays),
            Step(f"after {options.timeout_seconds:g} s it stays as it is, and what is missing is named"),
        )

    def _labels(self) -> Mapping[str, str | None]:
        return self.isolation.labels if self.isolation is not None else {}

    def _why(self) -> str:
        return "; ".join(self.isolation.reasons) if self.isolation is not None else "its owner has let go of it already"


async def isolate_pod(
    client: KubeClient,
    target: tuple[str, str],
    keep: bool,
    options: VerbOptions | None = None,
    told: Told = lambda drain: None,
) -> DrainResult:
    """Isolate the pod ``target`` (namespace, name); ``keep``: with its traffic. ``verified``: its owner has let go and
    another took its place; without traffic also that no new connection can arrive.

    Idempotent: what was interrupted anywhere is continued. Raises ``KubeError`` (404: no such pod).
    """
    chosen = options or VerbOptions(timeout_seconds=ISOLATE_SECONDS)
    if keep:
        return await carry_out_isolation(client, await plan_isolation(client, target, chosen), chosen)
    plan = await plan_severance(client, target, chosen, await is_installed(client))
    return await carry_out(client, plan, chosen, told)


async def plan_isolation(api: Api, target: tuple[str, str], options: VerbOptions) -> IsolationPlan:
    """Look, and plan an isolation that keeps the traffic; changes nothing. Raises ``KubeError``, ``Malformed``."""
    namespace, name = target
    subject = pod.decode(await api.get(PODS, name, namespace))
    listed = (service.decode(obj) for obj in (await api.list(SERVICES, Selection(namespace))).items)
    services = tuple(one for one in listed if not one.is_draining)
    slices = tuple(endpointslice.decode(obj) for obj in (await api.list(ENDPOINTSLICES, Selection(namespace))).items)
    controllers = tuple(one for one in await owners.of(api, subject) if not one.is_ending)
    owner = controllers[0] if controllers else None
    record = _held(subject)
    found = isolation(subject, services, owner)
    labels = found.labels if found is not None else {}
    guards = await read_guards(api, namespace, controllers)
    patching = Deed("patch", "pods", namespace)
    refusals = _of_itself(subject, record, options)
    if (await review(api, (patching,)))[patching] is False:
        refusals.append(Refusal(f"these credentials may not {patching}"))
    if found is None and record is None:
        refusals.append(_impossible(subject, not_isolated(subject, services, owner), owner))
    refusals += _guarded(guards, subject, labels)
    return IsolationPlan(
        verb="isolate",
        pod=subject,
        cut=NOTHING,
        isolation=found,
        services=selecting(subject, services),
        serving=serving_endpoints(subject, slices),
        seen=tuple(sorted({one.service for one in listings(subject, slices)} | set(record.seen if record else ()))),
        refusals=tuple(refusals),
        consequences=() if found is None else (*_replaced(owner), *guards.consequences(subject, labels, True)),
        is_witnessed=False,
        owner="" if subject.owner is None else f"{subject.owner.kind}/{subject.owner.name}/{subject.owner.uid}",
        record=record,
        workload=owner,
    )


async def plan_severance(api: Api, target: tuple[str, str], options: VerbOptions, is_witnessed: bool) -> PodPlan:
    """Plan an isolation that takes the traffic off in the same write. Raises ``KubeError``, ``Malformed``."""
    plan = await plan_pod(api, target, "isolate", options, is_witnessed)
    if plan.record is not None and plan.pod.owner is None:
        return plan  # let go already: what is left is a cut
    listed = (service.decode(obj) for obj in (await api.list(SERVICES, Selection(plan.pod.namespace))).items)
    services = tuple(one for one in listed if not one.is_draining)
    controllers = tuple(one for one in await owners.of(api, plan.pod) if not one.is_ending)
    owner = controllers[0] if controllers else None
    found = severance(plan.pod, services, owner)
    if found is None:
        # With its traffic off, no Service stands in the way: it is the owner itself that cannot let go.
        refusal = _impossible(plan.pod, not_isolated(plan.pod, (), owner), owner)
        return dataclasses.replace(plan, refusals=(*plan.refusals, refusal))
    added = {key: value for key, value in found.labels.items() if key not in plan.cut.labels}
    guards = await read_guards(api, plan.pod.namespace, controllers) if added else Guards()
    return dataclasses.replace(
        plan,
        cut=found,
        refusals=(*plan.refusals, *_guarded(guards, plan.pod, added)),
        consequences=(*_replaced(owner), *(one for one in plan.consequences if one not in _of_cut(plan, owner))),
    )


def _of_cut(plan: PodPlan, owner: Workload | None) -> tuple[str, ...]:
    """What a plain cut says of the owner, and an isolation says otherwise."""
    return (f"{owner} replaces it when it is deleted", f"{owner} lets go of the pod and makes a replacement at once")


async def carry_out_isolation(client: KubeClient, plan: IsolationPlan, options: VerbOptions) -> DrainResult:
    """Carry an isolation that keeps the traffic out. A refusal changes nothing. Raises ``KubeError``."""
    refused = plan.refused(options)
    if refused:
        return DrainResult(Ending.REFUSED, "; ".join(refused))
    rng = random.Random() if options.seed is None else random.Random(f"{options.seed}/{plan.pod.uid}")
    origin = origin_of(plan, options, f"{rng.getrandbits(48):012x}")
    holding = Holding(client, PodSeen(plan.pod.uid, plan.pod), origin, options.identity)
    try:
        async with holding.leased():
            result = await _Isolation(client, options, holding, plan.isolation or NOTHING).run()
            chronicle_of(client, plan, options, origin.token).conclude(result)
            return result
    except HeldByOther as other:
        return DrainResult(Ending.REFUSED, str(other))


class _Isolation:
    """One pod on its way out of its owner's hands."""

    def __init__(self, client: KubeClient, options: VerbOptions, holding: Holding, found: LabelCut) -> None:
        self._client = client
        self._options = options
        self._holding = holding
        self._labels = {**holding.record.changed, **found.labels, HELD: HELD_ISOLATED}

    async def run(self) -> DrainResult:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            if not await self._hold():
                return DrainResult(Ending.BYPASSED, "somebody else deleted the pod meanwhile")
            is_done, why = await self._look()
            seconds = round(loop.time() - began, 3)
            if is_done:
                return DrainResult(Ending.VERIFIED, why, seconds=seconds)
            if seconds >= self._options.timeout_seconds:
                return DrainResult(Ending.TIMED_OUT, f"it stays isolated: {why}", seconds=seconds)
            await asyncio.sleep(LOOK_SECONDS)

    async def _hold(self) -> bool:
        """See to it that its labels stand; False once it is on its way out. Raises ``HeldByOther``."""
        return await hold(self._client, self._holding, self._labels, ISOLATED)

    async def _look(self) -> tuple[bool, str]:
        """Whether its owner has let go and has another, in a sentence either way."""
        kind, name, uid = self._holding.record.owner.split("/")
        found = self._holding.pod.owner
        if found is not None and found.uid == uid:
            return False, f"{kind} {self._holding.pod.namespace}/{name} has not let go of it yet"
        try:
            obj = await self._client.get(owners.KINDS[kind], name, self._holding.pod.namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return True, f"{kind} {name} is gone: there is no replacement"
        owner = workload.decode({"kind": kind, **obj})
        let_go = f"{owner} has let go of it"
        if owner.uid != uid or owner.is_ending or not owner.replicas:
            return True, f"{let_go} and wants no other"
        owned = await owned_by(self._client, owner)
        if len(owned) < owner.replicas:
            return False, f"{let_go}, and has {len(owned)} of {owner.replicas} pods"
        newest = max(owned, key=newness)
        readiness = "" if newest.is_ready else ", not ready yet"
        return True, f"{let_go}, pod/{newest.name} took its place{readiness}"


def _held(subject: Pod) -> DrainRecord | None:
    record = decode_drain(subject.annotations)
    return record if record is not None and record.mode == Mode.LABEL.value and record.labels else None


def _of_itself(subject: Pod, record: DrainRecord | None, options: VerbOptions) -> list[Refusal]:
    found = []
    if subject.is_terminating or subject.is_finished:
        found.append(Refusal(f"{subject} {'is being deleted' if subject.is_terminating else 'has ended'} already"))
    if record is not None and is_at_work(record, options.identity, vtime.now()):
        found.append(Refusal(told(subject, record), way_out="wait for its end, or for the end of that process"))
    elif record is not None and record.state != ISOLATED:
        found.append(
            Refusal(
                told(subject, record),
                way_out=f"`tidegate restore pod/{subject.name} -n {subject.namespace}` gives it back",
            )
        )
    return found


def _impossible(subject: Pod, why: str, owner: Workload | None) -> Refusal:
    """Which of the other verbs gets the pod out of traffic."""
    if owner is None or owner.kind != "ReplicaSet":
        return Refusal(
            why,
            way_out=f"`tidegate cut pod/{subject.name} -n {subject.namespace}` takes it out of traffic and keeps it",
        )
    return Refusal(why, way_out="`--cut-traffic` takes its traffic off too")


def _guarded(guards: Guards, subject: Pod, labels: Mapping[str, str | None]) -> list[Refusal]:
    severed = [
        Refusal(why, way_out="let the policy select by another label") for why in guards.severed(subject, labels)
    ]
    return [*severed, *map(Refusal, guards.unread)]


def _replaced(owner: Workload | None) -> tuple[str, ...]:
    if owner is None:
        return ()
    if not owner.replicas:
        return (f"{owner} wants no pods: it makes no replacement",)
    return (f"{owner} lets go of the pod and makes a replacement at once",)
