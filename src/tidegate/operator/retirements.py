"""Pods that a gate held and let go: their evidence, from the agent of their node, as Drain objects and metrics.

One question for each pod, to the one agent that knows. Where that cannot be asked, what is written on the pod itself is
kept: the result, without who let go when.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tidegate.drain.ledger import Entry, merged
from tidegate.kube.api import JsonObject
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.kube.exchange import Request
from tidegate.model.decode import Malformed
from tidegate.model.names import DrainResult, decode_result
from tidegate.observers import ledger as asked
from tidegate.observers.proxied import ProxiedAgents
from tidegate.operator.records import SETTLED_SECONDS, Records

WAITING_MAX = 5000
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Gone:
    """A pod that is not there any more, and what stood on it."""

    namespace: str
    name: str
    uid: str
    node: str
    result: DrainResult


class Retirements:
    """``saw_gone`` takes pods at any time; ``run`` asks, and writes to ``records``."""

    def __init__(self, client: KubeClient, records: Records, may_ask: Callable[[], bool]) -> None:
        self._agents = ProxiedAgents(client)
        self._records, self._may_ask = records, may_ask
        self._waiting: deque[Gone] = deque(maxlen=WAITING_MAX)
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def saw_gone(self, obj: JsonObject) -> None:
        """A pod as it was last seen. Those without a gate's word are nobody's retirement."""
        metadata = obj["metadata"]
        try:
            result = decode_result(metadata.get("annotations") or {})
        except Malformed:
            return
        if result is None or not self._may_ask():
            return
        node = str((obj.get("spec") or {}).get("nodeName") or "")
        self._waiting.append(Gone(metadata["namespace"], metadata["name"], str(metadata.get("uid")), node, result))
        self._filled.set()
        self._idle.clear()

    async def settled(self) -> None:
        """Until every pod that was seen to go has its record, or has had its time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_SECONDS):
                await self._idle.wait()
                await self._records.settled()

    async def run(self) -> None:
        """For ever."""
        while True:
            while not self._waiting:
                self._idle.set()
                self._filled.clear()
                await self._filled.wait()
            gone = self._waiting.popleft()
            if self._records.knows(gone.uid):  # drained by label: whoever did it has written it
                continue
            self._records.write(await self._evidence(gone) or from_pod(gone))

    async def _evidence(self, gone: Gone) -> Entry | None:
        query = (("namespace", gone.namespace), ("pod", gone.name))
        try:
            async with asyncio.timeout(SECONDS):
                body = await self._agents.call(gone.node, Request("GET", asked.LEDGER_PATH, query))
            entries = merged(asked.decode(body, gone.node).entries)
        except (KubeError, ValueError, TimeoutError):
            return None
        return next((one for one in reversed(entries) if one.uid == gone.uid), None)


def from_pod(gone: Gone) -> Entry:
    """What the pod itself said."""
    told = msgspec.structs.asdict(gone.result)
    return Entry(
        id=gone.uid.replace("-", "")[:16],
        verb="drain",
        mode="gate",
        uid=gone.uid,
        namespace=gone.namespace,
        pod=gone.name,
        node=gone.node,
        result=gone.result.result.value,
        reason=gone.result.reason,
        stragglers=tuple(told.get("stragglers") or ()),
        seconds=gone.result.seconds,
    )
