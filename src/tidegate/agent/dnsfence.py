"""Keeps the fence's headless twin at the last epoch written, for as long as an observer of DNS is configured.

Behind the fence, never ahead of it: an epoch is written here after the fence itself took it, so it is later than
everything that epoch stands for. A write that fails is tried again; meanwhile servers show an older epoch and wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.drain import fence
from tidegate.drain.dnsfence import headless_service, headless_slice, headless_slice_name
from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Api, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.dns import dns_fence_name
from tidegate.model.epoch import Epoch
from tidegate.model.names import SYSTEM_NAMESPACE

RETRY_SECONDS = 0.2
GUARD_SECONDS = 5.0
"""How long a slice that somebody deleted or took back may stay so while epochs are awaited."""


class DnsFence:
    """``show`` an epoch; ``run`` writes it until it stands."""

    def __init__(self, api: Api, install: str, log: Callable[[str], None]) -> None:
        self._api = api
        self._install = install
        self._log = log
        self._wanted: Epoch | None = None
        self._news = asyncio.Event()
        self._families: tuple[str, ...] = ()

    def show(self, epoch: Epoch) -> None:
        if self._wanted is None or epoch.reaches(self._wanted):
            self._wanted = epoch
            self._news.set()

    async def run(self) -> None:
        """For ever. Looked at again every few seconds, whoever changed it."""
        while True:
            try:
                async with asyncio.timeout(GUARD_SECONDS if self._wanted is not None else None):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self._write()
            except KubeError as error:
                self._log(f"the headless fence is not written: {error}")
                await asyncio.sleep(RETRY_SECONDS)
                self._news.set()

    async def _write(self) -> None:
        epoch = self._wanted
        assert epoch is not None
        if not self._families:
            self._families = fence.families_of(await self._service())
        for family in self._families:
            await self._write_slice(epoch, family)

    async def _service(self) -> JsonObject:
        try:
            return await self._api.get(SERVICES, dns_fence_name(self._install), SYSTEM_NAMESPACE)
        except ApiError as error:
            if not error.is_not_found:
                raise
        return await self._api.create(SERVICES, headless_service(self._install), SYSTEM_NAMESPACE)

    async def _write_slice(self, epoch: Epoch, family: str) -> None:
        name = headless_slice_name(self._install, family)
        try:
            stored = await self._api.get(ENDPOINTSLICES, name, SYSTEM_NAMESPACE)
        except ApiError as error:
            if not error.is_not_found:
                raise
            self._families = ()  # whoever deleted the slice may have deleted the Service: look at it next time
            await self._api.create(ENDPOINTSLICES, headless_slice(epoch, family), SYSTEM_NAMESPACE)
            return
        if not _shows(stored, epoch):
            version = stored["metadata"]["resourceVersion"]
            await self._api.replace(ENDPOINTSLICES, headless_slice(epoch, family, version))


def _shows(stored: JsonObject, epoch: Epoch) -> bool:
    """Whether it shows ``epoch`` or a later one already (another coordinator's) and carries what DNS reads."""
    try:
        shown = fence.read_slice(stored)
    except ValueError:
        return False
    ours = headless_slice(epoch, stored.get("addressType", ""))["metadata"]["labels"]
    labels = stored["metadata"].get("labels") or {}
    return shown.reaches(epoch) and all(labels.get(key) == value for key, value in ours.items())
