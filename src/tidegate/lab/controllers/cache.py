"""Shared local copies of resources with the two indexes controllers ask for, and read-your-writes.

Every controller of the lab looks at the same copies (client-go's shared informers). ``when_seen`` lets one wait
until its own write has come back through the watch: what client-go does with expectations, by version instead
of by count, so a stale copy is never acted on twice.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from itertools import count

from tidegate.kube.api import Api, JsonObject, Resource
from tidegate.kube.reflector import Key, Reflector, Subscriber, key_of
from tidegate.lab.controllers.owners import controller_uid
from tidegate.vtime import Nursery


class Cache:
    """One resource of all namespaces. Objects are read-only by agreement."""

    def __init__(self, api: Api, resource: Resource) -> None:
        self.resource = resource
        self._reflector = Reflector(api, resource)
        self._subscribers: list[Subscriber] = []
        self._namespaces: dict[str, dict[str, JsonObject]] = {}
        self._owned: dict[str, dict[Key, JsonObject]] = {}
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._reflector.subscribe(self._changed)

    def get(self, key: Key) -> JsonObject | None:
        """The object of that namespace and name."""
        return self._namespaces.get(key[0], {}).get(key[1])

    def all(self) -> Iterable[JsonObject]:
        """Every object, in the order they became known."""
        return self._reflector.objects.values()

    def within(self, namespace: str) -> list[JsonObject]:
        """The objects of one namespace, in the order they became known."""
        return list(self._namespaces.get(namespace, {}).values())

    def owned_by(self, uid: str) -> list[JsonObject]:
        """The objects whose controller reference has this uid; "" gives the orphans of all namespaces."""
        return list(self._owned.get(uid, {}).values())

    def subscribe(self, subscriber: Subscriber) -> None:
        """Be told of every change after the indexes have it. Called at once for what is already known."""
        self._subscribers.append(subscriber)
        for obj in list(self._reflector.objects.values()):
            subscriber(None, obj)

    def has_seen(self, version: int) -> bool:
        """True when every change up to resourceVersion ``version`` of this resource is in the copy."""
        seen = self._reflector.resource_version
        return bool(seen) and int(seen) >= version

    def when_seen(self, version: int, callback: Callable[[], None]) -> None:
        """Call back once ``has_seen(version)``, after the subscribers were told."""
        heapq.heappush(self._waiting, (version, next(self._order), callback))

    async def synced(self) -> None:
        """Until the first list is in."""
        await self._reflector.synced()

    async def run(self) -> None:
        """Keep the copy current for ever."""
        await self._reflector.run()

    def _changed(self, old: JsonObject | None, new: JsonObject | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key = key_of(obj)
        if new is None:
            del self._namespaces[key[0]][key[1]]
        else:
            self._namespaces.setdefault(key[0], {})[key[1]] = new
        holder = controller_uid(new) if new is not None else None
        if old is not None and (before := controller_uid(old)) != holder:
            self._owned[before].pop(key, None)
            if not self._owned[before]:
                del self._owned[before]
        if new is not None and holder is not None:
            self._owned.setdefault(holder, {})[key] = new
        for subscriber in self._subscribers:
            subscriber(old, new)
        while self._waiting and self.has_seen(self._waiting[0][0]):
            heapq.heappop(self._waiting)[2]()


class Caches:
    """One ``Cache`` per resource, made when first asked for and started together."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._caches: dict[Resource, Cache] = {}
        self._running: dict[Resource, asyncio.Task[None]] = {}
        self._nursery: Nursery | None = None

    def of(self, resource: Resource) -> Cache:
        """The shared copy of a resource."""
        if resource not in self._caches:
            self._caches[resource] = Cache(self._api, resource)
        return self._caches[resource]

    async def synced(self) -> None:
        """Until every copy has its first list."""
        for cache in list(self._caches.values()):
            await cache.synced()

    async def run(self) -> None:
        """Keep them current for ever; ask for all you need before, or ``follow`` what comes later."""
        async with Nursery() as nursery:
            self._nursery = nursery
            for resource in list(self._caches):
                self.follow(resource)

    def follow(self, resource: Resource) -> None:
        """Keep the copy of a resource current from now on."""
        cache = self.of(resource)
        if self._nursery is not None and resource not in self._running:
            self._running[resource] = self._nursery.start(cache.run(), name=f"reflector {resource.plural}")

    def forget(self, resource: Resource) -> None:
        """The resource is no longer served: let its copy go."""
        self._caches.pop(resource, None)
        task = self._running.pop(resource, None)
        if task is not None:
            task.cancel()
