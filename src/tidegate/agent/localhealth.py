"""The last endpoint of a node under ``externalTrafficPolicy: Local``: whether load balancers were told to go elsewhere.

Without a ready endpoint of its own the node falls back to the one that terminates, and routes what comes from outside
to it until it is gone (KEP-1669): its rules can never be seen to let go. What tells load balancers is the node's health
check port, which counts ready endpoints only: asked here until it has answered 503 for the settle time. Nobody asks
the load balancers themselves, so it is ``assumed`` then, never more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tidegate import vtime
from tidegate.drain.acknowledgement import Verdict
from tidegate.drain.source import LastOfNode
from tidegate.engine.flights import Flight
from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.observers.coordinator import NodeView

SETTLE_SECONDS = 15.0
"""From the first 503 on: three failed checks 5 s apart. AWS and GCP check every 10 and 8 s by default: theirs are set
by annotations on the Service, and this by TIDEGATE_LOAD_BALANCER_SETTLE."""
ASK_SECONDS = 0.5
ANSWER_SECONDS = 2.0


@dataclass(slots=True)
class Health:
    """One port, as it was last heard. ``refusing_since``: in the loop's seconds, of an unbroken row of 503."""

    status: int | None = None
    why: str = "not asked yet"
    at: float = 0.0
    refusing_since: float | None = None


class LocalHealth:
    """Asks the ports that drains in flight rest on. ``addresses`` gives a node's; ``changed`` is told of news."""

    def __init__(
        self, settle_seconds: float, addresses: Callable[[], Mapping[str, str]], changed: Callable[[], None]
    ) -> None:
        self._settle = settle_seconds
        self._addresses = addresses
        self._changed = changed
        self._known: dict[LastOfNode, Health] = {}
        self._asking: dict[LastOfNode, asyncio.Task[None]] = {}

    def keep(self, flights: Iterable[Flight]) -> None:
        """Ask the ports of these drains, and no others."""
        wanted = sorted({last for flight in flights for last in flight.lasts})
        for last in [one for one in self._asking if one not in wanted]:
            self._asking.pop(last).cancel()
            self._known.pop(last, None)
        for last in wanted:
            if last not in self._asking:
                self._known[last] = Health()
                name = f"health check of {last}"
                self._asking[last] = asyncio.get_running_loop().create_task(self._follow(last), name=name)

    async def ask_all_now(self) -> None:
        """One answer of each, begun after this call."""
        await asyncio.gather(*(self._ask(last) for last in sorted(self._asking)))

    def close(self) -> None:
        self.keep(())

    def views(self, flight: Flight) -> tuple[NodeView, ...]:
        """What each port is worth to a drain."""
        return tuple(self._view(last) for last in flight.lasts)

    def _view(self, last: LastOfNode) -> NodeView:
        health, port = self._known.get(last, Health()), f"health check port {last.port}"
        evidence = f"GET :{last.port}/"
        if health.status is None:
            return NodeView(str(last), Verdict.UNREACHABLE.value, f"{port}: {health.why}", evidence, health.at)
        if health.refusing_since is None:
            why = f"{port} answers {health.status}: load balancers go on sending to the last endpoint of {last.node}"
            return NodeView(str(last), Verdict.PENDING.value, why, evidence, health.at)
        if asyncio.get_running_loop().time() - health.refusing_since < self._settle:
            why = f"{port} answers 503: {self._settle:g} s of settle time for load balancers"
            return NodeView(str(last), Verdict.PENDING.value, why, evidence, health.at)
        why = f"{port} has answered 503 for {self._settle:g} s, and no load balancer can be asked"
        return NodeView(str(last), Verdict.ASSUMED.value, why, evidence, health.at)

    async def _follow(self, last: LastOfNode) -> None:
        while True:
            await self._ask(last)
            await asyncio.sleep(ASK_SECONDS)

    async def _ask(self, last: LastOfNode) -> None:
        loop, health = asyncio.get_running_loop(), self._known[last]
        before = (health.status, health.refusing_since is not None)
        sent_at, health.at = loop.time(), vtime.now().timestamp()
        try:
            address = self._addresses().get(last.node)
            if not address:
                raise Unreachable(f"{last.node} has no address")
            peer = wire.Peer(address, last.port, timeout_seconds=ANSWER_SECONDS)
            health.status, _, _ = await wire.fetch(peer, Request("GET", "/"))
        except Unreachable as error:
            health.status, health.why = None, str(error)
        if health.status != 503:
            health.refusing_since = None
        elif health.refusing_since is None:
            health.refusing_since = sent_at
            loop.call_later(self._settle + 0.001, self._changed)
        if before != (health.status, health.refusing_since is not None):
            self._changed()
