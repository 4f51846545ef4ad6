"""The API for callers in the server's own process: the pipeline without HTTP and without JSON.

Objects handed out are the stored ones: by the ``Api`` contract nobody changes them in place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from tidegate.kube.api import ALL, Deletion, JsonObject, Listing, Patch, Resource, Selection, WatchEvent
from tidegate.lab.apiserver import deletions, failures, listing, subresources, watching
from tidegate.lab.apiserver.deletions import DeleteOptions
from tidegate.lab.apiserver.objects import clone
from tidegate.lab.apiserver.patching import patched
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.routes import Route
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.apiserver.verbs import Options
from tidegate.lab.apiserver.versions import Version


class LocalApi:
    """``kube.api.Api`` straight into the pipeline. Calls never suspend: each is one step of the loop."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._verbs = server.verbs

    def _row(self, resource: Resource) -> Row:
        row = self._verbs.registry.row(resource)
        if row is None:
            raise failures.no_such_path()
        return row

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        row = self._row(resource)
        return _shown(row, self._verbs.get(row, namespace, name))

    async def list(self, resource: Resource, select: Selection = ALL, resource_version: str = "") -> Listing:
        row = self._row(resource)
        options = listing.ListOptions(select.labels, select.fields, resource_version)
        page = listing.page(self._verbs.store, row, select.namespace, options)
        return Listing([_shown(row, version) for version in page.versions], str(page.rv))

    def watch(
        self, resource: Resource, select: Selection = ALL, resource_version: str = ""
    ) -> AsyncIterator[WatchEvent]:
        row = self._row(resource)
        options = listing.ListOptions(select.labels, select.fields, resource_version)
        events = watching.follow(self._verbs.store, row, select.namespace, options)
        return events if row.conversion is None else _converted(row, events)

    async def create(
        self, resource: Resource, obj: JsonObject, namespace: str = "", subresource: str = ""
    ) -> JsonObject:
        row = self._row(resource)
        obj = clone(obj)
        namespace = namespace or (obj.get("metadata") or {}).get("namespace", "")
        if subresource:
            name = (obj.get("metadata") or {}).get("name", "")
            route = Route(row, namespace, name, subresource)
            return subresources.create(self._verbs, route, obj, Options()).object
        if row.conversion is not None:
            obj = row.conversion.to_storage(obj)
        return _shown(row, self._verbs.create(row, namespace, obj, Options()))

    async def replace(self, resource: Resource, obj: JsonObject, subresource: str = "") -> JsonObject:
        row = self._row(resource)
        route = Route(row, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], subresource)
        wanted = clone(obj)
        if row.conversion is not None:
            wanted = row.conversion.to_storage(wanted)
        return _shown(row, subresources.change(self._verbs, route, lambda old: wanted, Options()))

    async def patch(self, resource: Resource, name: str, patch: Patch, namespace: str = "") -> JsonObject:
        row = self._row(resource)
        options = Options(dry_run=patch.dry_run)
        change = patched(row, patch.style, patch.body, patch.subresource)
        route = Route(row, namespace, name, patch.subresource)
        return _shown(row, subresources.change(self._verbs, route, change, options))

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", options: Deletion = Deletion()
    ) -> JsonObject:
        row = self._row(resource)
        asked = DeleteOptions(options.grace_seconds, options.uid, options.resource_version, options.propagation)
        deleted = deletions.delete(self._verbs, row, (namespace, name), asked, Options(dry_run=options.dry_run))
        return _shown(row, deleted.version)


def _shown(row: Row, version: Version) -> JsonObject:
    return version.object if row.conversion is None else row.conversion.from_storage(version.object)


async def _converted(row: Row, events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
    assert row.conversion is not None
    async for event in events:
        shown = event.object if event.type == "BOOKMARK" else row.conversion.from_storage(event.object)
        yield WatchEvent(event.type, shown)
