"""One watch of one kind over the whole cluster that keeps no objects: bytes in, a few fields out.

Ten thousand Releases as decoded dicts are hundreds of MB; what the operator needs of one that rests is a version and a
phase. So lines are decoded straight into small structs, and what is not asked for is never built.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

import msgspec

from tidegate.kube.api import Resource
from tidegate.kube.client import LIST_PAGE, KubeClient
from tidegate.kube.errors import ApiError, KubeError, Unreachable, from_status
from tidegate.kube.exchange import Request
from tidegate.kube.reflector import Key

WATCH_SECONDS = 290
_BACKOFF_SECONDS_MIN, _BACKOFF_SECONDS_MAX = 0.2, 30.0
_QUIET_SECONDS = 1.0


class Meta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Of metadata, what is looked at."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""


class _Line(msgspec.Struct, frozen=True, gc=False):
    type: str
    object: msgspec.Raw


class _Marked(msgspec.Struct, frozen=True, gc=False):
    metadata: Meta


class _PageMeta(msgspec.Struct, frozen=True, gc=False):
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    more: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct, frozen=True, gc=False):
    items: list[msgspec.Raw] | None = None
    metadata: _PageMeta = _PageMeta()


S = TypeVar("S")
Told = Callable[[Key, "S | None", "S | None"], None]
"""(key, old, new): old None = appeared, new None = gone."""


class TypedWatch(Generic[S]):
    """``await run()`` keeps ``known`` (key -> a struct of ``shape``) current for ever.

    ``shape`` has a ``metadata: Meta``. Level-triggered as ``kube.reflector`` is. An object that does not fit is passed
    over and counted in ``misfits``: the API server's schema is there to keep such from being stored.
    """

    def __init__(self, client: KubeClient, resource: Resource, shape: type[S], rng: random.Random) -> None:
        self._client, self.resource, self._rng = client, resource, rng
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(shape)
        self._lines = msgspec.json.Decoder(_Line)
        self._pages = msgspec.json.Decoder(_Page)
        self._marks = msgspec.json.Decoder(_Marked)
        self.known: dict[Key, S] = {}
        self.told: Told[S] = lambda key, old, new: None
        self.error: KubeError | None = None
        self.misfits = 0
        self._version = ""
        self._synced = asyncio.Event()

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    async def synced(self) -> None:
        await self._synced.wait()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = _BACKOFF_SECONDS_MIN
        while True:
            began = loop.time()
            try:
                if not self._version:
                    await self._list()
                await self._follow()
                if loop.time() - began >= _QUIET_SECONDS:
                    backoff = _BACKOFF_SECONDS_MIN
                    continue
            except ApiError as error:
                self.error, self._version = error, ""
                if error.is_expired:
                    continue
            except KubeError as error:
                self.error = error
            await asyncio.sleep(backoff * (0.75 + self._rng.random() / 2))
            backoff = min(backoff * 2, _BACKOFF_SECONDS_MAX)

    async def _list(self) -> None:
        """In pages; what is not there any more goes last, as one that moved would otherwise be gone for a moment."""
        query = {"limit": str(LIST_PAGE)}
        seen: dict[Key, None] = {}
        while True:
            page = self._pages.decode(await self._read(query))
            for raw in page.items or ():
                found = self._shaped(raw)
                if found is not None:
                    seen[found[0]] = None
                    self._change(*found)
            if not page.metadata.more:
                break
            query["continue"] = page.metadata.more
        for key in [key for key in self.known if key not in seen]:
            self._change(key, None)
        self._version = page.metadata.resource_version
        self.error = None
        self._synced.set()

    async def _read(self, query: dict[str, str]) -> bytes:
        path = self.resource.path()
        response = await self._client.request(
            Request("GET", path, tuple(query.items()), {"accept": "application/json"})
        )
        return await response.read()

    async def _follow(self) -> None:
        async for line in self._watched():
            try:
                event = self._lines.decode(line)
                if event.type == "ERROR":
                    raise from_status(msgspec.json.decode(event.object))
                self._version = self._marks.decode(event.object).metadata.resource_version or self._version
            except msgspec.DecodeError as error:
                raise Unreachable(f"a watch of {self.resource.plural} is not readable: {error}") from error
            self.error = None
            if event.type == "BOOKMARK":
                continue
            found = self._shaped(event.object)
            if found is not None:
                self._change(found[0], None if event.type == "DELETED" else found[1])

    async def _watched(self) -> AsyncIterator[bytes]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": self._version,
        }
        path = self.resource.path()
        response = await self._client.request(
            Request("GET", path, tuple(query.items()), {"accept": "application/json"})
        )
        rest = b""
        try:
            async for chunk in response.chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield line
        finally:
            await response.close()

    def _shaped(self, raw: msgspec.Raw) -> tuple[Key, S] | None:
        try:
            found = self._decoder.decode(raw)
        except msgspec.DecodeError:
            self.misfits += 1
            return None
        return (found.metadata.namespace, found.metadata.name), found

    def _change(self, key: Key, new: S | None) -> None:
        old = self.known.pop(key, None)
        if new is not None:
            self.known[key] = new
        if (old is None and new is None) or old == new:
            return
        self.told(key, old, new)


class WorkloadSeen(msgspec.Struct, frozen=True, gc=False):
    """Of a Deployment: its name and whether what is asked of it changes."""

    metadata: Meta


class ReleaseSpecSeen(msgspec.Struct, frozen=True, gc=False):
    """Of a Release's spec."""

    workload: str = ""


class ReleaseStatusSeen(msgspec.Struct, frozen=True, gc=False):
    """Of a Release's status."""

    phase: str = "pending"
    generation: int = 0
    holder: str = ""


class ReleaseSeen(msgspec.Struct, frozen=True, gc=False):
    """Of a Release, what says whether anybody has to look at it."""

    metadata: Meta
    spec: ReleaseSpecSeen = ReleaseSpecSeen()
    status: ReleaseStatusSeen = ReleaseStatusSeen()
