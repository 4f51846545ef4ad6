"""A Release is deleted: native objects go on without it, as they stand, and nothing of ours is left that holds them.

Nothing is moved: which pods serve, serve; the Service selects what it selects. What we hold is let go (a Deployment
that we paused rolls on by itself), Services that only we use are taken away, and revisions without a pod. Each of it is
tried, and what is refused is told: the finalizer goes in any case, as soon as the API answers (a Rollout that could not
be deleted is flagger #1562).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.client.release.book import RELEASE_LABEL
from tidegate.client.release.gate import free_gatings, is_half_gated
from tidegate.client.release.ground import is_stale
from tidegate.client.release.labels import free_labellings
from tidegate.kube.api import DEPLOYMENTS, SERVICES, Api, Deletion, JsonObject, Patch, Resource, Selection
from tidegate.kube.client import FIELD_MANAGER
from tidegate.kube.errors import ApiError
from tidegate.model.names import PREPARED
from tidegate.release.record import Phase
from tidegate.release.scene import REVISION_LABEL, WORKLOAD_LABEL

_HOLDING = (Phase.PAUSED.value, Phase.HALTED.value)


async def let_go(api: Api, namespace: str, workload: str, phase: str) -> tuple[str, ...]:
    """What could not be let go, a sentence each. Raises ``KubeError`` only where the API does not answer (or is
    overloaded): again then."""
    told: list[str] = []
    try:
        await free_gatings(api, namespace, workload)
    except ApiError as error:
        if error.code == 429 or error.code >= 500 or is_stale(error):
            raise
        told.append(f"deployment/{workload} is left paused, half of it with the gate: {error}")
    told += [f"deployment/{name} is left {why}" for name, why in (await _labelled(api, namespace, workload)).items()]
    for resource, obj, patch in await _holds(api, namespace, workload, phase):
        await _tried(told, resource, obj, api.patch(resource, obj["metadata"]["name"], patch, namespace))
    for resource, obj in await _leftovers(api, namespace, workload):
        metadata = obj["metadata"]
        options = Deletion(uid=metadata["uid"], resource_version=metadata["resourceVersion"])
        await _tried(told, resource, obj, api.delete(resource, metadata["name"], namespace, options))
    return tuple(told)


async def _labelled(api: Api, namespace: str, workload: str) -> dict[str, str]:
    """Deployments that are half labelled still, with why."""
    try:
        found = await free_labellings(api, namespace, workload)
    except ApiError as error:
        if error.code == 429 or error.code >= 500 or is_stale(error):
            raise
        return {workload: f"paused, half of it with its label: {error}"}
    return {name.rpartition("/")[2]: why for name, why in found.items() if why}


async def _tried(told: list[str], resource: Resource, obj: JsonObject, call: Any) -> None:
    try:
        await call
    except ApiError as error:
        if error.code == 429 or error.code >= 500 or error.is_conflict:
            raise
        if not error.is_not_found:
            told.append(f"{resource.kind.lower()}/{obj['metadata']['name']} is left as it is: {error}")


async def _holds(api: Api, namespace: str, workload: str, phase: str) -> list[tuple[Resource, JsonObject, Patch]]:
    """Deployments that we paused: who paused it is said by the field's manager."""
    found: list[tuple[Resource, JsonObject, Patch]] = []
    for obj in (await api.list(DEPLOYMENTS, Selection(namespace))).items:
        metadata = obj["metadata"]
        is_own = metadata["name"] == workload or (metadata.get("labels") or {}).get(WORKLOAD_LABEL) == workload
        if is_half_gated(obj) or PREPARED in (metadata.get("annotations") or {}):
            continue  # what could not be freed, or is a ``prepare``'s: resumed as it is, it would replace its pods
        if is_own and obj["spec"].get("paused") and _is_paused_by_us(metadata, phase):
            tests = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
            found.append((DEPLOYMENTS, obj, Patch({"metadata": tests, "spec": {"paused": None}})))
    return found


def _is_paused_by_us(metadata: JsonObject, phase: str) -> bool:
    managers = list(_managers(metadata))
    return FIELD_MANAGER in managers if managers else phase in _HOLDING


def _managers(metadata: JsonObject) -> Iterator[str]:
    for one in metadata.get("managedFields") or ():
        if "f:paused" in ((one.get("fieldsV1") or {}).get("f:spec") or {}):
            yield str(one.get("manager"))


async def _leftovers(api: Api, namespace: str, workload: str) -> list[tuple[Resource, JsonObject]]:
    """Services that are ours alone, and revisions without a pod that no Service selects."""
    services = (await api.list(SERVICES, Selection(namespace))).items
    ours = [one for one in services if (one["metadata"].get("labels") or {}).get(RELEASE_LABEL) == workload]
    kept = [(one.get("spec") or {}).get("selector") or {} for one in services if one not in ours]
    found: list[tuple[Resource, JsonObject]] = [(SERVICES, one) for one in ours]
    labelled = Selection(namespace, labels=f"{WORKLOAD_LABEL}={workload}")
    for obj in (await api.list(DEPLOYMENTS, labelled)).items:
        if obj["metadata"]["name"] == workload:
            continue
        labels = (obj["spec"]["template"].get("metadata") or {}).get("labels") or {}
        is_selected = any(
            REVISION_LABEL in one and all(labels.get(key) == value for key, value in one.items()) for one in kept
        )
        has_pods = (obj["spec"].get("replicas", 1) or 0) > 0 or ((obj.get("status") or {}).get("replicas") or 0) > 0
        if not has_pods and not is_selected:
            found.append((DEPLOYMENTS, obj))
    return found
