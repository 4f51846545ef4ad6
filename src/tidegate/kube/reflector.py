"""A local copy of one resource, kept by list and watch.

Level-triggered: after any break it lists again and tells subscribers the differences, so a missed event is
never a missed state. Order is the server's (one watch of one resource arrives in resourceVersion order).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.kube.api import ALL, Api, JsonObject, Resource, Selection
from tidegate.kube.errors import ApiError, KubeError

Key = tuple[str, str]
"""(namespace, name)."""

Subscriber = Callable[[JsonObject | None, JsonObject | None], None]
"""Called with (old, new): old ``None`` = appeared, new ``None`` = gone."""

_BACKOFF_SECONDS_MIN = 0.2
_BACKOFF_SECONDS_MAX = 10.0
"""client-go's reflector backs off 0.8 s to 30 s; ours is shorter: a drain waits for what it cannot see."""

_WATCH_SECONDS_MIN = 1.0
"""A watch that ends sooner, without a word, is the work of something between: not asked for again at once."""


def key_of(obj: JsonObject) -> Key:
    metadata = obj["metadata"]
    return (metadata.get("namespace") or "", metadata["name"])


class Reflector:
    """``await run()`` keeps ``objects`` current for ever. ``relists``: after every break, not only where it has to, so
    that ``error`` is over as soon as the API answers (a watch that is up again and has nothing to tell looks like one
    that is not)."""

    def __init__(self, api: Api, resource: Resource, select: Selection = ALL, *, relists: bool = False) -> None:
        self._api = api
        self._select = select
        self._relists = relists
        self.resource = resource
        self.objects: dict[Key, JsonObject] = {}
        self.resource_version = ""
        self.error: KubeError | None = None
        """Why the copy may be stale right now; ``None`` while the watch is up."""
        self._subscribers: list[Subscriber] = []
        self._synced = asyncio.Event()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Be told of every change, in order. Called at once for what is already known."""
        self._subscribers.append(subscriber)
        for obj in list(self.objects.values()):
            subscriber(None, obj)

    async def synced(self) -> None:
        """Until the first list is in."""
        await self._synced.wait()

    async def run(self) -> None:
        backoff = _BACKOFF_SECONDS_MIN
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if not self.resource_version:
                    await self._relist()
                await self._follow()
                if loop.time() - began >= _WATCH_SECONDS_MIN:
                    backoff = _BACKOFF_SECONDS_MIN
            except ApiError as error:
                self.error = error
                self.resource_version = ""
                if error.is_expired:
                    continue
            except KubeError as error:
                self.error = error
                if self._relists:
                    self.resource_version = ""
            if self.error is not None or loop.time() - began < _WATCH_SECONDS_MIN:
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_SECONDS_MAX)

    async def _relist(self) -> None:
        listing = await self._api.list(self.resource, self._select)
        seen = {key_of(obj): obj for obj in listing.items}
        for key in [key for key in self.objects if key not in seen]:
            self._change(key, None)
        for key, obj in seen.items():
            old = self.objects.get(key)
            if old is None or old["metadata"].get("resourceVersion") != obj["metadata"].get("resourceVersion"):
                self._change(key, obj)
        self.resource_version = listing.resource_version
        self.error = None
        self._synced.set()

    async def _follow(self) -> None:
        async for event in self._api.watch(self.resource, self._select, self.resource_version):
            self.error = None
            self.resource_version = event.object["metadata"]["resourceVersion"]
            if event.type == "DELETED":
                self._change(key_of(event.object), None)
            elif event.type != "BOOKMARK":
                self._change(key_of(event.object), event.object)

    def _change(self, key: Key, new: JsonObject | None) -> None:
        old = self.objects.pop(key, None)
        if new is not None:
            self.objects[key] = new
        if old is None and new is None:
            return
        for subscriber in self._subscribers:
            subscriber(old, new)
