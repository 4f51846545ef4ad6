"""``install``: objects given as plain data are applied to a cluster, planned first, and waited for.

Server-side apply with one field manager: the server itself says what would be created, changed or left as it is, and a
second run changes nothing. Each object is applied whole, so a run that was interrupted is finished by the next.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tidegate.client.permissions import Deed, review
from tidegate.engine.owners import KINDS
from tidegate.kube.api import (
    CONFIGMAPS,
    CUSTOMRESOURCEDEFINITIONS,
    DEPLOYMENTS,
    MUTATINGWEBHOOKCONFIGURATIONS,
    NAMESPACES,
    PODDISRUPTIONBUDGETS,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
    JsonObject,
    Resource,
    Selection,
)
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import SYSTEM_NAMESPACE

Change = Literal["created", "changed", "unchanged", "refused"]
VERSION = "tidegate.dev/version"
"""On the namespace of an installation: the command line's that applied it last."""
OFFER, OFFER_NAMESPACE, OFFER_KEY, OPERATOR_KEY = "tidegate-offer", "kube-system", "objects.json", "operator.json"
"""The ConfigMap by which a lab says what its installation is: an ``Offer``."""
IMAGE = "tidegate.dev/image"
"""Beside it: the image, for the sweep that takes the installation away when nothing else says it any more."""
LOOK_SECONDS = 1.0
_RBAC = "rbac.authorization.k8s.io"
DAEMONSETS = KINDS["DaemonSet"]
RESOURCES: dict[str, Resource] = {
    one.kind: one
    for one in (
        NAMESPACES,
        SERVICEACCOUNTS,
        SERVICES,
        DEPLOYMENTS,
        DAEMONSETS,
        PODS,
        Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
        Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
        Resource(_RBAC, "v1", "roles", "Role"),
        Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
        PODDISRUPTIONBUDGETS,
        MUTATINGWEBHOOKCONFIGURATIONS,
        CUSTOMRESOURCEDEFINITIONS,
    )
}
"""Of every kind that an installation has."""
RUNNING = ("Deployment", "DaemonSet", "Pod")


@dataclass(frozen=True, slots=True)
class Planned:
    """One object and what would become of it; ``why`` where it is refused."""

    manifest: JsonObject
    change: Change
    why: str = ""

    @property
    def name(self) -> str:
        """As kubectl names it: ``daemonset.apps/tidegate-agent``."""
        return named(self.manifest)


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """``items`` in the order of their application; ``refused`` says why nothing is begun."""

    items: tuple[Planned, ...]
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_changing(self) -> bool:
        return any(one.change in ("created", "changed") for one in self.items)


