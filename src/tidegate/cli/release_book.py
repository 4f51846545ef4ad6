"""Where a cluster's releases are written: Release objects where it knows them, ConfigMaps where it does not."""

from __future__ import annotations

from datetime import datetime

from tidegate import vtime
from tidegate.client.release.book import AskableBook, ConfigMapBook, Entry, list_books
from tidegate.client.release.command import About
from tidegate.kube.api import LEASES
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.operator.book import book_of, is_served, list_objects
from tidegate.operator.leadership import LEASE_NAME


async def opened(client: KubeClient, about: About) -> AskableBook:
    """The book of one workload. Raises ``KubeError``."""
    if await is_served(client):
        return await book_of(client, about.namespace, about.workload)
    return ConfigMapBook(client, about.namespace, about.workload)


PATIENCE_SECONDS = 10.0
"""An operator that leads takes a Release up within a second; a busy one has this long."""


async def patience(client: KubeClient) -> float:
    """How long to leave a release to the operator: not at all where none leads."""
    if not await is_served(client):
        return 0.0
    try:
        spec = (await client.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)).get("spec") or {}
        renewed = datetime.fromisoformat(str(spec.get("renewTime") or "1970-01-01T00:00:00Z"))
    except (KubeError, ValueError):
        return 0.0
    age = (vtime.now() - renewed).total_seconds()
    is_led = bool(spec.get("holderIdentity")) and age < float(spec.get("leaseDurationSeconds") or 0)
    return PATIENCE_SECONDS if is_led else 0.0


async def releases(client: KubeClient, namespace: str) -> list[Entry]:
    """All that are written, "" for every namespace. Raises ``KubeError``."""
    found = await list_books(client, namespace)
    if await is_served(client):
        found += await list_objects(client, namespace)
    return sorted(found, key=lambda one: (one.namespace, one.spec.workload))
