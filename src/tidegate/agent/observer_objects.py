"""``Observer`` objects: who is asked beside the nodes and beside the file, as the cluster says it now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tidegate.kube.api import OBSERVERS, Api, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request, Response, whole
from tidegate.kube.reflector import Reflector
from tidegate.observers import config
from tidegate.observers.config import Configured
from tidegate.vtime import Nursery

RETRY_SECONDS = 1.0
NO_KIND_SECONDS = 30.0
"""How often a cluster without the kind is looked at again: it may be installed later."""
GATHER_SECONDS = 0.5
"""Objects that are applied together are taken up together."""


class ObserverObjects:
    """``known`` are the observers of all objects; ``changed`` is set when they are others than those last ``taken``."""

    def __init__(self, api: Api, taken_names: tuple[str, ...], log: Callable[[str], None]) -> None:
        self._api, self._log = api, log
        self._names = taken_names
        self._copy = Reflector(api, OBSERVERS)
        self._synced = asyncio.Event()
        self._taken: tuple[str, ...] = ()
        self.changed = asyncio.Event()

    async def run(self) -> None:
        """For ever. A cluster that has no such kind has no such objects."""
        told = ""
        while True:
            try:
                await self._api.list(OBSERVERS)
                break
            except KubeError as error:
                has_no_kind = isinstance(error, ApiError) and error.is_not_found
                if has_no_kind:
                    self._synced.set()
                elif told != str(error):
                    told = str(error)
                    self._log(f"Observer objects cannot be listed, so nobody is told to let go: {error}")
                await asyncio.sleep(NO_KIND_SECONDS if has_no_kind else RETRY_SECONDS)
        self._copy.subscribe(lambda old, new: self._saw())
        async with Nursery() as nursery:
            nursery.start(self._copy.run(), name="observers")
            await self._copy.synced()
            self._saw()
            self._synced.set()

    async def take(self) -> tuple[Configured, ...]:
        """Those there are now, once that is known."""
        await self._synced.wait()
        await asyncio.sleep(GATHER_SECONDS if self.changed.is_set() else 0)
        self.changed.clear()
        self._taken = self._versions()
        return tuple(self._configured(obj) for _, obj in sorted(self._copy.objects.items()))

    def _saw(self) -> None:
        if self._versions() != self._taken:
            self.changed.set()

    def _versions(self) -> tuple[str, ...]:
        """What makes another set of observers: specs, not their statuses."""
        found = self._copy.objects.values()
        return tuple(sorted(f"{one['metadata']['name']}/{one['metadata'].get('generation', 0)}" for one in found))

    def _configured(self, obj: JsonObject) -> Configured:
        name = str(obj["metadata"]["name"])
        if name in self._names:
            return config.not_understood(name, f"observer/{name}: the observers' file has one of that name, too")
        try:
            return config.of_object(name, obj.get("spec"))
        except config.ConfigError as error:
            self._log(f"observer/{name} is not accepted: {error}")
            return config.not_understood(name, f"observer/{name} is not accepted: {error}")


class Kept(Protocol):
    """A coordinator."""

    async def run(self) -> None: ...

    async def exchange(self, request: Request) -> Response: ...


class Shift:
    """One coordinator after the other in one process: another set of observers is another coordinator, which begins as
    after a restart. Held gates keep holding meanwhile, and ask it anew."""

    def __init__(
        self, objects: ObserverObjects, begin: Callable[[tuple[Configured, ...]], Kept], log: Callable[[str], None]
    ) -> None:
        self._objects, self._begin, self._log = objects, begin, log
        self._current: Kept | None = None

    async def exchange(self, request: Request) -> Response:
        if self._current is None:
            return whole(503, b'{"message":"which observers there are is not known yet"}')
        return await self._current.exchange(request)

    async def run(self) -> None:
        """For ever."""
        while True:
            self._current = self._begin(await self._objects.take())
            async with Nursery() as nursery:
                nursery.start(self._current.run(), name="coordinator")
                await self._objects.changed.wait()
                self._log("other observers than before: beginning anew")
                nursery.cancel()
