"""The fence's only writer: reads what stands, writes the next epoch, never adopts what it finds.

An epoch counts for a drain only when this process sent it after the drain's clean LIST and the API server took
it. A write whose reply was lost counts for nothing: the next one is a later epoch, and a late arrival of the lost
one loses its resourceVersion test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from tidegate import vtime
from tidegate.drain import fence
from tidegate.drain.fence import FenceWrite
from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Api, JsonObject, Patch
from tidegate.kube.errors import ApiError
from tidegate.model.epoch import SIZE, Epoch
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name

CLOCK_START = datetime(2026, 1, 1, tzinfo=UTC)
EPOCHS_PER_SECOND = 2 * round(1 / fence.COALESCE_SECONDS)
"""Twice what one writer writes: an installation takes two numbers at once. The circle then lasts 13 years."""


def epoch_by_clock(install: str, now: datetime) -> Epoch:
    """An epoch no earlier than any written since ``CLOCK_START``, whoever deleted the fence meanwhile.

    At most one epoch is tried per 100 ms, so the clock runs ahead of the writers. Without this floor a fence
    that was deleted and installed again would start at 0, and a node still showing epoch 500 would "reach" it.
    """
    return Epoch(install, int((now - CLOCK_START).total_seconds() * EPOCHS_PER_SECOND) % SIZE)


class Fencing:
    """Writes epochs of one install. Not for concurrent use: one writer task per process."""

    def __init__(self, api: Api, install: str) -> None:
        self._api = api
        self._install = install
        self._stored: dict[str, JsonObject] = {}
        self._families: tuple[str, ...] = ()
        self._tried: Epoch | None = None
        self._wrote: Epoch | None = None
        self.last_sent_at: float | None = None
        self.service_name = fence_name(install)

    @property
    def latest(self) -> Epoch | None:
        """The last epoch that was sent, taken or not, or that was seen to stand there; None before any."""
        return self._tried

    async def write(self) -> FenceWrite:
        """Write the next epoch, in every address family. Raises ``KubeError`` (a conflict included): then nothing was
        written for us, even where one family's slice was: the next epoch is a later one in both."""
        stored, self._stored = self._stored, {}
        if not stored:
            self._families = await self.ensure_service()
            stored = {family: await self._read(family) for family in self._families}
        epoch = self._after(stored.values())
        self._tried = epoch
        self.last_sent_at = sent_at = asyncio.get_running_loop().time()
        written = {}
        for family, slice_ in stored.items():
            body = fence.fence_slice(epoch, slice_["metadata"]["resourceVersion"], family)
            written[family] = await self._api.replace(ENDPOINTSLICES, body)
        self._stored = written
        self._wrote = epoch
        return FenceWrite(epoch, sent_at)

    @property
    def slice_names(self) -> tuple[str, ...]:
        """Of the slices that show the epoch, one for each family; none before the first write."""
        return tuple(fence.slice_name(self._install, family) for family in self._families)

    def saw(self, slice_: JsonObject) -> None:
        """The fence's slice as a watch shows it. A number that somebody else wrote is passed over from now on: a node
        that lags may go on showing it long after it was taken back."""
        try:
            shown = fence.read_slice(slice_)
        except ValueError:
            return
        if shown.install == self._install and self._tried is not None and not self._tried.reaches(shown):
            self._tried = shown

    def is_broken(self, service: JsonObject | None, slices: Iterable[JsonObject | None]) -> bool:
        """Whether the fence, as the watches have it (``slices`` in the order of ``slice_names``), is not what was last
        written: no node will ever show that then. True also makes the next write look at everything anew."""
        wrote = self._wrote
        if wrote is None:
            return False
        is_carried = _carries(service, self._install) and fence.families_of(service or {}) == self._families
        if is_carried and all(_shows(one, wrote) for one in slices):
            return False
        self._stored = {}
        return True

    def _after(self, stored: Iterable[JsonObject]) -> Epoch:
        latest = self._tried or epoch_by_clock(self._install, vtime.now())
        for slice_ in stored:
            try:
                found = fence.read_slice(slice_)
            except ValueError:  # somebody emptied it: its number is lost, ours and the clock's are not
                continue
            latest = found if found.reaches(latest) else latest
        return fence.next_epoch(latest)

    async def _read(self, family: str) -> JsonObject:
        """The fence's slice of ``family``; made anew where somebody deleted it."""
        try:
            return await self._api.get(ENDPOINTSLICES, fence.slice_name(self._install, family), SYSTEM_NAMESPACE)
        except ApiError as error:
            if not error.is_not_found:
                raise
        first = self._tried or epoch_by_clock(self._install, vtime.now())
        made = fence.fence_slice(first.next(), family=family)
        return await self._api.create(ENDPOINTSLICES, made, SYSTEM_NAMESPACE)

    async def ensure_service(self) -> tuple[str, ...]:
        """The Service that makes every data plane carry the fence, made anew or set right; its address families."""
        ours = fence.fence_service(self._install)
        try:
            found = await self._api.get(SERVICES, self.service_name, SYSTEM_NAMESPACE)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return fence.families_of(await self._api.create(SERVICES, ours, SYSTEM_NAMESPACE))
        if not _carries(found, self._install):
            right = Patch({"spec": {"selector": None, **_kept(ours["spec"])}})
            found = await self._api.patch(SERVICES, self.service_name, right, SYSTEM_NAMESPACE)
        return fence.families_of(found)


def _carries(service: JsonObject | None, install: str) -> bool:
    """Whether data planes carry the fence's slices by this Service: its port by name, no pods of its own, and every
    address family it can have."""
    if service is None or service["spec"].get("selector") or service["spec"].get("ipFamilyPolicy") == "SingleStack":
        return False
    [ours] = fence.fence_service(install)["spec"]["ports"]
    return [port.get("name") for port in service["spec"].get("ports") or ()] == [ours["name"]]


def _kept(spec: JsonObject) -> JsonObject:
    return {key: spec[key] for key in ("ipFamilyPolicy", "ports")}


def _shows(slice_: JsonObject | None, wrote: Epoch) -> bool:
    """Whether data planes learn ``wrote``, or a later one, from this slice."""
    if slice_ is None:
        return False
    try:
        shown = fence.read_slice(slice_)
    except ValueError:
        return False
    service = slice_["metadata"]["labels"].get("kubernetes.io/service-name")
    is_ready = (slice_["endpoints"][0].get("conditions") or {}).get("ready") is not False
    return is_ready and service == fence_name(wrote.install) and shown.reaches(wrote)
