"""Where a cluster's releases are written: Release objects where it knows them, ConfigMaps where it does not."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from tidegate import vtime
from tidegate.client.release.book import AskableBook, Book, ConfigMapBook, Entry, list_books
from tidegate.client.release.command import About
from tidegate.kube.api import LEASES, RELEASES
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request
from tidegate.model.names import SYSTEM_NAMESPACE


async def opened(client: KubeClient, about: About) -> AskableBook:
    """The book of one workload. Raises ``KubeError``."""
    if not await _is_served(client):
        return ConfigMapBook(client, about.namespace, about.workload)
    from tidegate.operator.book import book_of

    return await book_of(client, about.namespace, about.workload)


async def _is_served(client: KubeClient) -> bool:
    """Whether the cluster knows Releases, by its discovery, which everybody may read: a list that is forbidden says
    nothing, for whoever may not is told so of kinds that are not there as well. Raises ``KubeError`` where it cannot be
    told."""
    try:
        response = await client.request(Request("GET", f"/apis/{RELEASES.api_version}"))
        served = msgspec.json.decode(await response.read(), type=dict[str, Any])
    except ApiError as error:
        if error.is_not_found:
            return False
        if error.code == 403:
            return True
        raise
    return any(one.get("name") == RELEASES.plural for one in served.get("resources") or ())


PATIENCE_SECONDS = 10.0
"""An operator that leads takes a Release up within a second; a busy one has this long."""


async def patience(client: KubeClient, book: Book) -> float:
    """How long to leave a release to the operator: not at all where none leads. What stands in a ConfigMap is no
    operator's."""
    if isinstance(book, ConfigMapBook):
        return 0.0
    from tidegate.operator.leadership import LEASE_NAME

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
    if await _is_served(client):
        from tidegate.operator.book import list_objects

        found += await list_objects(client, namespace)
    return sorted(found, key=lambda one: (one.namespace, one.spec.workload))
