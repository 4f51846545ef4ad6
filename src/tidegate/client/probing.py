"""Connections through every address of a pod's Services, from every node: how many reach the pod?

Evidence by trying, beside the evidence of the tables. A connection is told apart by its source: the node's kernel
shows where it sent it, else the pod's own sockets show it while it is held open. One that neither shows is
``unmatched``: unknown, never counted as not reaching.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tidegate.kube.errors import KubeError
from tidegate.model.endpoint import Endpoint
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.observers.probe import BATCH_MAX, Connection, Opened, Probe, Via, close_batch, open_batch
from tidegate.observers.proxied import ProxiedAgents
from tidegate.traffic import every_endpoint

HTTP_DEFAULT = 1
"""GETs of ``--probe-http`` from each node through each address, unless a count is given."""


@dataclass(frozen=True, slots=True)
class Address:
    """One way in. ``address`` is empty for a NodePort: each node dials its own."""

    service: str
    via: Via
    address: str
    port: int

    def __str__(self) -> str:
        return str(Endpoint(self.address, self.port)) if self.address else f"*:{self.port}"


@dataclass(slots=True)
class Tried:
    """What came of one node's connections through one address."""

    node: str
    through: Address
    probes: int = 0
    opened: int = 0
    reached: int = 0
    refused: int = 0
    unmatched: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    problem: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """As docs/json.md lists it."""
        return {
            "node": self.node,
            "service": self.through.service,
            "via": self.through.via,
            "address": str(self.through),
            "probes": self.probes,
            "opened": self.opened,
            "reached": self.reached,
            "refused": self.refused,
            "unmatched": self.unmatched,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "problem": self.problem,
        }


def addresses(services: Iterable[Service]) -> tuple[Address, ...]:
    """Every TCP address that data planes forward for ``services``; a headless one has none."""
    found = []
    for one in services:
        if not one.is_proxied:
            continue
        for port in one.ports:
            if port.protocol != "TCP":
                continue
            found += [Address(str(one), "cluster-ip", ip, port.port) for ip in one.cluster_ips]
            if port.node_port:
                found.append(Address(str(one), "node-port", "", port.node_port))
    return tuple(found)


class Probing:
    """Tries for one pod. ``count`` connections from each node through each address; ``path`` makes them GETs."""

    def __init__(self, agents: ProxiedAgents, pod: Pod, count: int, path: str = "") -> None:
        self._agents = agents
        self._pod = pod
        self._count = count
        self._path = path
        self._own = every_endpoint(pod)

    async def run(self, nodes: Iterable[str], ways: Iterable[Address], seconds: float) -> tuple[Tried, ...]:
        """Address after address, every node at once. What is not done after ``seconds`` is unmatched."""
        names = tuple(nodes)
        tried = [Tried(node, way) for way in ways for node in names]
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                for way in dict.fromkeys(one.through for one in tried):
                    await self._through([one for one in tried if one.through == way])
        except TimeoutError:
            for one in tried:
                if one.probes < self._count and not one.problem:
                    one.problem = f"only {one.probes} of {self._count} were tried before the time was up"
        return tuple(tried)

    async def _through(self, tried: list[Tried]) -> None:
        """Batches until each node has made its connections, or cannot."""
        while due := [one for one in tried if one.probes < self._count and not one.problem]:
            batches = list(await asyncio.gather(*(self._batch(one) for one in due)))
            try:
                unknown = [c for batch in batches if batch is not None for c in batch.connections if not c.endpoint]
                seen = await self._sources_at_pod() if unknown else frozenset()
                for one, batch in zip(due, batches, strict=True):
                    if batch is not None:
                        self._count_in(one, batch, seen)
            finally:
                await asyncio.gather(*(self._let_go(batch) for batch in batches if batch is not None and batch.batch))

    async def _batch(self, one: Tried) -> Opened | None:
        """Raises nothing: what kept a node from trying is its problem."""
        count = min(BATCH_MAX, self._count - one.probes)
        way = one.through
        probe = Probe(via=way.via, address=way.address, port=way.port, count=count, path=self._path)
        try:
            opened = await open_batch(self._agents, one.node, probe)
        except KubeError as error:
            one.problem = f"cannot be asked: {error}"
            return None
        if opened.problem:
            one.problem = opened.problem
            return None
        one.probes += count
        return opened

    async def _let_go(self, batch: Opened) -> None:
        try:
            await close_batch(self._agents, batch.node, batch.batch)
        except KubeError:
            return  # the agent lets it go by itself

    async def _sources_at_pod(self) -> frozenset[str]:
        """Who is connected to the pod, as its own node shows it; empty where that cannot be read."""
        quiet = await self._agents.connections(self._pod.node, self._own)
        return frozenset(str(socket.remote) for socket in quiet.live)

    def _count_in(self, one: Tried, batch: Opened, at_pod: frozenset[str]) -> None:
        one.opened += len(batch.connections)
        one.refused += batch.refused
        one.unmatched += batch.silent
        for connection in batch.connections:
            reaches = self._reaches(connection, at_pod)
            one.reached += reaches is True
            one.unmatched += reaches is None
            if connection.status:
                one.statuses[connection.status] += 1

    def _reaches(self, connection: Connection, at_pod: frozenset[str]) -> bool | None:
        if connection.endpoint:
            to = Endpoint.parse(connection.endpoint)
            return any(own.covers(to) for own in self._own)
        # Not seen at the pod says nothing: whoever masquerades changes the source.
        return True if connection.source in at_pod else None
