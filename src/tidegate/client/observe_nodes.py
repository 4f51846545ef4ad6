"""What nodes show of pods that are leaving: one long poll per node for all of them, short looks at their sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tidegate import vtime
from tidegate.client.trace_nodes import BACKOFF_SECONDS, LOOK_SECONDS, POLL_SECONDS, dumped_at
from tidegate.dataplane.facts import Facts
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.endpoint import Endpoint
from tidegate.observers.proxied import ProxiedAgents
from tidegate.observers.witness import Question
from tidegate.traffic.exposure import AGENT, LetGo

SOURCES_MAX = 100_000
"""Connections remembered per pod: what a count of them can reach."""
BEFORE = datetime.min.replace(tzinfo=UTC)
"""What the first look shows may have been there for ever."""

Sources = dict[str, tuple[datetime, datetime]]
"""Client -> (the look before the first that showed it, that look): it was opened between the two."""


@dataclass(slots=True)
class Leaving:
    """A pod on its way out, as nodes see it. ``letting``: each node's word; ``handshakes`` were seen in nodes'
    conntrack, ``accepted`` among the pod's own sockets."""

    uid: str
    node: str
    endpoints: tuple[Endpoint, ...]
    letting: dict[str, LetGo] = field(default_factory=dict)
    handshakes: Sources = field(default_factory=dict)
    accepted: Sources = field(default_factory=dict)
    looks: dict[str, datetime] = field(default_factory=dict)

    def saw(self, sources: Sources, looker: str, clients: Iterable[str], began: datetime) -> None:
        """One look, begun at ``began``, that showed ``clients``."""
        before = self.looks.get(looker, BEFORE)
        self.looks[looker] = began
        now = vtime.now()
        for client in clients:
            if len(sources) < SOURCES_MAX:
                sources.setdefault(f"{looker} {client}", (before, now))

    def opened(self, since: datetime, until: datetime) -> int | None:
        """Connections opened in between, at least: by the better one of two kinds of evidence. None: nobody looked.

        The two are not added up: behind a masquerade one connection has another source in each.
        """
        if not self.looks:
            return None

        def count(sources: Sources) -> int:
            return sum(since <= before and seen <= until for before, seen in sources.values())

        return max(count(self.handshakes), count(self.accepted))


class NodeWatch:
    """Asks the agent of one node about every leaving pod at once, for as long as any is routed to."""

    def __init__(self, agents: ProxiedAgents, node: str) -> None:
        self.node = node
        self.problem = ""
        self._agents = agents
        self._pods: dict[str, Leaving] = {}
        self._again = asyncio.Event()

    def add(self, pod: Leaving) -> None:
        """Ask about one more from now on."""
        self._pods[pod.uid] = pod
        self._again.set()

    def drop(self, uid: str) -> None:
        """Ask about it no more."""
        if self._pods.pop(uid, None) is not None:
            self._again.set()

    async def run(self) -> None:
        """For ever."""
        since = ""
        while True:
            if not self._pods:
                await self._again.wait()
            self._again.clear()
            asked = dict(self._pods)
            endpoints = tuple(sorted({one for pod in asked.values() for one in pod.endpoints}))
            asking = asyncio.ensure_future(self._agents.ask(self.node, Question(endpoints, since, POLL_SECONDS)))
            waking = asyncio.ensure_future(self._again.wait())
            try:
                await asyncio.wait((asking, waking), return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():  # another pod is leaving: it is asked about at once
                    since = ""
                    continue
                facts, since = asking.result().facts, asking.result().digest
            except KubeError as error:
                self._fail(asked.values(), f"there is no agent on {self.node}" if _is_missing(error) else str(error))
                since = ""
                await asyncio.sleep(BACKOFF_SECONDS)
                continue
            finally:
                asking.cancel()
                waking.cancel()
            self._take(asked.values(), facts)

    def _take(self, asked: Iterable[Leaving], facts: Facts) -> None:
        if facts.unreadable:
            self._fail(asked, "; ".join(map(str, facts.unreadable)))
            return
        self.problem, at = "", dumped_at(facts)
        for pod in asked:
            known = pod.letting.get(self.node)
            is_routed = any(facts.routes_to(one) for one in pod.endpoints)
            is_first = known is None or bool(known.gap)
            if is_routed:
                pod.letting[self.node] = LetGo(self.node, AGENT)
            elif is_first or (known is not None and known.at is None):
                pod.letting[self.node] = LetGo(self.node, AGENT, at, is_bound=is_first)
            clients = [str(one.source) for end in pod.endpoints for one in facts.opening_to(end)]
            pod.saw(pod.handshakes, f"conntrack of {self.node}", clients, at)

    def _fail(self, asked: Iterable[Leaving], why: str) -> None:
        self.problem = why
        for pod in asked:
            known = pod.letting.get(self.node)
            if known is None or known.at is None:
                pod.letting[self.node] = LetGo(self.node, AGENT, gap=f"not seen: {why}")


def _is_missing(error: KubeError) -> bool:
    return isinstance(error, ApiError) and error.is_not_found


async def follow_sockets(agents: ProxiedAgents, pod: Leaving) -> None:
    """Look at the pod's own sockets until it is dropped: connections that came are told apart by their clients."""
    while True:
        began = vtime.now()
        quiet = await agents.connections(pod.node, pod.endpoints)
        if quiet.live or not quiet.unreadable:
            pod.saw(pod.accepted, "sockets", (str(one.remote) for one in quiet.live), began)
        await asyncio.sleep(LOOK_SECONDS)
