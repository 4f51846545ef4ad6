"""Where a cluster's releases are written: Release objects where it knows them, ConfigMaps where it does not."""

from __future__ import annotations

from tidegate.client.release.book import AskableBook, ConfigMapBook, Entry, list_books
from tidegate.client.release.command import About
from tidegate.kube.client import KubeClient
from tidegate.operator.book import book_of, is_served, list_objects


async def opened(client: KubeClient, about: About) -> AskableBook:
    """The book of one workload. Raises ``KubeError``."""
    if await is_served(client):
        return await book_of(client, about.namespace, about.workload)
    return ConfigMapBook(client, about.namespace, about.workload)


async def releases(client: KubeClient, namespace: str) -> list[Entry]:
    """All that are written, "" for every namespace. Raises ``KubeError``."""
    found = await list_books(client, namespace)
    if await is_served(client):
        found += await list_objects(client, namespace)
    return sorted(found, key=lambda one: (one.namespace, one.spec.workload))
