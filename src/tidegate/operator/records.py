"""The ledger of the operator: a ``Drain`` object for each retirement. Bounded; a full one never stops a drain.

Of each namespace the newest ``KEPT_PER_NAMESPACE`` stay, and none for longer than ``KEPT_SECONDS``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime

from tidegate import vtime
from tidegate.drain.ledger import Entry
from tidegate.engine.ledger import Ledger, Read
from tidegate.kube.api import DRAINS, JsonObject, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import MANAGED_BY, TIDEGATE
from tidegate.operator.drain_object import entry_of, name_of, object_of

KEPT_PER_NAMESPACE = 500
KEPT_SECONDS = 30 * 24 * 3600.0
WAITING_MAX = 2000
SWEEP_SECONDS = 3600.0
TRIES = 5
RETRY_SECONDS = 1.0
SETTLED_SECONDS = 2.0


class Records(Ledger):
    """``write`` takes an entry at any time; ``run`` makes it an object. ``saw`` is told of each."""

    def __init__(self, client: KubeClient, may_write: Callable[[], bool], kept: int = KEPT_PER_NAMESPACE) -> None:
        super().__init__()
        self.saw: Callable[[Entry], None] = lambda entry: None
        self.dropped = 0
        self._client, self._may_write, self._kept = client, may_write, kept
        self._waiting: deque[Entry] = deque()
        self._recent: dict[str, None] = {}
        self._filled = asyncio.Event()

    def write(self, entry: Entry) -> None:
        """Never raises, never waits."""
        self.saw(entry)
        if not entry.namespace:
            return
        if entry.uid:
            while len(self._recent) >= WAITING_MAX:
                del self._recent[next(iter(self._recent))]
            self._recent[entry.uid] = None
        if len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            self._waiting.popleft()
        self._waiting.append(entry)
        self._filled.set()

    async def settled(self) -> None:
        """Until every record is an object, or has had its time: a full ledger stops no drain."""
        until = asyncio.get_running_loop().time() + SETTLED_SECONDS
        while self._waiting and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(SETTLED_SECONDS / 50)

    def knows(self, uid: str) -> bool:
        """Whether the retirement of that pod was written not long ago."""
        return uid in self._recent

    def read(self) -> Read:
        """What is on its way; the rest is in the API (``found``)."""
        return Read(tuple(self._waiting))

    async def found(self, namespace: str = "") -> tuple[Entry, ...]:
        """Every record that the API has. Raises ``KubeError``."""
        items = (await self._client.list(DRAINS, Selection(namespace))).items
        return tuple(entry_of(one) for one in items)

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        swept = loop.time()
        while True:
            if not self._waiting:
                self._filled.clear()
                try:
                    async with asyncio.timeout(SWEEP_SECONDS):
                        await self._filled.wait()
                except TimeoutError:
                    pass
            if self._waiting:
                await self._send(self._waiting[0])
                if self._waiting:
                    self._waiting.popleft()
            if loop.time() - swept >= SWEEP_SECONDS and self._may_write():
                swept = loop.time()
                await self._sweep()

    async def _send(self, entry: Entry) -> None:
        for attempt in range(TRIES):
            try:
                await self._put(entry)
                return
            except ApiError as error:
                if error.code in (400, 403, 404, 413, 422):  # no kind, no room, no right: another try changes nothing
                    break
            except KubeError:
                pass
            await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        self.failure = f"the record of pod/{entry.pod} was not written"
        self.dropped += 1

    async def _put(self, entry: Entry) -> None:
        if entry.amends:
            changes = {"result": entry.result, "reason": entry.reason, "stragglers": list(entry.stragglers)}
            body = {"status": {**changes, "regressions": list(entry.regressions)}}
            await self._client.patch(DRAINS, name_of(entry), Patch(body), entry.namespace)
            return
        try:
            await self._client.create(DRAINS, object_of(entry), entry.namespace)
        except ApiError as error:
            if not error.is_conflict:  # it is there: an answer was lost
                raise

    async def _sweep(self) -> None:
        """The oldest beyond the bounds. What cannot be deleted now is with the next sweep."""
        try:
            items = (await self._client.list(DRAINS, Selection(labels=f"{MANAGED_BY}={TIDEGATE}"))).items
            for one in surplus(items, self._kept, vtime.now()):
                metadata = one["metadata"]
                await self._client.delete(DRAINS, metadata["name"], metadata["namespace"])
        except KubeError:
            return


def surplus(items: list[JsonObject], kept: int, now: datetime) -> list[JsonObject]:
    """Those beyond the newest ``kept`` of their namespace, and those that are too old; oldest first."""
    spaces: dict[str, list[JsonObject]] = {}
    for one in items:
        spaces.setdefault(one["metadata"]["namespace"], []).append(one)
    found = []
    for _, records in sorted(spaces.items()):
        newest = sorted(records, key=_age, reverse=True)
        is_old = [(now - datetime.fromisoformat(_age(one)[0])).total_seconds() > KEPT_SECONDS for one in newest]
        found += [one for number, one in enumerate(newest) if number >= kept or is_old[number]]
    return sorted(found, key=_age)


def _age(obj: JsonObject) -> tuple[str, str]:
    return str(obj["metadata"]["creationTimestamp"]), str(obj["metadata"]["name"])
