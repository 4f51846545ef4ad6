"""The gate put into the revision that runs, without a restart: so that what replaces its pods has one.

A pod's hooks cannot be changed, its ReplicaSet's template can. If the Deployment's own template gets the same change
while it is paused, both stay equal and its controller begins no rollout (the way ``prepare --in-place`` takes).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from copy import deepcopy

from tidegate.client.lease import RENEW_SECONDS
from tidegate.client.release.ground import Failed, is_stale
from tidegate.drain.gating import CannotBeGated, gate_patch
from tidegate.engine.act import Step as Change
from tidegate.engine.act import pointer, write
from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, Api, JsonObject, Patch, Resource, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.model.workload import HASH_LABEL
from tidegate.release import template as templates
from tidegate.release.scene import WORKLOAD_LABEL

LOOK_SECONDS = 0.2
TURN_SECONDS = RENEW_SECONDS
SETTLE_SECONDS = 2.0
TRIES = 10


async def gate_in_place(client: KubeClient, deployment: JsonObject, found: JsonObject | None) -> None:
    """Pause, both templates (``found`` is the ReplicaSet), resume; each write tested, all of it safe to repeat.

    For ``TURN_SECONDS`` at most: an engine's lease is to stand meanwhile, and called again this goes on. ``GATING``
    stands on the Deployment until its end: killed there, the next engine knows whose pause that is, and goes on. A
    Deployment that was paused before stays so; one that somebody resumed meanwhile is paused again first. Without
    ``found`` (it is gone), or where that cannot have a gate, what was begun is only ended. Raises ``KubeError``.
    """
    why = why_ungatable(found) if found is not None else ""
    if why and found is not None and not is_half_gated(deployment):
        raise Failed(f"revision {revision_of(found)} cannot be given a gate: {why}")
    if why:
        found = None
    until = asyncio.get_running_loop().time() + TURN_SECONDS

    def is_over() -> bool:
        return asyncio.get_running_loop().time() >= until

    if found is not None and not _is_held(deployment):
        deployment = await _paused(client, deployment, found)
    seen = await _observed(client, DEPLOYMENTS, deployment, until)
    if seen is None or is_over() or (found is not None and not _is_held(seen)):
        return
    deployment = seen
    if found is not None and not templates.is_gated(found["spec"]["template"]):
        metadata, patch = found["metadata"], _patch(found)
        found = await client.patch(REPLICASETS, metadata["name"], patch, metadata["namespace"])
        if is_over():
            return
    if _is_current(deployment, found) and not templates.is_gated(deployment["spec"]["template"]):
        metadata, patch = deployment["metadata"], _patch(deployment)
        deployment = await client.patch(DEPLOYMENTS, metadata["name"], patch, metadata["namespace"])
    seen = await _observed(client, DEPLOYMENTS, deployment, until)
    # Each kind has a watch of its own. The Deployment's controller knows of ReplicaSets by the copy that their own
    # controller has (cmd/kube-controller-manager/app/apps.go: one informer factory), which says what it has seen.
    is_known = found is None or await _observed(client, REPLICASETS, found, until) is not None
    if seen is not None and is_known and not is_over():
        await _resumed(client, seen)


def why_ungatable(workload: JsonObject) -> str:
    """Why what makes pods (a Deployment, a ReplicaSet) cannot give them a gate, "" where it can."""
    try:
        gate_patch(workload)
    except CannotBeGated as error:
        return str(error)
    return ""


async def _paused(client: KubeClient, deployment: JsonObject, found: JsonObject) -> JsonObject:
    was_paused = bool(deployment["spec"].get("paused"))
    notes = [] if deployment["metadata"].get("annotations") else [_NO_NOTES]
    mark: Change = {"op": "add", "path": _GATING, "value": revision_of(found) + (STAYS if was_paused else "")}
    paused: list[Change] = [] if was_paused else [{"op": "add", "path": "/spec/paused", "value": True}]
    return await write(client, DEPLOYMENTS, deployment, [*paused, *notes, mark])


def _is_held(deployment: JsonObject) -> bool:
    """Whether it is marked, and paused still: somebody may have resumed it."""
    return is_half_gated(deployment) and bool(deployment["spec"].get("paused"))


def _is_current(deployment: JsonObject, found: JsonObject | None) -> bool:
    """Whether the ReplicaSet is the one that its Deployment's template asks for."""
    if found is None:
        return False
    return templates.fingerprint(deployment["spec"]["template"]) == templates.fingerprint(found["spec"]["template"])


async def _resumed(client: Api, deployment: JsonObject) -> None:
    """The end of it: the mark off and, where it was ours, the pause."""
    resumed: list[Change] = [{"op": "remove", "path": _GATING}]
    if deployment["spec"].get("paused") and not _mark_of(deployment).endswith(STAYS):
        resumed.append({"op": "remove", "path": "/spec/paused"})
    if is_half_gated(deployment):
        await write(client, DEPLOYMENTS, deployment, resumed)


