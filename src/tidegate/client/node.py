"""``drain_node``: cordon a node, then drain every pod on it, each verified, as far as floors and budgets allow.

Nobody else is denied or raced: a pod that somebody deletes or evicts meanwhile is waited for, and what its gate said is
its result. A budget that allows nothing is waited for until the timeout, never passed by. Kubernetes' scheduler puts
the replacements elsewhere, since the node is cordoned. Run again, it goes on with what is left on the node.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tidegate.client.drain import Told, carry_out
from tidegate.client.following import followed
from tidegate.client.many import whole_again
from tidegate.client.options import VerbOptions
from tidegate.client.plan import PodPlan, plan_pod
from tidegate.client.reservation import sweep
from tidegate.drain.progress import begin
from tidegate.drain.state import Mode
from tidegate.engine import act
from tidegate.kube.api import NODES, PODS, JsonObject, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import node, pod
from tidegate.model.names import CORDONED, SYSTEM_NAMESPACE, DrainResult, Ending, decode_drain
from tidegate.model.node import Node
from tidegate.model.pod import Pod
from tidegate.observers.proxied import is_installed
from tidegate.vtime import Nursery

Fate = Literal["drain", "delete", "follow", "skip", "refuse"]
NAME_LABEL = "app.kubernetes.io/name"
MIRROR = "kubernetes.io/config.mirror"
PARALLEL = 4
"""Drains at once. Each takes seconds of waiting and little work; what is too many for a Service its floor says."""
RETRY_SECONDS = 2.0
TRIES = 20


@dataclass(frozen=True, slots=True)
class NodePod:
    """One pod of the node and what becomes of it: ``why`` in a sentence, ``notes`` what goes with it.

    ``plan`` is there for what is drained.
    """

    pod: Pod
    fate: Fate
    why: str = ""
    notes: tuple[str, ...] = ()
    plan: PodPlan | None = None


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The drain of a node. ``is_cordoned``: somebody did that before; it is left alone then."""

    node: Node
    pods: tuple[NodePod, ...]
    is_cordoned: bool
    is_witnessed: bool

    @property
    def refused(self) -> tuple[str, ...]:
        """Why nothing is begun."""
        return tuple(f"{one.pod}: {one.why}" for one in self.pods if one.fate == "refuse")


@dataclass(slots=True)
class NodeResult:
    """``results`` by pod (namespace/name), in the order they came to; ``left`` are the pods still there, with why."""

    is_cordoned_by_us: bool = False
    results: dict[str, DrainResult] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


async def plan_node(client: KubeClient, name: str, options: VerbOptions) -> NodePlan:
    """Look at the node and its pods; changes nothing. ``options.force``: pods that nothing owns go too.

    Raises ``KubeError`` (404 for an unknown node).
    """
    found = node.decode(await client.get(NODES, name))
    listed = (await client.list(PODS, Selection(fields=f"spec.nodeName={name}"))).items
    is_witnessed = await is_installed(client)
    pods = [await _plan_one(client, obj, options, is_witnessed) for obj in listed]
    there = sorted((one for one in pods if one is not None), key=_order)
    return NodePlan(found, tuple(there), found.unschedulable, is_witnessed)


async def _plan_one(client: KubeClient, obj: JsonObject, options: VerbOptions, is_witnessed: bool) -> NodePod | None:
    one = pod.decode(obj)
    fate, why = _fate(one, options.force)
    if fate != "drain":
        return NodePod(one, fate, why)
    volumes = (obj.get("spec") or {}).get("volumes") or ()
    emptied = [volume["name"] for volume in volumes if "emptyDir" in volume]
    notes = (f"what is in its emptyDir goes with it: {', '.join(emptied)}",) if emptied else ()
    try:
        plan = await plan_pod(client, (one.namespace, one.name), "drain", options, is_witnessed)
    except ApiError as error:
        if not error.is_not_found:
            raise
        return None  # gone since it was listed
    return NodePod(one, "drain", why, notes, plan)


