"""What becomes of objects of our own kinds when the installation goes: Releases, Drains, Observers.

While an operator runs it is left to end them as it would on any day, for it knows what is to be put right on the
objects that they are about. What it does not end in time, or where none runs, loses its finalizers: those objects then
go with their kinds, and Deployments and Services stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.kube.api import DRAINS, OBSERVERS, RELEASES, Deletion, JsonObject, Patch, Resource
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError

OWN = (RELEASES, DRAINS, OBSERVERS)
PATIENCE_SECONDS = 60.0
"""For the operator's finalizers."""
LOOK_SECONDS = 1.0
Told = Callable[[str], None]


async def own_objects(client: KubeClient) -> list[tuple[Resource, JsonObject]]:
    """All there are; none where the cluster has no such kind. Raises ``KubeError``."""
    found: list[tuple[Resource, JsonObject]] = []
    for resource in OWN:
        try:
            found += [(resource, one) for one in (await client.list(resource)).items]
        except ApiError as error:
            if not error.is_not_found:
                raise
    return found


def called(resource: Resource, one: JsonObject) -> str:
    """``release/shop/web``."""
    metadata = one["metadata"]
    return "/".join(filter(None, (resource.kind.lower(), metadata.get("namespace", ""), metadata["name"])))


async def objects_over(client: KubeClient, until: float, told: Told) -> None:
    """Delete Releases and wait until their finalizers are resolved, for ``PATIENCE_SECONDS`` at most. Raises
    ``KubeError``."""
    loop = asyncio.get_running_loop()
    until = min(until, loop.time() + PATIENCE_SECONDS)
    waiting = ""
    while left := [(resource, one) for resource, one in await own_objects(client) if resource.kind == "Release"]:
        for resource, one in left:
            if not one["metadata"].get("deletionTimestamp"):
                await _delete(client, resource, one)
                told(f"{called(resource, one)} deleted")
        names = ", ".join(called(resource, one) for resource, one in left)
        if loop.time() >= until:
            return
        if names != waiting:
            waiting = names
            told(f"waiting for the operator to let go of {names}")
        await asyncio.sleep(LOOK_SECONDS)


async def free_objects(client: KubeClient, told: Told) -> None:
    """Take the finalizers off what is left: nobody is there to resolve them. Raises ``KubeError``."""
    for resource, one in await own_objects(client):
        metadata = one["metadata"]
        if not metadata.get("finalizers"):
            continue
        try:
            body = {"metadata": {"finalizers": None, "uid": metadata["uid"]}}
            await client.patch(resource, metadata["name"], Patch(body), metadata.get("namespace", ""))
            told(f"{called(resource, one)} is nobody's any more: what it was about stays as it is")
        except ApiError as error:
            if not error.is_not_found:
                raise


async def _delete(client: KubeClient, resource: Resource, one: JsonObject) -> None:
    metadata = one["metadata"]
    try:
        await client.delete(resource, metadata["name"], metadata.get("namespace", ""), Deletion(uid=metadata["uid"]))
    except ApiError as error:
        if not error.is_not_found:
            raise
