"""One operator acts: a Lease says which, and a fence on every write keeps one that has lost it from writing.

``is_held`` runs out by our own clock, so a leader that cannot renew stops by itself before another may begin. A request
that was under way then is cut short; should it arrive all the same, its test of the resourceVersion stands against it
(every write of the engine has one). Two actors at once: argo-rollouts #2117.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.agent.lease import Lease, LeaseSettings
from tidegate.kube.api import Api
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Exchange, Request, Response
from tidegate.model.names import SYSTEM_NAMESPACE

LEASE_NAME = "tidegate-operator"
WRITE_SECONDS_MIN = 1.0
"""A write is begun only while the Lease is ours for at least so long."""
READS = ("GET", "HEAD")


class NotLeading(Unreachable):
    """Not sent: this process is not the leader (any more)."""


def settings(namespace: str = SYSTEM_NAMESPACE) -> LeaseSettings:
    """client-go's leader election has 15, 10 and 2 s; a release can wait less long than a drain, and longer than a
    person likes."""
    return LeaseSettings(namespace, LEASE_NAME, duration_seconds=10, renew_seconds=3.0, retry_seconds=1.0)


class Leadership:
    """``began`` and ``lost`` are called on the changes. ``api`` is not fenced: the Lease is written through it."""

    def __init__(self, api: Api, identity: str, address: str = "", lease: LeaseSettings | None = None) -> None:
        self.identity = identity
        self._lease = Lease(api, identity, address, lease or settings())
        self._lease.changed = self._changed
        self._is_resigned = False
        self.began: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None

    @property
    def is_leading(self) -> bool:
        """Whether a write may begin now."""
        return not self._is_resigned and self.left_seconds > WRITE_SECONDS_MIN

    @property
    def left_seconds(self) -> float:
        """For how long the Lease is ours, by our own clock."""
        return self._lease.held_until - asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Campaign for ever."""
        await self._lease.run()

    async def resign(self) -> None:
        """Write nothing more, and let the next one begin at once. Never raises ``KubeError``. ``run`` has to have
        ended."""
        self._is_resigned = True
        await self._lease.give_up()

    def _changed(self, is_held: bool) -> None:
        if self._is_resigned:
            return
        if is_held:
            self.began()
        else:
            self.lost()

    def fenced(self, exchange: Exchange) -> Exchange:
        """``exchange``, which sends writes only while we lead, and waits for their answers no longer than that.

        Questions that are asked by POST (reviews, tokens, the coordinator's) count as writes: who may not act has
        nothing to ask.
        """

        async def send(request: Request) -> Response:
            if request.method in READS:
                return await exchange(request)
            if not self.is_leading:
                raise NotLeading(f"{request.method} {request.path} is not sent: this process is not the leader")
            try:
                async with asyncio.timeout(self.left_seconds):
                    return await exchange(request)
            except TimeoutError as error:
                raise NotLeading(f"{request.method} {request.path}: the Lease ran out before the answer") from error

        return send
