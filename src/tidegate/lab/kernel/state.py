"""The state of one node's kernel: its table, its redirects, its tracked connections."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from tidegate import vtime
from tidegate.lab.journal import Journal
from tidegate.lab.kernel.tables import Address, Affinity, ServiceEntry, Table

KERNEL = "tidegate-lab/1"
"""Name and version of the dump format; a reader that does not know it must call the dump unreadable."""

TrackedState = Literal["SYN_SENT", "ESTABLISHED", "CLOSING"]


@dataclass(eq=False, slots=True)
class Tracked:
    """One conntrack entry: client, the address it dialled, the endpoint chosen for it. All "ip:port".

    SYN_SENT while the endpoint is being dialled, ESTABLISHED while both directions are open, CLOSING from the
    first FIN until both sides are gone. There is no TIME_WAIT: it forwards nothing and must not count.
    ``opened_at`` and ``pod_closed_at`` (wall seconds) are for the journal: when the endpoint was chosen, and when it
    closed its end (0.0: it has not).
    """

    source: str
    destination: str
    endpoint: str
    state: TrackedState = "SYN_SENT"
    opened_at: float = 0.0
    pod_closed_at: float = 0.0


@dataclass(eq=False, slots=True)
class Node:
    """One node's kernel. Everything in it survives the node's proxy and agent."""

    name: str
    address: str
    rng: random.Random
    journal: Journal
    pods: str = ""
    table: Table = field(default_factory=Table)
    generation: int = 0
    redirects: dict[int, Address] = field(default_factory=dict)
    tracked: dict[Tracked, None] = field(default_factory=dict)
    affinity: Affinity = field(default_factory=Affinity)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def commit(self, table: Table) -> int:
        """Replace the table in one step; returns the new generation. Open connections stay where they are."""
        self.table = table
        self.generation += 1
        self.affinity.forget(table.entries)
        services: dict[str, list[str]] = {}
        for entry in table.entries:  # a NodePort split off by its policy counts with its Service
            services.setdefault(entry.key, []).extend(entry.endpoints)
        self.journal.record("table-committed", node=self.name, generation=self.generation, services=services)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self.generation

    def choose(self, entry: ServiceEntry, client: str) -> str | None:
        """The endpoint for a new connection, or ``None`` when there is none (REJECT)."""
        endpoints = entry.endpoints
        if not endpoints:
            return None
        if entry.affinity_seconds:
            return self.affinity.choose(entry, client, asyncio.get_running_loop().time(), self.rng)
        return endpoints[int(self.rng.random() * len(endpoints))]

    async def beyond(self, generation: int, seconds: float) -> None:
        """Return once the table is newer than ``generation``, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while self.generation <= generation:
                    await self._changed.wait()
        except TimeoutError:
            return

    def dump(self) -> bytes:
        """All of it, as one JSON object, true at the instant ``at`` (seconds since 1970)."""
        dump: dict[str, Any] = {
            "kernel": KERNEL,
            "node": self.name,
            "generation": self.generation,
            "at": vtime.now().timestamp(),
            "services": self.table.encoded,
            "redirects": [
                {"port": port, "target": f"{host}:{target}"} for port, (host, target) in sorted(self.redirects.items())
            ],
            "conntrack": [
                {
                    "protocol": "tcp",
                    "state": one.state,
                    "source": one.source,
                    "destination": one.destination,
                    "endpoint": one.endpoint,
                }
                for one in self.tracked
            ],
        }
        return msgspec.json.encode(dump)