def named(manifest: JsonObject) -> str:
    resource = RESOURCES[manifest["kind"]]
    group = f".{resource.group}" if resource.group else ""
    return f"{resource.kind.lower()}{group}/{manifest['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a lab has in place of an image to be pulled: agents, coordinator and fence as ``objects``; ``image`` and
    variables of the operator."""

    objects: tuple[JsonObject, ...]
    image: str
    env: tuple[tuple[str, str], ...] = ()

    def as_configmap(self) -> JsonObject:
        operator = {"image": self.image, "env": dict(self.env)}
        data = {OFFER_KEY: json.dumps(self.objects), OPERATOR_KEY: json.dumps(operator)}
        where = {"name": OFFER, "namespace": OFFER_NAMESPACE}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": where, "data": data}


async def offered(client: KubeClient) -> Offer | None:
    """What a lab says its installation is; None for every other cluster, and for who may not read it. Raises
    ``KubeError``."""
    try:
        found = await client.get(CONFIGMAPS, OFFER, OFFER_NAMESPACE)
    except ApiError as error:
        if error.is_not_found or error.code == 403:
            return None
        raise
    data = found.get("data") or {}
    operator = msgspec.json.decode(data[OPERATOR_KEY])
    return Offer(tuple(msgspec.json.decode(data[OFFER_KEY])), operator["image"], tuple(operator["env"].items()))


def stamped(manifests: Iterable[JsonObject], version: str, image: str) -> list[JsonObject]:
    """``manifests`` with version and image written on the namespace."""
    found = []
    for one in manifests:
        if one["kind"] == "Namespace":
            metadata = {**one["metadata"], "annotations": {VERSION: version, IMAGE: image}}
            one = {**one, "metadata": metadata}
        found.append(one)
    return found


def skew(installed: str, ours: str) -> str:
    """Why ``ours`` may not touch an installation of version ``installed``; empty where it may (n and n-1)."""
    there, here = _numbers(installed), _numbers(ours)
    if there is None:
        return f"the installation calls itself version {installed!r}, which this command line ({ours}) cannot compare"
    if here is None or there[0] != here[0] or abs(there[1] - here[1]) > 1:
        way = "an older command line first, one minor version at a time"
        if here is not None and there > here:
            way = f"a command line of version {installed}: pip install tidegate=={installed}"
        only = "only neighbouring versions speak to each other"
        return f"{installed} is installed and this command line is {ours}: {only}; use {way}"
    return ""


def _numbers(version: str) -> tuple[int, int] | None:
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        return None
    return int(parts[0]), int(parts[1])


async def plan_install(
    client: KubeClient, manifests: Iterable[JsonObject], version: str, is_forced: bool = False
) -> InstallPlan:
    """What applying would do, as the server says by a dry run; changes nothing. Raises ``KubeError``."""
    wanted = list(manifests)
    namespace = await _read(client, NAMESPACES, SYSTEM_NAMESPACE)
    refused: list[str] = []
    notes: list[str] = []
    if namespace is not None:
        if namespace["metadata"].get("deletionTimestamp"):
            refused.append(f"namespace {SYSTEM_NAMESPACE} is being deleted: wait until it is gone")
        there = (namespace["metadata"].get("annotations") or {}).get(VERSION, "")
        if there and (why := skew(there, version)):
            refused.append(why)
        elif there and there != version:
            notes.append(f"version {there} is installed: it becomes {version}")
    refused += await _denied(client, wanted)
    if refused:
        return InstallPlan((), tuple(refused))
    items = [await _plan_one(client, one, namespace is not None, is_forced) for one in wanted]
    refused = [f"{one.name}: {one.why}" for one in items if one.change == "refused"]
    return InstallPlan(tuple(items), tuple(refused), tuple(notes))


async def _denied(client: KubeClient, wanted: list[JsonObject]) -> list[str]:
    """The permissions these credentials lack, asked for all at once: nothing is to be begun and left half made."""
    deeds = []
    for one in wanted:
        resource = RESOURCES[one["kind"]]
        space = one["metadata"].get("namespace", "")
        deeds += [Deed(verb, resource.plural, space, resource.group) for verb in ("get", "create", "patch")]
    answers = await review(client, dict.fromkeys(deeds))
    return [f"these credentials may not {deed}" for deed, is_allowed in answers.items() if is_allowed is False]


async def _plan_one(client: KubeClient, manifest: JsonObject, is_there: bool, is_forced: bool) -> Planned:
    resource = RESOURCES[manifest["kind"]]
    space = manifest["metadata"].get("namespace", "")
    if space and not is_there:
        return Planned(manifest, "created")  # no dry run in a namespace that is not there yet
    before = await _read(client, resource, manifest["metadata"]["name"], space)
    try:
        after = await client.apply(resource, manifest, is_forced=is_forced, dry_run=True)
    except ApiError as error:
        return Planned(manifest, "refused", _explained(error))
    if before is None:
        return Planned(manifest, "created")
    return Planned(manifest, "unchanged" if _own(before) == _own(after) else "changed")


def _explained(error: ApiError) -> str:
    if error.is_conflict:
        return f"{error.message}; --force-conflicts takes these fields over"
    return error.message


def _own(obj: JsonObject) -> JsonObject:
    """Without what every write of anybody changes."""
    metadata = {
        key: value
        for key, value in obj["metadata"].items()
        if key not in ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid")
    }
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}


async def _read(client: KubeClient, resource: Resource, name: str, namespace: str = "") -> JsonObject | None:
    try:
        return await client.get(resource, name, namespace)
    except ApiError as error:
        if error.is_not_found:
            return None
        raise


async def carry_out_install(
    client: KubeClient, plan: InstallPlan, is_forced: bool, told: Callable[[Planned], None]
) -> None:
    """Apply what changes, in order; ``told`` of each. Raises ``KubeError``: run again, it goes on where this ended."""
    for one in plan.items:
        if one.change != "unchanged":
            await client.apply(RESOURCES[one.manifest["kind"]], one.manifest, is_forced=is_forced)
        told(one)


# --- until it is ready ---


async def until_ready(
    client: KubeClient, manifests: Iterable[JsonObject], seconds: float, told: Callable[[tuple[str, ...]], None]
) -> tuple[str, ...]:
    """Wait for everything that runs; what is not ready at the end, and why. ``told`` of the first look and of every
    change."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    waiting = [one for one in manifests if one["kind"] in RUNNING]
    last: tuple[str, ...] | None = None
    while True:
        try:
            missing = tuple([line for one in waiting for line in await _missing(client, one)])
        except KubeError as error:
            missing = (str(error),)
        if missing != last:
            last = missing
            told(missing)
        if not missing or loop.time() >= until:
            return missing
        await asyncio.sleep(LOOK_SECONDS)


async def _missing(client: KubeClient, manifest: JsonObject) -> list[str]:
    name, space = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    found = await client.get(RESOURCES[manifest["kind"]], name, space)
    if manifest["kind"] == "Pod":
        return [_why(found)] if _why(found) else []
    ready, wanted = _counts(found)
    status = found.get("status") or {}
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return [f"{named(manifest)}: its controller has not looked at it yet"]
    if ready >= wanted:
        return []
    labels = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"]["matchLabels"].items())
    pods = (await client.list(PODS, Selection(space, labels))).items
    whys = [why for pod in pods if (why := _why(pod))]
    return [f"{named(manifest)}: {ready} of {wanted} ready", *(f"  {why}" for why in sorted(whys))]


def _counts(found: JsonObject) -> tuple[int, int]:
    """(ready and of the newest template, wanted). An OnDelete DaemonSet keeps pods of older templates on purpose."""
    status, spec = found.get("status") or {}, found["spec"]
    if found.get("kind") == "Deployment" or "replicas" in spec:
        wanted = int(spec.get("replicas", 1))
        return min(int(status.get("availableReplicas", 0)), int(status.get("updatedReplicas", 0))), wanted
    wanted = int(status.get("desiredNumberScheduled", 0))
    ready = int(status.get("numberReady", 0))
    if (spec.get("updateStrategy") or {}).get("type") != "OnDelete":
        ready = min(ready, int(status.get("updatedNumberScheduled", 0)))
    return ready, wanted


def _why(pod: JsonObject) -> str:
    """Why a pod is not ready, in the words of whoever said so; empty for one that is."""
    status: dict[str, Any] = pod.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return ""
    where = f"pod/{pod['metadata']['name']} on {pod['spec'].get('nodeName') or 'no node'}"
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "", "ContainerCreating", "PodInitializing"):
            return f"{where}: {waiting['reason']} {waiting.get('message') or ''}".rstrip()
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"{where}: {scheduled.get('reason')} {scheduled.get('message') or ''}".rstrip()
    return f"{where}: {status.get('phase') or 'Pending'}, not ready"
