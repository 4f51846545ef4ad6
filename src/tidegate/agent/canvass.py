"""Asks every node the same question, for all drains in flight at once, and keeps the latest answers.

The list is of Nodes, not of agents: a node without an agent is unreachable, and that blocks. One long poll per
node is open at a time; a batch that grows replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidegate import vtime
from tidegate.dataplane.facts import Facts
from tidegate.drain import acknowledgement
from tidegate.drain.acknowledgement import Acknowledgement, Evidence, Verdict
from tidegate.kube.errors import NoCertificate, Unreachable
from tidegate.kube.wire import Peer
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.model.names import AGENT_PORT
from tidegate.observers import moving, witness
from tidegate.observers.asking import AGENT_NAME
from tidegate.observers.moving import Cut, Moved
from tidegate.observers.witness import Question

if TYPE_CHECKING:
    import ssl

    from tidegate.kube.tls import Credentials

POLL_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""Beyond the time it was asked to wait: an agent that takes longer counts as unreachable."""
BACKOFF_SECONDS_MIN = 0.2
BACKOFF_SECONDS_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One node's latest answer, or why there is none, and exactly which endpoints were asked about."""

    endpoints: frozenset[Endpoint]
    sent_at: float
    received_at: float
    facts: Facts | None = None
    digest: str = ""
    failure: str = ""
    failed_at: float = 0.0

    def follows(self, other: Reading | None) -> bool:
        """Whether this is newer: by the dump's own instant, or asked only after the other had come in.

        A failure has no dump to compare with. What was asked before it may be older than what it failed to renew.
        """
        if other is None or (self.facts is None and other.facts is not None):
            return True
        if self.facts is None or other.facts is None:
            return self.sent_at >= other.sent_at
        return self.facts.at >= other.facts.at or self.sent_at >= other.received_at


def judge(
    node: str, reading: Reading | None, endpoints: Iterable[Endpoint], epoch: Epoch, services: tuple[str, ...] = ()
) -> Acknowledgement:
    """What ``node`` has acknowledged. A dump that was not asked about these endpoints says nothing about them.

    ``services`` narrows it to the routes of these Services.
    """
    if reading is None or (reading.facts is not None and not reading.endpoints.issuperset(endpoints)):
        return Acknowledgement(node, Verdict.PENDING, epoch, Evidence("no answer", 0.0, "not asked yet"))
    if reading.facts is None:
        return acknowledgement.unreachable(node, epoch, reading.failure, reading.failed_at)
    return acknowledgement.acknowledge(reading.facts.about(services), endpoints, epoch)


class Canvass:
    """What every node was last heard to say: ``readings``, by node. ``changed`` is called with the node's name."""

    def __init__(
        self,
        changed: Callable[[str], None],
        log: Callable[[str], None] = lambda line: None,
        credentials: Credentials | None = None,
    ) -> None:
        self.readings: dict[str, Reading] = {}
        self._addresses: dict[str, str] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._changed = changed
        self._log = log
        self._credentials = credentials
        self._tls: ssl.SSLContext | None = None
        self._followers: dict[str, asyncio.Task[None]] = {}

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._endpoints

    def set_nodes(self, addresses: Mapping[str, str]) -> None:
        """The nodes there are now. One that is gone, or that moved, has said nothing."""
        for node in sorted(set(self._addresses) | set(addresses)):
            if self._addresses.get(node) != addresses.get(node):
                self._stop(node)
                self.readings.pop(node, None)
        self._addresses = dict(addresses)
        self._follow_all()

    def set_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """What all drains in flight want to know. Fewer endpoints change no open question; more replace it."""
        wanted = tuple(sorted(set(endpoints)))
        grew = not set(wanted) <= set(self._endpoints)
        self._endpoints = wanted
        if grew or not wanted:
            for node in sorted(self._followers):
                self._stop(node)
        self._follow_all()

    async def ask_all_now(self) -> None:
        """One fresh dump of every node, taken after this call began; failures are recorded like answers."""
        nodes = sorted(self._addresses)
        await asyncio.gather(*(self._ask(node, self._endpoints, "", 0.0) for node in nodes))

    async def move(self, node: str, cuts: tuple[Cut, ...]) -> Moved:
        """Have the agent of ``node`` move UDP flows off cut pods. Raises ``Unreachable``, ``NoCertificate``."""
        return await moving.ask(self._peer(node, ANSWER_SECONDS), node, cuts)

    def _peer(self, node: str, seconds: float) -> Peer:
        """Raises ``Unreachable``, ``NoCertificate``."""
        address = self._addresses.get(node, "")
        if not address:
            raise Unreachable(f"{node} has no InternalIP")
        if self._credentials is not None and self._tls is None:
            self._tls = self._credentials.client()
        return Peer(address, AGENT_PORT, "", seconds, self._tls, AGENT_NAME)

    def close(self) -> None:
        for node in sorted(self._followers):
            self._stop(node)

    def _stop(self, node: str) -> None:
        task = self._followers.pop(node, None)
        if task is not None:
            task.cancel()

    def _follow_all(self) -> None:
        if not self._endpoints:
            return
        for node in sorted(self._addresses):
            if node not in self._followers:
                self._followers[node] = asyncio.get_running_loop().create_task(self._follow(node), name=f"ask {node}")

    async def _follow(self, node: str) -> None:
        """Long-poll one node for as long as there is something to ask."""
        backoff = BACKOFF_SECONDS_MIN
        while self._endpoints:
            known = self.readings.get(node)
            asked = self._endpoints
            # Answers to a narrower question do not tell what a wider one would: ask that one afresh.
            since = known.digest if known is not None and known.endpoints == frozenset(asked) else ""
            if await self._ask(node, asked, since, POLL_SECONDS):
                backoff = BACKOFF_SECONDS_MIN
            else:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)
        self._followers.pop(node, None)

    async def _ask(self, node: str, endpoints: tuple[Endpoint, ...], since: str, wait_seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        address = self._addresses.get(node, "")
        try:
            peer = self._peer(node, wait_seconds + ANSWER_SECONDS)
            answer = await witness.ask(peer, node, Question(endpoints, since, wait_seconds))
        except (Unreachable, NoCertificate) as error:
            failed = Reading(
                frozenset(endpoints), sent_at, loop.time(), failure=str(error), failed_at=vtime.now().timestamp()
            )
            self._record(node, address, failed)
            return False
        reading = Reading(frozenset(endpoints), sent_at, loop.time(), answer.facts, answer.digest)
        self._record(node, address, reading)
        return True

    def _record(self, node: str, address: str, reading: Reading) -> None:
        if self._addresses.get(node) != address:
            return
        known = self.readings.get(node)
        if known is not None and not reading.follows(known):
            return
        self.readings[node] = reading
        if reading.failure and (known is None or known.failure != reading.failure):
            self._log(f"{node}: {reading.failure}")
        self._changed(node)
