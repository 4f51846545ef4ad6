"""The live fence: answers on one port for each epoch of late, and keeps its slice at the last one written.

Only while an observer of kind ``behavioural`` is configured. The responder is the coordinator itself, on its node's
address: whoever holds the Lease writes its own. Behind the fence, never ahead of it, as ``dnsfence``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from tidegate.drain.livefence import live_service, live_slice
from tidegate.kube import wire
from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Api, JsonObject
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Exchange, Request, Response, whole
from tidegate.model.epoch import SIZE, Epoch
from tidegate.model.livefence import LIVE_PORT, PATH, SLOTS, live_name, port_of, slot_of
from tidegate.model.names import SYSTEM_NAMESPACE

RETRY_SECONDS = 0.2
GUARD_SECONDS = 5.0
KEPT = SLOTS // 2
"""Slots that answer: the later half of the circle. A data plane that is further behind is refused, which says nothing,
instead of answering by a slot that is about to be another epoch's."""


class LiveFence:
    """``show`` an epoch; ``run`` answers and writes. ``addresses`` are where it is dialled, empty until known.

    ``floor``: the earliest epoch that any observer may still be at. No epoch is written that is ``KEPT`` or more ahead
    of it, or a slot would have two meanings: a data plane that stood still would be taken for one that is up to date.
    """

    def __init__(
        self, api: Api, install: str, host: str, floor: Callable[[], Epoch | None], log: Callable[[str], None]
    ) -> None:
        self._floor = floor
        self._api = api
        self._install = install
        self._host = host
        self._log = log
        self._wanted: Epoch | None = None
        self._news = asyncio.Event()
        self._servers: dict[int, wire.Server] = {}
        self.addresses: tuple[str, ...] = ()
        self.latest: Epoch | None = None
        """The last one sent."""

    def show(self, epoch: Epoch) -> None:
        if self._wanted is None or epoch.reaches(self._wanted):
            self._wanted = epoch
            self._news.set()

    async def run(self) -> None:
        """For ever. Looked at again every few seconds, whoever changed it."""
        try:
            while True:
                try:
                    async with asyncio.timeout(self._pause()):
                        await self._news.wait()
                except TimeoutError:
                    pass
                self._news.clear()
                try:
                    await self._listen()
                    await self._write()
                except (KubeError, OSError) as error:
                    self._log(f"the live fence is not written: {error}")
                    await asyncio.sleep(RETRY_SECONDS)
                    self._news.set()
        finally:
            for slot in list(self._servers):
                await self._servers.pop(slot).close()

    async def _listen(self) -> None:
        """Before it is written: a data plane must never be led where nobody answers, for a SYN that is lost there makes
        its source port go there for two minutes (conntrack, SYN_SENT; measured)."""
        last = slot_of(self._allowed())
        kept = [(last - behind) % SLOTS for behind in range(KEPT)]
        for slot in [slot for slot in self._servers if slot not in kept]:
            await self._servers.pop(slot).close()
        for slot in kept:
            if slot not in self._servers:
                self._servers[slot] = await wire.serve(self._answering(slot), self._host, port_of(slot))

    def _answering(self, slot: int) -> Exchange:
        async def answer(request: Request) -> Response:
            if request.path != PATH:
                return whole(404, b"this is a fence\n", "text/plain")
            body = msgspec.json.encode({"install": self._install, "slot": slot})
            return whole(200, body, cache_control="no-store")

        return answer

    def _pause(self) -> float | None:
        """Until the next look without news: soon while an epoch is kept back."""
        if self._wanted is None:
            return None
        return GUARD_SECONDS if self.latest == self._wanted else RETRY_SECONDS

    def _allowed(self) -> Epoch:
        """What may be shown now: the epoch that is wanted, or the last one that no slot's earlier use forbids."""
        assert self._wanted is not None
        floor = self._floor()
        if floor is None or not self._wanted.reaches(floor):
            return self._wanted
        ahead = (self._wanted.number - floor.number) % SIZE
        return self._wanted if ahead < KEPT else Epoch(self._install, (floor.number + KEPT - 1) % SIZE)

    async def _write(self) -> None:
        epoch = self._allowed()
        if not self.addresses:
            service = await self._service()
            self.addresses = tuple(f"{_bracketed(one)}:{LIVE_PORT}" for one in service["spec"]["clusterIPs"])
        try:
            stored = await self._api.get(ENDPOINTSLICES, live_name(self._install), SYSTEM_NAMESPACE)
        except ApiError as error:
            if not error.is_not_found:
                raise
            self.latest = epoch
            self.addresses = ()  # whoever deleted the slice may have deleted the Service: look at it next time
            await self._api.create(ENDPOINTSLICES, live_slice(epoch, self._host), SYSTEM_NAMESPACE)
            self._news.set()
            return
        self.latest = epoch
        wanted = live_slice(epoch, self._host, stored["metadata"]["resourceVersion"])
        if any(stored.get(key) != wanted[key] for key in ("addressType", "endpoints", "ports")):
            await self._api.replace(ENDPOINTSLICES, wanted)

    async def _service(self) -> JsonObject:
        try:
            return await self._api.get(SERVICES, live_name(self._install), SYSTEM_NAMESPACE)
        except ApiError as error:
            if not error.is_not_found:
                raise
        return await self._api.create(SERVICES, live_service(self._install), SYSTEM_NAMESPACE)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
