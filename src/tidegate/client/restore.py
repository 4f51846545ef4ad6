"""``restore_pod``: a held pod gets its labels back, and the pod that stood in for it is drained, verified.

Every step looks anew and may be done twice, so a run that was killed anywhere is continued by the next, on any machine:
what stands where is in the pod's record (state, ``peers``) and in its labels.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping

import msgspec

from tidegate import vtime
from tidegate.client.drain import Told, carry_out
from tidegate.client.holding import HeldByOther, Holding
from tidegate.client.keeping import LOOK_SECONDS, hold, owned_by
from tidegate.client.labelled import origin_of
from tidegate.client.ledger import chronicle_of
from tidegate.client.options import VerbOptions
from tidegate.client.plan import ISOLATED, PodPlan, plan_pod
from tidegate.client.reservation import sweep, unreserve
from tidegate.client.returning import (
    ADOPTED,
    RestorePlan,
    controllers_of,
    is_superseded,
    plan_restore,
    victim_of,
)
from tidegate.client.scraping import see_to
from tidegate.drain.progress import Drain
from tidegate.drain.state import State
from tidegate.engine import act
from tidegate.engine.observe import PodSeen
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.model import endpointslice, pod, service
from tidegate.model.names import HELD, HELD_ISOLATED, DrainRecord, DrainResult, Ending
from tidegate.model.pod import Pod
from tidegate.observers.proxied import is_installed
from tidegate.traffic import isolation, listings, selecting

ROOM_TRIES = 3
RESTORE_SECONDS = 300.0
"""As long as a drain may take: the pod that goes is waited for."""


async def restore_pod(
    client: KubeClient, target: tuple[str, str], options: VerbOptions | None = None, victim: str = ""
) -> DrainResult:
    """Give the pod ``target`` (namespace, name) its labels back; ``victim`` names the pod that goes in its place.

    ``verified``: it is listed as ready by all its Services, and who went was drained verified. Raises ``KubeError``.
    """
    chosen = options or VerbOptions(timeout_seconds=RESTORE_SECONDS)
    plan = await plan_restore(client, target, chosen, await is_installed(client), victim)
    return await carry_out_restore(client, plan, chosen)


async def carry_out_restore(
    client: KubeClient, plan: RestorePlan, options: VerbOptions, told: Told = lambda drain: None
) -> DrainResult:
    """Carry a plan out; ``told`` hears of the drain of the one that goes. A refusal changes nothing.

    Raises ``KubeError``.
    """
    refused = plan.refused(options)
    if refused:
        return DrainResult(Ending.REFUSED, "; ".join(refused))
    assert plan.record is not None
    origin = msgspec.structs.replace(origin_of(plan, options, plan.record.token), at=act.instant(vtime.now()), until="")
    holding = Holding(client, PodSeen(plan.pod.uid, plan.pod), origin, options.identity)
    restoration = _Restoration(client, plan, options, holding)
    restoration.told = told
    began = asyncio.get_running_loop().time()
    chronicle = chronicle_of(client, plan, options, origin.token)
    try:
        async with holding.leased():
            result = await restoration.run()
    except HeldByOther as other:
        return DrainResult(Ending.REFUSED, str(other))
    finally:
        await see_to(client, plan.pod.namespace)
    result = msgspec.structs.replace(result, seconds=round(asyncio.get_running_loop().time() - began, 3))
    chronicle.conclude(result)
    return result


class _Stopped(Exception):
    """It does not go on from here; ``result`` says why, and how things stand."""

    def __init__(self, result: DrainResult) -> None:
        super().__init__(result.reason)
        self.result = result


class _Restoration:
    """One pod on its way back."""

    def __init__(self, client: KubeClient, plan: RestorePlan, options: VerbOptions, holding: Holding) -> None:
        self.told: Told = lambda drain: None
        self._client = client
        self._plan = plan
        self._options = options
        self._holding = holding
        self._deadline = asyncio.get_running_loop().time() + options.timeout_seconds
        self._ended: list[DrainResult] = []
        self._peers: tuple[str, ...] = ()

    async def run(self) -> DrainResult:
        plan = self._plan
        try:
            if plan.workload is None:
                await self._give({**plan.cut.labels, HELD: None}, {}, ADOPTED)
            elif plan.isolation is not None:
                await self._change_places()
            elif plan.victim is not None:
                await self._follow_victim(plan.victim)
            else:
                await self._give(plan.cut.labels, {}, ADOPTED)
            await self._until_adopted()
            await self._until_listed()
            await self._unreserve()
            for peer in self._holding.record.peers:
                await self._drain(*peer.split("/"))
        except _Stopped as stopped:
            return stopped.result
        await self._finish()
        return self._result()

    async def _change_places(self) -> None:
        """Its Services first, then the victim out of its owner's hands, then this one into them: of the two writes the
        victim's must come first, or the owner deletes one that nobody has drained."""
        plan = self._plan
        assert plan.isolation is not None
        apart = {**plan.isolation.labels, HELD: HELD_ISOLATED}
        if plan.victim is not None:
            self._note(plan.victim)
        await self._give({**plan.cut.labels, **apart}, apart, ISOLATED)
        await self._until_listed()
        replicas = await self._wanted()
        async with contextlib.AsyncExitStack() as parted:
            for peer in self._holding.record.peers:
                await self._part(parted, *peer.split("/"))
            for _ in range(ROOM_TRIES):
                if await self._has_room(replicas):
                    # What is not ready now has a second to become so: this write must not wait for anything.
                    await self._give({**plan.isolation_undone(), HELD: None}, {}, ADOPTED)
                    return
                another = await self._another()
                self._note(another)
                await self._give(apart, apart, ISOLATED)
                await self._part(parted, another.name, another.uid)
        reason = f"{plan.workload} makes ready pods faster than two can change places: it stays isolated"
        raise _Stopped(DrainResult(Ending.TIMED_OUT, reason))

    async def _follow_victim(self, victim: Pod) -> None:
        """No label keeps its owner away while it serves: it comes back in the moment the victim's cut stands."""
        plan = self._plan
        self._note(victim)
        await self._give({}, plan.record.changed if plan.record is not None else {}, self._holding.record.state)
        is_cut = asyncio.Event()

        def told(drain: Drain) -> None:
            if drain.state is not State.SERVING:
                is_cut.set()

        its = await self._drain_plan(victim.name)
        if its is None:
            return
        assert plan.parting is not None
        its = dataclasses.replace(its, cut=plan.parting) if its.record is None else its
        draining = asyncio.ensure_future(carry_out(self._client, its, self._its_options(), told))
        cutting = asyncio.ensure_future(is_cut.wait())
        try:
            await asyncio.wait((draining, cutting), return_when=asyncio.FIRST_COMPLETED)
            if not is_cut.is_set():
                raise _Stopped(await draining)
            await self._give({**plan.cut.labels, HELD: None}, {}, ADOPTED)
            self._ended.append(await draining)
        finally:
            cutting.cancel()
            draining.cancel()
            await asyncio.gather(draining, cutting, return_exceptions=True)

    # --- the pod itself ---

    def _note(self, victim: Pod) -> None:
        """With the next write: who goes."""
        record, peer = self._holding.record, f"{victim.name}/{victim.uid}"
        if peer not in record.peers:
            self._holding.record = msgspec.structs.replace(record, peers=(*record.peers, peer))

    async def _give(self, labels: Mapping[str, str | None], ours: Mapping[str, str | None], state: str) -> None:
        """Set ``labels``; those that are ``ours`` still differ from before."""
        self._holding.record = msgspec.structs.replace(self._holding.record, changed=dict(ours), sealed=False)
        if not await hold(self._client, self._holding, labels, state, ours):
            raise _Stopped(DrainResult(Ending.BYPASSED, "somebody else deleted the pod meanwhile"))

    async def _until_adopted(self) -> None:
        """Until its owner has it again."""
        owner = self._plan.workload
        while owner is not None:
            await self._give({}, {}, ADOPTED)
            if self._holding.pod.owner is not None:
                return
            await self._wait(f"{owner} has not adopted it yet")

    async def _until_listed(self) -> None:
        """Until every Service that selects it has it in a slice, ready."""
        namespace = self._holding.pod.namespace
        while True:
            self._holding.check()
            found = (service.decode(one) for one in (await self._client.list(SERVICES, Selection(namespace))).items)
            services = [one for one in found if not one.is_draining]
            slices = [
                endpointslice.decode(one)
                for one in (await self._client.list(ENDPOINTSLICES, Selection(namespace))).items
            ]
            subject = pod.decode(await self._client.get(PODS, self._holding.pod.name, namespace))
            ready = {one.service for one in listings(subject, slices) if one.endpoint.is_ready}
            missing = [str(one) for one in selecting(subject, services) if str(one) not in ready]
            if not missing:
                return
            await self._wait(f"not listed as ready by {', '.join(missing)} yet")

    async def _unreserve(self) -> None:
        """What a run that was killed had reserved for it counts against the floor for as long as it lives."""
        uid = self._holding.pod.uid
        found = (await self._client.list(SERVICES, Selection(self._holding.pod.namespace))).items
        services = [one for one in map(service.decode, found) if uid in act.reservations(one)]
        await unreserve(self._client, services, uid)

    async def _wait(self, why: str) -> None:
        if asyncio.get_running_loop().time() >= self._deadline:
            raise _Stopped(DrainResult(Ending.TIMED_OUT, f"{why}; run it again to go on"))
        await asyncio.sleep(LOOK_SECONDS)

    async def _finish(self) -> None:
        """The record says no more than that it was given back, by whom and when."""
        held = self._holding.record
        self._peers = held.peers
        over = DrainRecord(held.token, State.RESTORED.name, held.mode, act.instant(vtime.now()), verb="restore")
        self._holding.record = msgspec.structs.replace(over, by=held.by)
        await hold(self._client, self._holding, {}, State.RESTORED.name, {})

    # --- those that go in its place ---

    async def _wanted(self) -> int:
        """How many pods its owner wants now."""
        chain = await controllers_of(self._client, self._holding.pod, self._holding.record)
        owner = chain[0]
        if owner.is_ending or not owner.replicas or (len(chain) > 1 and is_superseded(*chain[:2])):
            reason = f"{owner} would not keep it any more: it stays isolated, with its traffic"
            raise _Stopped(DrainResult(Ending.TIMED_OUT, reason))
        return owner.replicas

    async def _has_room(self, replicas: int) -> bool:
        """Whether its owner, given this one, deletes at most one that is not ready."""
        assert self._plan.workload is not None
        owned = await owned_by(self._client, self._plan.workload)
        return len(owned) < replicas or not all(one.is_ready for one in owned)

    async def _another(self) -> Pod:
        """Its owner has made a ready one while we were not looking: it goes too."""
        assert self._plan.workload is not None
        found = victim_of(await owned_by(self._client, self._plan.workload))
        if found is None:
            raise _Stopped(DrainResult(Ending.TIMED_OUT, f"every pod of {self._plan.workload} is held"))
        return found

    async def _part(self, parted: contextlib.AsyncExitStack, name: str, uid: str) -> None:
        """Its owner lets go of the victim, which serves on until it is drained; ours until ``parted`` is left."""
        its = await self._drain_plan(name, uid)
        if its is None or its.record is not None or its.pod.owner is None:
            return
        services = (await self._client.list(SERVICES, Selection(its.pod.namespace))).items
        apart = isolation(its.pod, map(service.decode, services), self._plan.workload)
        if apart is None:
            raise _Stopped(DrainResult(Ending.TIMED_OUT, f"pod/{name}: its owner cannot let go of it any more"))
        origin = msgspec.structs.replace(origin_of(its, self._its_options(), self._token(uid)), state=ISOLATED)
        holding = Holding(self._client, PodSeen(its.pod.uid, its.pod), origin, self._options.identity)
        await parted.enter_async_context(holding.leased())
        await hold(self._client, holding, {**apart.labels, HELD: HELD_ISOLATED}, ISOLATED)

    async def _drain(self, name: str, uid: str) -> None:
        its = await self._drain_plan(name, uid)
        if its is None:
            # A run that was killed after the DELETE has left its reservations.
            await sweep(self._client, self._holding.pod.namespace)
            return
        result = await carry_out(self._client, its, self._its_options(), self.told)
        self._ended.append(result)
        if await self._drain_plan(name, uid) is not None:
            reason = f"it is restored, pod/{name} is still to be drained: {result}; run it again to go on"
            raise _Stopped(DrainResult(Ending.TIMED_OUT, reason, result.stragglers, result.epoch))

    async def _drain_plan(self, name: str, uid: str = "") -> PodPlan | None:
        """None where that pod is gone."""
        target = (self._holding.pod.namespace, name)
        try:
            found = await plan_pod(self._client, target, "drain", self._its_options(), self._plan.is_witnessed)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return None
        return None if uid not in ("", found.pod.uid) else found

    def _its_options(self) -> VerbOptions:
        left = max(self._deadline - asyncio.get_running_loop().time(), 1.0)
        reason = f"pod/{self._holding.pod.name} was given back in its place"
        return dataclasses.replace(
            self._options, timeout_seconds=left, replace=False, reason=reason, services=(), on_deadline="hold"
        )

    def _token(self, uid: str) -> str:
        """The victim's own, drawn from ours: a second run draws the same."""
        return f"{self._holding.record.token[:6]}{uid[-6:]}"

    def _result(self) -> DrainResult:
        """Only as good as the drains that made room."""
        names = ", ".join(f"pod/{peer.partition('/')[0]}" for peer in self._peers)
        reason = f"{names} went in its place" if names else ""
        for one in self._ended:
            if one.result is not Ending.VERIFIED:
                return msgspec.structs.replace(one, reason=f"{reason}: {one.reason}")
        epochs = [one.epoch for one in self._ended if one.epoch is not None]
        return DrainResult(Ending.VERIFIED, reason, epoch=max(epochs, default=None))
