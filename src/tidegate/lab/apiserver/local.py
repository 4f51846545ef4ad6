"""The API for callers in the server's own process: the pipeline without HTTP and without JSON.

Objects handed out are the stored ones: by the ``Api`` contract nobody changes them in place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from tidegate.kube.api import ALL, Deletion, JsonObject, Listing, Patch, Resource, Selection, WatchEvent
from tidegate.lab.apiserver import deletions, failures, listing, subresources, watching
from tidegate.lab.apiserver.access import EVERYONE, Subject
from tidegate.lab.apiserver.deletions import DeleteOptions
from tidegate.lab.apiserver.objects import clone
from tidegate.lab.apiserver.patching import patched
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.routes import Route
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.apiserver.verbs import Options
from tidegate.lab.apiserver.versions import Version
from tidegate.lab.apiserver.webhooks.admission import Admission, Done, admitted

CONTROLLERS = Subject("system:kube-controller-manager", EVERYONE)
"""As whom a lab's own parts write."""


class LocalApi:
    """``kube.api.Api`` straight into the pipeline. Calls never suspend: each is one step of the loop, unless a webhook
    has to be asked about a write, as by ``user``."""

    def __init__(self, server: ApiServer, user: Subject = CONTROLLERS) -> None:
        self._server = server
        self._verbs = server.verbs
        self._user = user

    async def _admitted(self, write: Callable[[Admission | None], Done]) -> Done:
        return await admitted(self._server.webhooks, self._user, write)

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
        metadata = obj.get("metadata") or {}
        namespace = namespace or metadata.get("namespace", "")

        def write(admission: Admission | None) -> JsonObject:
            options, made = Options(admission=admission), clone(obj)
            if subresource:
                route = Route(row, namespace, metadata.get("name", ""), subresource)
                return subresources.create(self._verbs, route, made, options).object
            if row.conversion is not None:
                made = row.conversion.to_storage(made)
            return _shown(row, self._verbs.create(row, namespace, made, options))

        return await self._admitted(write)

    async def replace(self, resource: Resource, obj: JsonObject, subresource: str = "") -> JsonObject:
        row = self._row(resource)
        route = Route(row, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], subresource)

        def write(admission: Admission | None) -> JsonObject:
            wanted = clone(obj)
            if row.conversion is not None:
                wanted = row.conversion.to_storage(wanted)
            options = Options(admission=admission)
            return _shown(row, subresources.change(self._verbs, route, lambda old: wanted, options))

        return await self._admitted(write)

    async def patch(self, resource: Resource, name: str, patch: Patch, namespace: str = "") -> JsonObject:
        row = self._row(resource)
        change = patched(row, patch.style, patch.body, patch.subresource)
        route = Route(row, namespace, name, patch.subresource)

        def write(admission: Admission | None) -> JsonObject:
            options = Options(dry_run=patch.dry_run, admission=admission)
            return _shown(row, subresources.change(self._verbs, route, change, options))

        return await self._admitted(write)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", options: Deletion = Deletion()
    ) -> JsonObject:
        row = self._row(resource)
        asked = DeleteOptions(options.grace_seconds, options.uid, options.resource_version, options.propagation)

        def write(admission: Admission | None) -> JsonObject:
            wanted = Options(dry_run=options.dry_run, admission=admission)
            return _shown(row, deletions.delete(self._verbs, row, (namespace, name), asked, wanted).version)

        return await self._admitted(write)


def _shown(row: Row, version: Version) -> JsonObject:
    return version.object if row.conversion is None else row.conversion.from_storage(version.object)


async def _converted(row: Row, events: AsyncIterator[WatchEvent]) -> AsyncIterator[WatchEvent]:
    assert row.conversion is not None
    async for event in events:
        shown = event.object if event.type == "BOOKMARK" else row.conversion.from_storage(event.object)
        yield WatchEvent(event.type, shown)
