"""Events on Releases: what people see by ``kubectl describe``. Bounded: the same again is counted, not written anew.

core/v1, as ``kubectl describe`` and ``kubectl get events`` read them. An Event is a courtesy: one that cannot be
written is dropped and counted, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tidegate import vtime
from tidegate.engine.act import instant
from tidegate.kube.api import EVENTS, RELEASES, Api, JsonObject, Patch
from tidegate.kube.errors import ApiError, KubeError

COMPONENT = "tidegate"
WAITING_MAX = 1000
BURST, REFILL_SECONDS = 25, 10.0
"""For each object so many at once, and one more every so often (client-go's spam filter has 25 and 300 s)."""
KNOWN_MAX = 4096
MESSAGE_LENGTH_MAX = 1024
"""The API server refuses longer ones (validation of core/v1 Events)."""
Kind = Literal["Normal", "Warning"]


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


@dataclass(slots=True)
class Recorder:
    """``write`` is called at any time, ``run`` sends. ``may_write`` is asked first: who does not lead says nothing."""

    api: Api
    reporter: str
    may_write: Callable[[], bool] = lambda: True
    dropped: int = 0
    _waiting: deque[tuple[JsonObject, str]] = field(default_factory=deque)
    _filled: asyncio.Event = field(default_factory=asyncio.Event)
    _counts: dict[str, int] = field(default_factory=dict)
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def write(self, release: JsonObject, kind: Kind, reason: str, message: str) -> None:
        """One event about a Release object. Never raises."""
        metadata = release.get("metadata") or {}
        if not metadata.get("name") or not self.may_write():
            return
        message = message[:MESSAGE_LENGTH_MAX]
        same = hashlib.sha256(f"{metadata.get('uid')}/{reason}/{message}".encode()).hexdigest()[:16]
        if not self._may_say(str(metadata.get("uid"))) or len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
            return
        at = instant(vtime.now())
        name = f"{metadata['name'][:230]}.{same}"
        event: JsonObject = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": RELEASES.api_version,
                "kind": RELEASES.kind,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata.get("uid"),
                "resourceVersion": metadata.get("resourceVersion"),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": COMPONENT},
            "reportingComponent": f"tidegate.dev/{COMPONENT}",
            "reportingInstance": self.reporter,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        self._waiting.append((event, at))
        self._filled.set()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            event, at = self._waiting.popleft()
            try:
                await self._send(event, at)
            except KubeError:
                self.dropped += 1

    async def _send(self, event: JsonObject, at: str) -> None:
        metadata = event["metadata"]
        count = self._counts.get(metadata["name"], 0) + 1
        while len(self._counts) >= KNOWN_MAX:
            del self._counts[next(iter(self._counts))]
        self._counts[metadata["name"]] = count
        if count > 1:
            again = Patch({"count": count, "lastTimestamp": at})
            try:
                await self.api.patch(EVENTS, metadata["name"], again, metadata["namespace"])
                return
            except ApiError as error:
                if not error.is_not_found:  # an hour later it has expired
                    raise
        try:
            await self.api.create(EVENTS, event, metadata["namespace"])
        except ApiError as error:
            if not error.is_conflict:
                raise
            await self.api.patch(EVENTS, metadata["name"], Patch({"lastTimestamp": at}), metadata["namespace"])

    def _may_say(self, uid: str) -> bool:
        now = asyncio.get_running_loop().time()
        bucket = self._buckets.pop(uid, None) or _Bucket(BURST, now)
        while len(self._buckets) >= KNOWN_MAX:
            del self._buckets[next(iter(self._buckets))]
        bucket.left = min(BURST, bucket.left + (now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        self._buckets[uid] = bucket
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True
