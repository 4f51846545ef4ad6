"""Whether an owner has as many ready pods as it wants, each routed wherever it should be: what is missing, in words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from tidegate import vtime
from tidegate.client.plan import PodPlan
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.drain.excuse import excuse_of
from tidegate.engine.owners import KINDS
from tidegate.kube.api import ENDPOINTSLICES, NODES, PODS, SERVICES, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import endpointslice, node, pod, service, workload
from tidegate.model.endpoint import Endpoint, canonical
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload
from tidegate.observers.proxied import ProxiedAgents
from tidegate.observers.witness import Question
from tidegate.traffic import held, selecting, slices_of

Address = tuple[str, int, str]
"""A Service's (address, port, protocol)."""
FAMILIES = {"IPv4": ".", "IPv6": ":"}


class Capacity:
    """Asks about the owner and the Services of one plan. ``is_whole``: it had all its ready pods at the last look."""

    def __init__(self, client: KubeClient, plan: PodPlan, settle_seconds: float) -> None:
        self.is_whole = False
        self._client = client
        self._agents = ProxiedAgents(client)
        self._plan = plan
        self._settle_seconds = settle_seconds
        self._listed_at: float | None = None
        self._owner = plan.owner or (plan.record.owner if plan.record is not None else "")

    async def missing(self) -> tuple[str, ...]:
        """A sentence for each thing that is not there yet; empty once capacity is whole, or nobody makes it so.

        Raises ``KubeError``, ``Malformed``.
        """
        found = await self._missing()
        if found or self._plan.is_witnessed:
            return found
        # Nobody can be asked what is routed: what is listed is given the settle time, and the result is assumed.
        now = asyncio.get_running_loop().time()
        self._listed_at = now if self._listed_at is None else self._listed_at
        left = self._listed_at + self._settle_seconds - now
        return (f"nobody to ask whether it is routed: {left:.0f} s of the settle time are left",) if left > 0 else ()

    async def _missing(self) -> tuple[str, ...]:
        namespace, listed_at = self._plan.pod.namespace, self._listed_at
        self._listed_at = None
        obj, owner = await self._read_owner()
        if obj is None or owner is None:
            self.is_whole = True
            return ()
        raw = (await self._client.list(PODS, Selection(namespace))).items
        owned = [one for one in map(pod.decode, raw) if self._is_of(one, owner)]
        free = [one for one in owned if held(one) is None]
        wanted = (owner.desired if owner.kind == "DaemonSet" else owner.replicas or 0) - (len(owned) - len(free))
        ready = [one for one in free if one.is_ready]
        self.is_whole = len(ready) >= wanted
        if not self.is_whole:
            states = {one["metadata"]["uid"]: one for one in raw}
            why = tuple(f"{one} {_state(states[one.uid])}" for one in free if not one.is_ready)
            return (f"{owner} has {len(ready)} of {max(wanted, 0)} ready pods", *(why or _failure(obj)))
        unserved = await self._unserved(ready)
        if len(ready) - len(unserved) >= wanted:
            self._listed_at = listed_at
            return ()
        return tuple(why for one in ready for why in unserved.get(one.uid, ()))

    async def _read_owner(self) -> tuple[JsonObject | None, Workload | None]:
        """The owner as recorded; None where it is gone, going, or makes no replacement that we know of."""
        kind, _, rest = self._owner.partition("/")
        name, _, uid = rest.rpartition("/")
        if kind not in KINDS:
            return None, None
        try:
            obj = await self._client.get(KINDS[kind], name, self._plan.pod.namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return None, None
        found = workload.decode({"kind": kind, **obj})
        return (None, None) if found.uid != uid or found.is_ending else (obj, found)

    def _is_of(self, one: Pod, owner: Workload) -> bool:
        """Whether it counts as one of the owner's: not the pod that leaves, nor one on its way out."""
        is_owned = one.owner is not None and one.owner.uid == owner.uid and one.uid != self._plan.pod.uid
        return is_owned and not one.is_terminating and not one.is_finished

    async def _unserved(self, ready: list[Pod]) -> dict[str, tuple[str, ...]]:
        """Why each of these pods does not get the traffic of our Services yet, by uid."""
        namespace = self._plan.pod.namespace
        names = {one.name for one in self._plan.services}
        decoded = map(service.decode, (await self._client.list(SERVICES, Selection(namespace))).items)
        services = tuple(one for one in decoded if one.name in names)
        slices = [
            endpointslice.decode(one) for one in (await self._client.list(ENDPOINTSLICES, Selection(namespace))).items
        ]
        found: dict[str, tuple[str, ...]] = {}
        for one in ready:
            absent = [each for each in selecting(one, services) if not _is_listed(one, each, slices)]
            if absent:
                found[one.uid] = tuple(f"{one} is not listed ready by {each} yet" for each in absent)
        listed = [one for one in ready if one.uid not in found]
        if self._plan.is_witnessed and listed and services:
            found |= await self._unrouted(listed, services, slices)
        return found

    async def _unrouted(
        self, listed: list[Pod], services: tuple[Service, ...], slices: list[EndpointSlice]
    ) -> dict[str, tuple[str, ...]]:
        """Presence in a node's own table is the proof of presence. Every node is asked once about all of them."""
        nodes = [node.decode(one) for one in (await self._client.list(NODES)).items]
        excuses = {one.name: excuse_of(one, vtime.now()) for one in nodes}
        names = sorted(excuses)
        asked = tuple(sorted({Endpoint(ip) for one in listed for ip in one.ips}))
        facts = dict(zip(names, await asyncio.gather(*(self._facts(name, asked) for name in names)), strict=True))
        for name, excuse in excuses.items():  # a word stands in for silence only
            if excuse is not None and excuse.says != "standing" and facts[name].unreadable and not facts[name].dump:
                del facts[name]
        found: dict[str, tuple[str, ...]] = {}
        for one in listed:
            why = [line for each in selecting(one, services) for line in _absent(one, each, slices, facts)]
            if why:
                found[one.uid] = tuple(why)
        return found

    async def _facts(self, name: str, asked: tuple[Endpoint, ...]) -> Facts:
        try:
            return (await self._agents.ask(name, Question(asked))).facts
        except KubeError as error:
            return Facts(name, "", unreadable=(Unreadable(str(error)),))


def _is_listed(one: Pod, by: Service, slices: Iterable[EndpointSlice]) -> bool:
    return any(entry.uid == one.uid and entry.is_ready for each in slices_of(by, slices) for entry in each.endpoints)


def _absent(one: Pod, by: Service, slices: Iterable[EndpointSlice], facts: dict[str, Facts]) -> Iterator[str]:
    """The nodes whose tables lack it under an address of ``by``; of those that keep to a node or zone, one must do."""
    for address, at in _frontends(one, by, slices):
        holders = [name for name, seen in facts.items() if _has(seen, address, at)]
        if by.is_local_internally:
            wanted = [name for name in facts if name == one.node]
        elif by.keeps_to:
            wanted = [] if holders else list(facts)
        else:
            wanted = list(facts)
        for name in wanted:
            if name not in holders:
                doubt = facts[name].unreadable
                yield f"{name} cannot be asked: {doubt[0]}" if doubt else f"{one} is not routed by {name} yet"


def _frontends(one: Pod, by: Service, slices: Iterable[EndpointSlice]) -> Iterator[tuple[Address, Endpoint]]:
    """Each address of ``by`` that should lead to the pod, and where."""
    if not by.is_proxied:
        return
    ports = {port.name: port for port in by.ports}
    for each in slices_of(by, slices):
        for entry in each.endpoints:
            if entry.uid != one.uid:
                continue
            for number, slice_port in zip(each.endpoints_of(entry), each.ports, strict=False):
                port = ports.get(slice_port.name)
                for ip in by.cluster_ips:
                    if port is not None and FAMILIES.get(each.address_type, " ") in ip:
                        yield (canonical(ip), port.port, port.protocol), number


def _has(seen: Facts, address: Address, at: Endpoint) -> bool:
    return not seen.unreadable and any(
        (route.address, route.port, route.protocol) == address and at in route.endpoints
        for route in seen.routes_to(at)
        if route.via == "cluster-ip"
    )


def _state(obj: JsonObject) -> str:
    """Why a pod is not ready, in the words of whoever said so."""
    status = obj.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "", "ContainerCreating", "PodInitializing"):
            return f"is not ready: {waiting['reason']} {waiting.get('message') or ''}".rstrip()
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"is Pending: {condition.get('reason')} {condition.get('message') or ''}".rstrip()
    return "is not ready" if status.get("phase") == "Running" else f"is {status.get('phase') or 'Pending'}"


def _failure(obj: JsonObject) -> tuple[str, ...]:
    """Why its controller makes no pod at all: a quota, an admission webhook."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return tuple(
        f"{one.get('reason')} {one.get('message') or ''}".rstrip()
        for one in conditions
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True"
    )
