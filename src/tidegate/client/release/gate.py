"""The gate put into the revision that runs, without a restart: so that what replaces its pods has one.

A pod's hooks cannot be changed, its ReplicaSet's template can. If the Deployment's own template gets the same change
while it is paused, both stay equal and its controller begins no rollout (the way ``prepare --in-place`` takes).
"""

from __future__ import annotations

import asyncio

from tidegate.drain.gating import gate_patch
from tidegate.engine.act import Step as Change
from tidegate.kube.api import DEPLOYMENTS, REPLICASETS, JsonObject, Patch
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.release import template as templates

LOOK_SECONDS = 0.2
TRIES = 150


async def gate_in_place(client: KubeClient, deployment: JsonObject, found: JsonObject) -> None:
    """Pause, both templates (``found`` is the ReplicaSet), resume; each write tested, all of it safe to repeat.

    Raises ``KubeError``.
    """
    if not deployment["spec"].get("paused"):
        deployment = await _write(client, deployment, [{"op": "add", "path": "/spec/paused", "value": True}])
    deployment = await _observed(client, deployment)
    mark = templates.fingerprint(found["spec"]["template"])
    if not templates.is_gated(found["spec"]["template"]):
        await client.patch(REPLICASETS, found["metadata"]["name"], _patch(found), found["metadata"]["namespace"])
    is_current = templates.fingerprint(deployment["spec"]["template"]) == mark
    if is_current and not templates.is_gated(deployment["spec"]["template"]):
        metadata = deployment["metadata"]
        deployment = await client.patch(DEPLOYMENTS, metadata["name"], _patch(deployment), metadata["namespace"])
    deployment = await _observed(client, deployment)
    await _write(client, deployment, [{"op": "remove", "path": "/spec/paused"}])


def _patch(obj: JsonObject) -> Patch:
    """The gate's patch, refused where the object has changed since."""
    metadata = {"uid": obj["metadata"]["uid"], "resourceVersion": obj["metadata"]["resourceVersion"]}
    return Patch({"metadata": metadata, **gate_patch(obj).patch}, "strategic")


async def _write(client: KubeClient, obj: JsonObject, changes: list[Change]) -> JsonObject:
    metadata = obj["metadata"]
    tests: list[Change] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
    ]
    return await client.patch(DEPLOYMENTS, metadata["name"], Patch([*tests, *changes], "json"), metadata["namespace"])


async def _observed(client: KubeClient, obj: JsonObject) -> JsonObject:
    """Until the Deployment controller has seen it as it was written. Raises ``ApiError``."""
    metadata = obj["metadata"]
    for _ in range(TRIES):
        if (obj.get("status") or {}).get("observedGeneration", 0) >= metadata["generation"]:
            return obj
        await asyncio.sleep(LOOK_SECONDS)
        obj = await client.get(DEPLOYMENTS, metadata["name"], metadata["namespace"])
    raise ApiError(504, "Timeout", f"the Deployment controller has not seen deployment/{metadata['name']} for 30 s")
