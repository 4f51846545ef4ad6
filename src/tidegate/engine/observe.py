"""Observe: followers that keep the latest view of one drain's pod and of what the coordinator sees of it.

They only store what came in and wake the loop; nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tidegate.dataplane.sockets import Quiet
from tidegate.kube.api import JsonObject
from tidegate.kube.errors import KubeError
from tidegate.model import pod
from tidegate.model.decode import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.model.pod import Pod
from tidegate.observers.coordinator import Ask, Coordinator, View

WAIT_SECONDS = 5.0
RETRY_SECONDS_MIN = 0.2
RETRY_SECONDS_MAX = 1.0


class Connections(Protocol):
    """Reads the sockets of the drain's pod: on its own node, or through that node's agent."""

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        """Never raises: what cannot be read is unreadable."""
        ...


@dataclass(slots=True)
class PodSeen:
    """The pod as last seen by its watch. ``is_gone`` once it, or this uid of it, is no more."""

    uid: str
    pod: Pod | None = None
    is_gone: bool = False

    def update(self, obj: JsonObject | None) -> None:
        """Take one state of the pod; ``None`` or another uid means that ours is gone."""
        if self.is_gone:
            return
        if obj is None:
            self.is_gone = True
            return
        try:
            seen = pod.decode(obj)
        except Malformed:
            return
        if seen.uid != self.uid:
            self.is_gone = True
        elif seen.is_terminating or self.pod is None or not self.pod.is_terminating:
            self.pod = seen  # a deletion is never taken back: a watch that says so lags behind our own read


class ViewFollower:
    """Long-polls the coordinator about one drain, and keeps its latest view."""

    def __init__(self, coordinator: Coordinator, ask: Ask, woken: Callable[[], None]) -> None:
        self.view: View | None = None
        self.failure = "the coordinator has not been asked yet"
        self._coordinator = coordinator
        self._ask = ask
        self._woken = woken
        self._poll: asyncio.Task[bool] | None = None

    async def run(self) -> None:
        """Follow for ever."""
        backoff = RETRY_SECONDS_MIN
        while True:
            since = self.view.version if self.view is not None and not self.failure else ""
            ask = msgspec.structs.replace(self._ask, since=since, wait_seconds=WAIT_SECONDS)
            self._poll = asyncio.get_running_loop().create_task(self._take(ask))
            try:
                await asyncio.wait((self._poll,))
            finally:
                self._poll.cancel()
            if self._poll.cancelled() or self._poll.result():
                backoff = RETRY_SECONDS_MIN
            else:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, RETRY_SECONDS_MAX)

    async def look_again(self) -> bool:
        """A fresh list and a fresh dump of every node; False when they could not be had."""
        ask = msgspec.structs.replace(self._ask, fresh=True)
        return await self._take(ask) and self.view is not None and self.view.is_fresh

    def start_over(self, ask: Ask) -> None:
        """Ask anew from here on, as another round."""
        self._ask = ask
        self.view = None
        if self._poll is not None:
            self._poll.cancel()

    async def finish(self) -> None:
        """Tell the coordinator that this drain is over; no matter if it does not hear."""
        try:
            await self._coordinator.acknowledge(msgspec.structs.replace(self._ask, done=True))
        except KubeError:
            return

    async def _take(self, ask: Ask) -> bool:
        try:
            view = await self._coordinator.acknowledge(ask)
        except KubeError as error:
            if self.failure != str(error):
                self.failure = str(error)
                self._woken()
            return False
        if ask.round != self._ask.round:
            return True  # an answer about the round before
        if self.view is not None and view.instance == self.view.instance and view.now < self.view.now:
            return True  # overtaken on the way by a later one
        self.view, self.failure = view, ""
        self._woken()
        return True