def _fate(one: Pod, is_forced: bool) -> tuple[Fate, str]:
    """The order is kubectl drain's (kubectl/pkg/drain/filters.go)."""
    if one.is_terminating:
        return "follow", "somebody is deleting it: waited for"
    if MIRROR in one.annotations:
        return "skip", "a mirror pod: its kubelet runs it from a file"
    if one.is_finished:
        return "skip", f"it has ended ({one.phase})"
    if one.owner is not None and one.owner.kind == "DaemonSet":
        return "skip", f"DaemonSet {one.owner.name} would start it here again"
    if one.owner is None and one.namespace == SYSTEM_NAMESPACE and one.labels.get(NAME_LABEL) == "tidegate":
        return "skip", "Tidegate's own: without it nothing here is verified"
    record = decode_drain(one.annotations)
    if one.owner is None and not (record is not None and record.owner):
        # kubectl's words for it: unmanagedFatal, unmanagedWarning.
        why = "it declares no controller"
        return ("drain", f"{why}: it is gone for good") if is_forced else ("refuse", f"{why} (use --force to override)")
    return ("drain", "") if one.ips else ("delete", "it has no address: nothing reaches it")


def _order(one: NodePod) -> tuple[bool, bool, str]:
    """What was begun first, then what serves nothing, then by name."""
    is_begun = one.plan is not None and one.plan.record is not None
    return not is_begun, one.pod.is_ready, str(one.pod)


async def drain_node(
    client: KubeClient,
    plan: NodePlan,
    options: VerbOptions,
    parallel: int = PARALLEL,
    told: Callable[[Pod], Told] = lambda one: lambda drain: None,
) -> NodeResult:
    """Carry a plan out; one that is refused changes nothing. The node stays cordoned whatever comes of it.

    Force reaches floors, never budgets. Raises ``KubeError``.
    """
    result = NodeResult()
    if plan.refused:
        result.left = {str(one.pod): one.why for one in plan.pods if one.fate == "refuse"}
        return result
    result.is_cordoned_by_us = await cordon(client, plan.node.name, options)
    work = _Work(client, plan, replace(options, keeps_budgets=True), parallel, told)
    async with Nursery() as nursery:
        for one in plan.pods:
            if one.fate != "skip":
                nursery.start(work.one(one, result), name=f"drain {one.pod}")
    try:
        for namespace in sorted({one.pod.namespace for one in plan.pods}):
            await sweep(client, namespace)
        result.left = await _left(client, plan, result)
    except KubeError as error:  # what came of each pod is known all the same
        late = {name: one for name, one in result.results.items() if one.result is not Ending.VERIFIED}
        result.left = {name: f"{one}; what is left could not be read: {error}" for name, one in late.items()}
    return result


async def cordon(client: KubeClient, name: str, options: VerbOptions) -> bool:
    """Mark it unschedulable with our token; False where it was, by whomever: that is left alone."""
    rng = random.Random() if options.seed is None else random.Random(f"{options.seed}/{name}")
    for _ in range(TRIES):
        obj = await client.get(NODES, name)
        if node.decode(obj).unschedulable:
            return CORDONED in (obj["metadata"].get("annotations") or {})
        version = obj["metadata"]["resourceVersion"]
        marked = {"resourceVersion": version, "annotations": {CORDONED: f"{rng.getrandbits(48):012x}"}}
        try:
            await client.patch(NODES, name, Patch({"metadata": marked, "spec": {"unschedulable": True}}))
            return True
        except ApiError as error:
            if not error.is_conflict:
                raise
    raise KubeError(f"node/{name} changes too often to be cordoned: try again")