async def free_gatings(client: Api, namespace: str = "", workload: str = "") -> tuple[str, ...]:
    """Deployments that whoever put the gate into them has left half-way, as they were before: names (namespace/name).

    For an end of Tidegate's work on them, not for a release: nobody comes back to finish it, and going on with a
    ReplicaSet that has the gate and a Deployment that has not would be a rollout of pods without one. ``workload``: of
    that one alone (and what a release made for it), "" for all. Raises ``KubeError``.
    """
    freed: list[str] = []
    for attempt in range(TRIES):
        try:
            async for name in _freed(client, namespace, workload):
                freed.append(name)
            break
        except ApiError as error:  # their controllers write, too
            if not is_stale(error) or attempt == TRIES - 1:
                raise
            await asyncio.sleep(LOOK_SECONDS)
    return tuple(freed)


async def _freed(client: Api, namespace: str, workload: str) -> AsyncIterator[str]:
    half = [one for one in (await client.list(DEPLOYMENTS, Selection(namespace))).items if is_half_gated(one)]
    if workload:
        half = [one for one in half if workload in (one["metadata"]["name"], _workload_of(one))]
    for one in half:
        metadata = one["metadata"]
        own = (await client.list(REPLICASETS, Selection(metadata["namespace"]))).items
        for found in own:
            is_its = any(ref.get("uid") == metadata["uid"] for ref in found["metadata"].get("ownerReferences") or ())
            if is_its and _is_ahead(one, found):
                labels = (found["spec"]["template"].get("metadata") or {}).get("labels") or {}
                template = deepcopy(one["spec"]["template"])
                template.setdefault("metadata", {})["labels"] = labels
                change: Change = {"op": "replace", "path": "/spec/template", "value": template}
                await write(client, REPLICASETS, found, [change])
    if half:
        # The controller hears of ReplicaSets and of Deployments by two watches, and nothing orders these.
        await asyncio.sleep(SETTLE_SECONDS)
    for one in half:
        await _resumed(client, one)
        yield f"{one['metadata']['namespace']}/{one['metadata']['name']}"


def _is_ahead(deployment: JsonObject, found: JsonObject) -> bool:
    """Whether the ReplicaSet has the gate already, of the two that are to be the same."""
    is_gated = templates.is_gated(found["spec"]["template"])
    return is_gated and _is_current(deployment, found) and not templates.is_gated(deployment["spec"]["template"])


def _workload_of(obj: JsonObject) -> str:
    return str((obj["metadata"].get("labels") or {}).get(WORKLOAD_LABEL, ""))


GATING = "tidegate.dev/gating"
"""On a Deployment that is paused while the gate is put into it: the hash of the ReplicaSet that gets it, too."""
STAYS = "/paused"
"""Behind that hash: somebody else had paused it, so it stays so."""
_GATING = f"/metadata/annotations/{pointer(GATING)}"
_NO_NOTES: Change = {"op": "add", "path": "/metadata/annotations", "value": {}}


def is_half_gated(deployment: JsonObject) -> bool:
    """Whether somebody began to put the gate into it, and has not come to the end."""
    return GATING in (deployment["metadata"].get("annotations") or {})


def gating_of(deployment: JsonObject) -> str:
    """The hash of the ReplicaSet that is being gated, "" for none."""
    return _mark_of(deployment).removesuffix(STAYS)


def _mark_of(deployment: JsonObject) -> str:
    return str((deployment["metadata"].get("annotations") or {}).get(GATING, ""))


def revision_of(replicaset: JsonObject) -> str:
    """The hash of its template, as its pods bear it; its name where somebody took the label off."""
    metadata = replicaset["metadata"]
    return str((metadata.get("labels") or {}).get(HASH_LABEL, metadata["name"]))


def _patch(obj: JsonObject) -> Patch:
    """The gate's patch, refused where the object has changed since."""
    metadata = {"uid": obj["metadata"]["uid"], "resourceVersion": obj["metadata"]["resourceVersion"]}
    return Patch({"metadata": metadata, **gate_patch(obj).patch}, "strategic")


async def _observed(client: KubeClient, resource: Resource, obj: JsonObject, until: float) -> JsonObject | None:
    """Once its controller has seen it as it was written; None where it has not by ``until``. Raises ``ApiError``."""
    metadata = obj["metadata"]
    while (obj.get("status") or {}).get("observedGeneration", 0) < metadata["generation"]:
        if asyncio.get_running_loop().time() >= until:
            return None
        await asyncio.sleep(LOOK_SECONDS)
        obj = await client.get(resource, metadata["name"], metadata["namespace"])
    return obj
