"""Names of objects for shell completion: asked of the cluster, quickly or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.kube.kubeconfig import Cluster

PATIENCE_SECONDS = 2.0
"""Whoever pressed TAB waits no longer than this."""


def names(kind: str, given: dict[str, Any]) -> list[str]:
    """The names of the objects of ``kind`` (a key of ``target.KINDS``), sorted.

    ``given`` are the options typed so far. Empty on any error: a shell that completes has nowhere to print one.
    """
    from tidegate.kube.kubeconfig import load

    try:
        cluster = load(given.get("kubeconfig") or "", given.get("context") or "")
        asked = _names(cluster, kind, given.get("namespace") or cluster.namespace)
        return sorted(asyncio.run(asyncio.wait_for(asked, PATIENCE_SECONDS)))
    except Exception:
        return []


async def _names(cluster: Cluster, kind: str, namespace: str) -> list[str]:
    from tidegate.client.kinds import RESOURCES
    from tidegate.kube.api import Selection
    from tidegate.kube.connect import open_cluster

    resource = RESOURCES[kind]
    async with open_cluster(cluster) as client:
        listed = await client.list(resource, Selection(namespace if resource.namespaced else ""), "0")
        return [obj["metadata"]["name"] for obj in listed.items]
