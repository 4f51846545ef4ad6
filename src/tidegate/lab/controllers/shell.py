"""The thin shell around every reconcile: queue, workers, writes, and waiting for one's own writes to come back.

A controller of the lab is a ``Controller`` with a ``reconcile(key)`` that reads the shared copies, asks a pure
function what to write, and hands the writes to ``perform``. After a write the key is not reconciled again until
the copy has seen that write (``cache.Cache.when_seen``), so no pass ever acts on what it has changed itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from tidegate.kube.api import Api, JsonObject, Resource
from tidegate.kube.errors import KubeError
from tidegate.kube.reflector import Key, key_of
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.cache import Cache, Caches
from tidegate.lab.controllers.queue import BACKOFF_SECONDS, WorkQueue
from tidegate.lab.controllers.writes import Amend, Create, Remove, Replace, Say, Write
from tidegate.lab.events import Recorder, Source
from tidegate.vtime import Nursery

_log = logging.getLogger(__name__)

_UNSEEN_SECONDS_MAX = 5.0
"""How long a key waits for its own write to come back before it goes on regardless (a relist may skip it).
client-go's expectations give up after 300 s; a lab's watch is in the same process or one socket away."""


@dataclass(frozen=True, slots=True)
class World:
    """What every controller is given."""

    api: Api
    caches: Caches
    config: LabConfig


@dataclass(slots=True)
class _Awaited:
    versions: dict[Resource, int] = field(default_factory=dict)
    until: float = 0.0
    is_announced: bool = False


class Controller:
    """A queue of keys, ``workers`` tasks, and ``reconcile`` for each key. Subclasses subscribe in ``__init__``."""

    component = "controller"
    workers = 2
    backoff_seconds = BACKOFF_SECONDS

    def __init__(self, world: World) -> None:
        self.world = world
        self.api = world.api
        self.queue = WorkQueue(self.backoff_seconds)
        self.recorder = Recorder(world.api, Source(self.component))
        self._awaited: dict[Key, _Awaited] = {}

    def cache(self, resource: Resource) -> Cache:
        """The shared copy of a resource."""
        return self.world.caches.of(resource)

    def enqueue(self, obj: JsonObject) -> None:
        """Have the object's own key reconciled."""
        self.queue.add(key_of(obj))

    async def reconcile(self, key: Key) -> float | None:
        """One level-triggered pass; answers in how many seconds to look again, or None."""
        raise NotImplementedError

    async def run(self) -> None:
        """Reconcile for ever, once the copies are in."""
        await self.world.caches.synced()
        try:
            async with Nursery() as nursery:
                nursery.start(self.recorder.run(), name=f"{self.component} events")
                for index in range(self.workers):
                    nursery.start(self._work(), name=f"{self.component} {index}")
        finally:
            self.queue.close()

    async def perform(self, key: Key, writes: Iterable[Write]) -> None:
        """Carry writes out in order on behalf of ``key``; the first error ends the pass."""
        written: dict[tuple[Resource, Key], tuple[str, str]] = {}
        for write in writes:
            if isinstance(write, Replace):
                write = self._chained(write, written)
            answer = await self.carry_out(key, write)
            if isinstance(write, Replace) and answer is not None:
                old, new = write.obj["metadata"].get("resourceVersion"), answer["metadata"]["resourceVersion"]
                written[write.resource, key_of(answer)] = (old, new)

    async def carry_out(self, key: Key, write: Write) -> JsonObject | None:
        """One write; the answer is remembered as something ``key`` must see before its next pass."""
        match write:
            case Say(about, event):
                self.recorder.event(about, event)
                return None
            case Create(resource, obj):
                answer = await self.api.create(resource, obj, obj["metadata"].get("namespace") or "")
            case Replace(resource, obj, subresource):
                answer = await self.api.replace(resource, obj, subresource)
            case Amend(resource, (namespace, name), patch):
                answer = await self.api.patch(resource, name, patch, namespace)
            case Remove(resource, (namespace, name), options):
                answer = await self.api.delete(resource, name, namespace, options)
        self._await(key, write.resource, answer)
        return answer

    def _chained(self, write: Replace, written: dict[tuple[Resource, Key], tuple[str, str]]) -> Replace:
        """A second PUT of one object in one pass follows the version the first one made."""
        meta = write.obj["metadata"]
        old, new = written.get((write.resource, key_of(write.obj)), ("", ""))
        if not old or meta.get("resourceVersion") != old:
            return write
        return Replace(write.resource, {**write.obj, "metadata": {**meta, "resourceVersion": new}}, write.subresource)

    def _await(self, key: Key, resource: Resource, answer: JsonObject) -> None:
        version = (answer.get("metadata") or {}).get("resourceVersion")
        if not version or answer.get("kind") == "Status":
            return
        awaited = self._awaited.setdefault(key, _Awaited())
        awaited.versions[resource] = max(awaited.versions.get(resource, 0), int(version))
        awaited.until = asyncio.get_running_loop().time() + _UNSEEN_SECONDS_MAX
        awaited.is_announced = False

    def _must_wait(self, key: Key) -> bool:
        """True while the copies have not seen what the key's last pass wrote; the key comes back by itself."""
        awaited = self._awaited.get(key)
        if awaited is None:
            return False
        for resource, version in awaited.versions.items():
            cache = self.cache(resource)
            if cache.has_seen(version) or asyncio.get_running_loop().time() >= awaited.until:
                continue
            if not awaited.is_announced:
                awaited.is_announced = True
                cache.when_seen(version, partial(self._seen, key))
                self.queue.add_after(key, _UNSEEN_SECONDS_MAX)
            return True
        del self._awaited[key]
        return False

    def _seen(self, key: Key) -> None:
        awaited = self._awaited.get(key)
        if awaited is not None:
            awaited.is_announced = False
        self.queue.add(key)

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                if self._must_wait(key):
                    continue
                after = await self.reconcile(key)
                self.queue.forget(key)
                if after is not None:
                    self.queue.add_after(key, after)
            except KubeError as error:
                _log.debug("%s: %s will be retried: %s", self.component, key, error)
                self.queue.retry(key)
            except Exception:
                # One malformed object must not end the controllers of the whole lab.
                _log.exception("%s: %s failed", self.component, key)
                self.queue.retry(key)
            finally:
                self.queue.done(key)
