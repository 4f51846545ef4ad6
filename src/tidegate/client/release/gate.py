"""The gate put into the revision that runs, without a restart: so that what replaces its pods has one.

A pod's hooks cannot be changed, its ReplicaSet's template can. If the Deployment's own template gets the same change
while it is paused, both stay equal and its controller begins no rollout (the way ``prepare --in-place`` takes).
"""

from __future__ import annotations

import asyncio

from tidegate.drain.gating import gate_patch
from tidegate.engine.act import Step as Change
from tidegate.engine.act import pointer, write
from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, JsonObject, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.model.workload import HASH_LABEL
from tidegate.release import template as templates

LOOK_SECONDS = 0.2
TRIES = 150


async def gate_in_place(client: KubeClient, deployment: JsonObject, found: JsonObject | None) -> None:
    """Pause, both templates (``found`` is the ReplicaSet), resume; each write tested, all of it safe to repeat.

    ``GATING`` stands on the Deployment meanwhile: killed there, the next engine knows whose pause that is, and goes on.
    A Deployment that was paused before stays so. Without ``found`` (it is gone) what was begun is only ended. Raises
    ``KubeError``.
    """
    if not is_half_gated(deployment) and not deployment["spec"].get("paused"):
        notes = [] if deployment["metadata"].get("annotations") else [_NO_NOTES]
        mark: Change = {"op": "add", "path": _GATING, "value": _revision(found)}
        paused: Change = {"op": "add", "path": "/spec/paused", "value": True}
        deployment = await write(client, DEPLOYMENTS, deployment, [paused, *notes, mark])
    deployment = await _observed(client, deployment)
    if found is not None and not templates.is_gated(found["spec"]["template"]):
        await client.patch(REPLICASETS, found["metadata"]["name"], _patch(found), found["metadata"]["namespace"])
    is_current = found is not None and templates.fingerprint(deployment["spec"]["template"]) == templates.fingerprint(
        found["spec"]["template"]
    )
    if is_current and not templates.is_gated(deployment["spec"]["template"]):
        metadata = deployment["metadata"]
        deployment = await client.patch(DEPLOYMENTS, metadata["name"], _patch(deployment), metadata["namespace"])
    deployment = await _observed(client, deployment)
    if is_half_gated(deployment):
        resumed: list[Change] = [{"op": "remove", "path": _GATING}]
        if deployment["spec"].get("paused"):
            resumed.append({"op": "remove", "path": "/spec/paused"})
        await write(client, DEPLOYMENTS, deployment, resumed)


GATING = "tidegate.dev/gating"
"""On a Deployment that is paused while the gate is put into it: the hash of the ReplicaSet that gets it, too."""
_GATING = f"/metadata/annotations/{pointer(GATING)}"
_NO_NOTES: Change = {"op": "add", "path": "/metadata/annotations", "value": {}}


def is_half_gated(deployment: JsonObject) -> bool:
    """Whether somebody began to put the gate into it, and has not come to the end."""
    return GATING in (deployment["metadata"].get("annotations") or {})


def gating_of(deployment: JsonObject) -> str:
    """The hash of the ReplicaSet that is being gated, "" for none."""
    return str((deployment["metadata"].get("annotations") or {}).get(GATING, ""))


def _revision(found: JsonObject | None) -> str:
    return str((found or {"metadata": {}})["metadata"].get("labels", {}).get(HASH_LABEL, ""))


def _patch(obj: JsonObject) -> Patch:
    """The gate's patch, refused where the object has changed since."""
    metadata = {"uid": obj["metadata"]["uid"], "resourceVersion": obj["metadata"]["resourceVersion"]}
    return Patch({"metadata": metadata, **gate_patch(obj).patch}, "strategic")


async def _observed(client: KubeClient, obj: JsonObject) -> JsonObject:
    """Until the Deployment controller has seen it as it was written. Raises ``ApiError``."""
    metadata = obj["metadata"]
    for _ in range(TRIES):
        if (obj.get("status") or {}).get("observedGeneration", 0) >= metadata["generation"]:
            return obj
        await asyncio.sleep(LOOK_SECONDS)
        obj = await client.get(DEPLOYMENTS, metadata["name"], metadata["namespace"])
    raise ApiError(504, "Timeout", f"the Deployment controller has not seen deployment/{metadata['name']} for 30 s")
