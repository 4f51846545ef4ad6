"""A load balancer in front of nodes, as clients of one meet it: it asks each node's health check port, and sends to a
NodePort of those that are healthy.

What a cloud's does for ``externalTrafficPolicy: Local`` (pass-through: a connection goes to one node and stays there).
Checks are ``interval_seconds`` apart; ``failures`` in a row take a node out, one success brings it back.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.vtime import Nursery

ANSWER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Backends:
    """``nodes``: name -> address. ``health_port`` 0: every node is taken for healthy, as under the policy Cluster."""

    nodes: Mapping[str, str]
    node_port: int
    health_port: int = 0


class Balancer:
    """``await run()`` beside the clients; ``pick()`` is where the next connection goes."""

    def __init__(self, backends: Backends, interval_seconds: float = 1.0, failures: int = 2) -> None:
        self._backends = backends
        self._interval = interval_seconds
        self._failures = failures
        self._turns = itertools.count()
        self._failed = dict.fromkeys(sorted(backends.nodes), 0)
        self.statuses: list[tuple[float, str, int]] = []
        """Every change of a node's status: (the loop's seconds, node, HTTP status; 0 for no answer)."""

    @property
    def healthy(self) -> tuple[str, ...]:
        """The nodes it sends to."""
        return tuple(node for node, failed in self._failed.items() if failed < self._failures)

    def pick(self) -> tuple[str, int] | None:
        """(address, port) of the next node in turn; None where none is healthy."""
        nodes = self.healthy
        if not nodes:
            return None
        return self._backends.nodes[nodes[next(self._turns) % len(nodes)]], self._backends.node_port

    async def run(self) -> None:
        """Check for ever."""
        if not self._backends.health_port:
            await asyncio.get_running_loop().create_future()
        async with Nursery() as nursery:
            for node in sorted(self._backends.nodes):
                nursery.start(self._check_for_ever(node), name=f"health of {node}")

    async def _check_for_ever(self, node: str) -> None:
        last = -1
        while True:
            status = await self._status(node)
            if status != last:
                last = status
                self.statuses.append((asyncio.get_running_loop().time(), node, status))
            self._failed[node] = 0 if status == 200 else self._failed[node] + 1
            await asyncio.sleep(self._interval)

    async def _status(self, node: str) -> int:
        peer = wire.Peer(self._backends.nodes[node], self._backends.health_port, timeout_seconds=ANSWER_SECONDS)
        try:
            status, _, _ = await wire.fetch(peer, Request("GET", "/"))
        except Unreachable:
            return 0
        return status