class _Work:
    """The drains of one node. Pods of an owner that cannot replace them first go one after the other."""

    def __init__(
        self, client: KubeClient, plan: NodePlan, options: VerbOptions, parallel: int, told: Callable[[Pod], Told]
    ) -> None:
        self._client = client
        self._options = options
        self._told = told
        self._is_witnessed = plan.is_witnessed
        self._room = asyncio.Semaphore(parallel)
        self._queues: dict[str, asyncio.Lock] = {}
        self._waiting = Counter(_owner(one.pod) for one in plan.pods if one.fate == "drain")

    async def one(self, item: NodePod, result: NodeResult) -> None:
        """One pod to its end; its result is filed. What the API does not take of one ends no other's drain."""
        try:
            await self._one(item, result)
        except KubeError as error:
            result.results[str(item.pod)] = DrainResult(Ending.TIMED_OUT, str(error))

    async def _one(self, item: NodePod, result: NodeResult) -> None:
        if item.fate == "follow":
            result.results[str(item.pod)] = await followed(self._client, item.pod, self._patience(item.pod))
            return
        if item.fate == "delete":
            result.results[str(item.pod)] = await self._delete(item.pod)
            return
        queue = self._queues.setdefault(_owner(item.pod), asyncio.Lock())
        is_alone = item.plan is None or not item.plan.awaits(self._options)
        if is_alone:
            async with queue, self._room:
                result.results[str(item.pod)] = await self._in_turn(item)
        else:
            async with self._room:
                result.results[str(item.pod)] = await self._drain(item.pod)

    async def _in_turn(self, item: NodePod) -> DrainResult:
        """One of an owner's pods; the next is begun once the owner has all it wants again."""
        found = await self._drain(item.pod)
        self._waiting[_owner(item.pod)] -= 1
        if item.plan is not None and self._waiting[_owner(item.pod)] and found.result is not Ending.REFUSED:
            await whole_again(self._client, item.plan, self._options, self._told(item.pod))
        return found

    async def _drain(self, one: Pod) -> DrainResult:
        """Tried again for as long as floors and budgets forbid it, until the timeout."""
        loop = asyncio.get_running_loop()
        until, told = loop.time() + self._options.timeout_seconds, self._told(one)
        target, is_final = (one.namespace, one.name), False
        while True:
            try:
                plan = await plan_pod(self._client, target, "drain", self._options, self._is_witnessed)
                if plan.pod.uid != one.uid:
                    return ANOTHERS_HAND
                if plan.pod.is_terminating:
                    return await followed(self._client, plan.pod, self._patience(one))
                found = await carry_out(self._client, plan, self._options, told)
                if found.result is Ending.BYPASSED:
                    return await followed(self._client, plan.pod, self._patience(one))
                is_final = any(not (one.is_floor or one.is_passing) for one in plan.refusals)
            except KubeError as error:
                if isinstance(error, ApiError) and error.is_not_found:
                    return ANOTHERS_HAND
                found = DrainResult(Ending.REFUSED, str(error))
            if found.result is not Ending.REFUSED or is_final or loop.time() >= until:
                return found
            told(replace(begin(str(one), Mode.LABEL), reasons=(found.reason,)))
            await asyncio.sleep(RETRY_SECONDS)

    async def _delete(self, one: Pod) -> DrainResult:
        try:
            await act.end(self._client, one)
        except ApiError as error:
            if error.is_conflict:  # it has an address by now, or a record
                return await self._drain(one)
            if not error.is_not_found:
                raise
        return DrainResult(Ending.VERIFIED, "it had no address: nothing could reach it")

    def _patience(self, one: Pod) -> float:
        return one.grace_seconds + self._options.app_stop_seconds + self._options.timeout_seconds


ANOTHERS_HAND = DrainResult(Ending.BYPASSED, "ended by another's hand before its drain began")


def _owner(one: Pod) -> str:
    record = decode_drain(one.annotations)
    known = record.owner.rpartition("/")[2] if record is not None else ""
    return one.owner.uid if one.owner is not None else known or one.uid


async def _left(client: KubeClient, plan: NodePlan, result: NodeResult) -> dict[str, str]:
    """What is still on the node, and why."""
    listed = (await client.list(PODS, Selection(fields=f"spec.nodeName={plan.node.name}"))).items
    why = {str(one.pod): one.why for one in plan.pods}
    why |= {name: str(ending) for name, ending in result.results.items()}
    return {str(one): why.get(str(one)) or "it came meanwhile" for one in map(pod.decode, listed)}
