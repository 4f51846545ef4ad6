"""A release that is written in a Release object: asked for in its spec, where it stands in its status."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from tidegate import vtime
from tidegate.client.release.book import Entry
from tidegate.engine.act import instant, tests
from tidegate.kube.api import RELEASES, Api, JsonObject, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.operator import conditions
from tidegate.release.record import Status, decode_status, encode_status
from tidegate.release.spec import Spec, decode_spec, encode_spec

FINALIZER = "tidegate.dev/release"


class ObjectBook:
    """``client.release.book.Book`` of one Release object.

    ``obj`` is the object as it was last read or written. ``ready`` is shown beside the status (``2/3``).
    """

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self.namespace, self.name = namespace, name
        self.obj: JsonObject = {}
        self.ready = ""
        self.is_fresh = False
        """``obj`` was read just now: the next ``read`` is about it."""
        self.wrote: Callable[[JsonObject, JsonObject, JsonObject], None] = lambda obj, old, new: None
        """Told of the object after each write, and of its status before and after."""

    async def read(self) -> Entry | None:
        """Raises ``KubeError``, ``Invalid`` and ``ValueError`` (a status that no engine wrote)."""
        is_fresh, self.is_fresh = self.is_fresh, False
        if is_fresh and self.obj:
            return entry_of(self.obj)
        try:
            self.obj = await self._api.get(RELEASES, self.name, self.namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            self.obj = {}
            return None
        return entry_of(self.obj)

    async def remember(self, entry: Entry, status: Status) -> Entry:
        """Raises ``ApiError``: 409 or 422 where somebody wrote meanwhile."""
        return entry_of(await self.write(entry.version, entry.uid, self._body(entry.generation, status)))

    async def ask(self, entry: Entry, spec: Spec) -> Entry:
        """Ask for something else, as whoever edits the object does. Raises ``ApiError``."""
        found = await self._asked(entry, spec)
        if found.generation == entry.generation:  # the same again (`resume` after a halt): it has to be news
            other = msgspec.structs.replace(spec, paused=not spec.paused)
            found = await self._asked(await self._asked(found, other), spec)
        return found

    async def _asked(self, entry: Entry, spec: Spec) -> Entry:
        changes = [
            *tests({"uid": entry.uid, "resourceVersion": entry.version}),
            {"op": "add", "path": "/spec", "value": encode_spec(spec)},
        ]
        self.obj = await self._api.patch(RELEASES, self.name, Patch(changes, "json"), self.namespace)
        return entry_of(self.obj)

    async def begin(self, spec: Spec, status: Status | None = None) -> Entry:
        """Raises ``ApiError``: 409 where there is one of that name, 422 for what the schema refuses."""
        del status
        made = {
            "apiVersion": RELEASES.api_version,
            "kind": RELEASES.kind,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": encode_spec(spec),
        }
        self.obj = await self._api.create(RELEASES, made, self.namespace)
        return entry_of(self.obj)

    async def show(self) -> None:
        """Write ``ready`` and the conditions where they say something else than what stands there."""
        entry = entry_of(self.obj)
        body = self._body(entry.generation, entry.status)
        if body != (self.obj.get("status") or {}):
            await self.write(entry.version, entry.uid, body)

    async def refuse(self, reason: str, message: str) -> None:
        """Say why it is not acted on; what the engine remembers stays as it is. Raises ``ApiError``."""
        metadata = self.obj["metadata"]
        before: JsonObject = self.obj.get("status") or {}
        at, generation = instant(vtime.now()), int(metadata.get("generation") or 0)
        refused = conditions.refused(before.get("conditions") or [], conditions.Word(reason, message), at, generation)
        body = {**before, "reason": message, "observedGeneration": generation, "conditions": refused}
        body.setdefault("phase", "pending")
        if body != before:
            await self.write(metadata["resourceVersion"], metadata["uid"], body)

    async def finalize(self, is_wanted: bool) -> None:
        """Put our finalizer on, or take it off. Raises ``ApiError``."""
        metadata = self.obj["metadata"]
        others = [one for one in metadata.get("finalizers") or [] if one != FINALIZER]
        wanted = [*others, FINALIZER] if is_wanted else others
        changes = tests(metadata)
        changes.append({"op": "add", "path": "/metadata/finalizers", "value": wanted})
        self.obj = await self._api.patch(RELEASES, self.name, Patch(changes, "json"), self.namespace)

    async def write(self, version: str, uid: str, body: JsonObject) -> JsonObject:
        """The whole status at once: a merge would keep what is not so any more. Raises ``ApiError``."""
        before: JsonObject = self.obj.get("status") or {}
        changes = [*tests({"uid": uid, "resourceVersion": version}), {"op": "add", "path": "/status", "value": body}]
        self.obj = await self._api.patch(RELEASES, self.name, Patch(changes, "json", "status"), self.namespace)
        self.wrote(self.obj, before, body)
        return self.obj

    def _body(self, generation: int, status: Status) -> JsonObject:
        before: list[dict[str, Any]] = (self.obj.get("status") or {}).get("conditions") or []
        # As it comes back from the API: lists, no tuples. What compares as different is written again.
        body: JsonObject = msgspec.json.decode(msgspec.json.encode(encode_status(status)))
        body.setdefault("phase", status.phase)
        body["observedGeneration"] = generation
        preview = ((self.obj["spec"] or {}).get("bluegreen") or {}).get("preview") or ""
        body["conditions"] = conditions.of(status, before, instant(vtime.now()), generation, preview)
        if self.ready:
            body["ready"] = self.ready
        return body


def entry_of(obj: JsonObject) -> Entry:
    """Raises ``Invalid``, ``ValueError``."""
    metadata = obj["metadata"]
    return Entry(
        namespace=metadata["namespace"],
        name=metadata["name"],
        spec=decode_spec(obj.get("spec") or {}),
        status=decode_status(obj.get("status") or {}),
        generation=int(metadata.get("generation") or 0),
        version=metadata["resourceVersion"],
        uid=metadata["uid"],
        is_leaving="deletionTimestamp" in metadata,
    )


async def list_objects(api: Api, namespace: str) -> list[Entry]:
    """Every Release of a namespace, "" for all. One that cannot be read is left out: its condition says why."""
    found = []
    for obj in (await api.list(RELEASES, Selection(namespace))).items:
        with contextlib.suppress(ValueError):
            found.append(entry_of(obj))
    return found


async def book_of(api: Api, namespace: str, workload: str) -> ObjectBook:
    """Of the Release of a workload; a new one takes the workload's name. Raises ``KubeError``."""
    for entry in await list_objects(api, namespace):
        if entry.spec.workload == workload:
            return ObjectBook(api, namespace, entry.name)
    return ObjectBook(api, namespace, workload)
