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


def revisions(workload: str, given: dict[str, Any]) -> list[tuple[str, str]]:
    """(revision, images) of a workload's releases, the newest first; empty on any error, as ``names``."""
    from tidegate.kube.kubeconfig import load

    try:
        cluster = load(given.get("kubeconfig") or "", given.get("context") or "")
        asked = _revisions(cluster, workload, given.get("namespace") or cluster.namespace)
        return asyncio.run(asyncio.wait_for(asked, PATIENCE_SECONDS))
    except Exception:
        return []


async def _revisions(cluster: Cluster, workload: str, namespace: str) -> list[tuple[str, str]]:
    from tidegate.cli.release_book import opened
    from tidegate.client.release.command import About
    from tidegate.kube.connect import open_cluster

    async with open_cluster(cluster) as client:
        entry = await (await opened(client, About(namespace, workload))).read()
    found = {} if entry is None else {
        one.revision: " ".join(f"{name}={image}" for name, image in sorted(one.images.items()))
        for one in entry.status.history
    }  # fmt: skip
    return list(found.items())[::-1]


async def _names(cluster: Cluster, kind: str, namespace: str) -> list[str]:
    from tidegate.client.kinds import RESOURCES
    from tidegate.kube.api import Selection
    from tidegate.kube.connect import open_cluster

    resource = RESOURCES[kind]
    async with open_cluster(cluster) as client:
        listed = await client.list(resource, Selection(namespace if resource.namespaced else ""), "0")
        return [obj["metadata"]["name"] for obj in listed.items]
