"""The forward path: one listener per ClusterIP and port, one per node and NodePort.

A real kernel needs no listener; the lab needs one to be asked at all. It exists as long as any node's table has
the address; the table of the client's node then decides. A node without the entry, or with an entry without
endpoints, answers RST where a real one answers RST or ICMP unreachable.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from tidegate import vtime
from tidegate.lab.kernel.splice import Side, Splice
from tidegate.lab.kernel.state import Node, Tracked
from tidegate.lab.kernel.tables import Address, ServiceEntry, Table, node_of

_BACKLOG = 4096
"""net.core.somaxconn's default since Linux 5.4: a burst must queue, not be dropped by the lab."""


class Forwarded(Splice):
    """One connection of a client through a Service."""

    __slots__ = ("_destination", "_find", "_node", "_tracked")

    def __init__(self, find: Find, destination: str) -> None:
        super().__init__()
        self._find = find
        self._destination = destination
        self._node: Node | None = None
        self._tracked: Tracked | None = None

    def opened(self) -> None:
        transport = self.client.transport
        assert transport is not None
        peer = transport.get_extra_info("peername")
        if peer is None:  # reset by the client before it was accepted
            self.refuse()
            return
        client: str = peer[0]
        node, entry = self._find(client)
        endpoint = node.choose(entry, client) if entry is not None else None
        if endpoint is None:
            self.refuse()
            return
        self._node = node
        opened_at = vtime.now().timestamp()
        self._tracked = Tracked(f"{client}:{peer[1]}", self._destination, endpoint, opened_at=opened_at)
        node.tracked[self._tracked] = None
        self.dial(node.table.targets[endpoint], client)

    def spliced(self) -> None:
        if self._tracked is not None:
            self._tracked.state = "ESTABLISHED"

    def closing(self) -> None:
        if self._tracked is not None:
            self._tracked.state = "CLOSING"

    def ended(self, side: Side) -> None:
        self._note_pod_closed(side)
        super().ended(side)

    def lost(self, side: Side) -> None:
        self._note_pod_closed(side)
        super().lost(side)

    def _note_pod_closed(self, side: Side) -> None:
        """The pod's end: by FIN or by RST, whichever is first."""
        if side is self.server and self._tracked is not None and not self._tracked.pod_closed_at:
            self._tracked.pod_closed_at = vtime.now().timestamp()

    def over(self) -> None:
        if self._node is None or self._tracked is None:
            return
        self._node.tracked.pop(self._tracked, None)
        event = "connection-failed" if self.server.transport is None else "connection-closed"
        tracked = self._tracked
        self._node.journal.record(
            event,
            node=self._node.name,
            endpoint=tracked.endpoint,
            source=tracked.source,
            opened=tracked.opened_at,
            pod_closed=tracked.pod_closed_at,
        )


Find = Callable[[str], tuple[Node, ServiceEntry | None]]
"""Client address -> the node that decides, and its entry for the address dialled."""


class Forwarder:
    """The nodes of a lab and the listeners their tables need."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._by_address: dict[str, str] = {}
        self._by_pods: dict[str, str] = {}
        self._listeners: dict[Address, asyncio.AbstractServer] = {}
        self._committing = asyncio.Lock()

    def add(self, node: Node) -> None:
        """Know a node: its address and its pods' prefix now choose its table."""
        self.nodes[node.name] = node
        self._by_address[node.address] = node.name
        if node.pods:
            self._by_pods[node.pods] = node.name

    async def commit(self, node: Node, table: Table) -> tuple[int, list[str]]:
        """Replace a node's table. Returns its generation and the addresses that could not be listened on.

        Listeners come up before the table is swapped and go down after it, so an address that stays is
        never without one.
        """
        async with self._committing:
            unbound = [
                problem
                for address in _addresses(node, table)
                if address not in self._listeners and (problem := await self._listen(address, node))
            ]
            generation = node.commit(table)
            needed = {address for one in self.nodes.values() for address in _addresses(one, one.table)}
            for address in [one for one in self._listeners if one not in needed]:
                self._listeners.pop(address).close()
            return generation, unbound

    async def _listen(self, address: Address, node: Node) -> str:
        """Listen on an address; returns why not, or ""."""
        find = self._find_node_port(node, address[1]) if address[0] == node.address else self._find(address)
        destination = f"{address[0]}:{address[1]}"
        loop = asyncio.get_running_loop()
        try:
            self._listeners[address] = await loop.create_server(
                lambda: Forwarded(find, destination).client, *address, backlog=_BACKLOG
            )
        except OSError as error:
            # in the machine's words: loops wrap them, each its own way
            return f"{destination}: {os.strerror(error.errno).lower() if error.errno else error}"
        return ""

    def _find(self, address: Address) -> Find:
        def find(client: str) -> tuple[Node, ServiceEntry | None]:
            node = self.nodes[node_of(client, self._by_address, self._by_pods)]
            return node, node.table.by_cluster_address.get(address)

        return find

    def _find_node_port(self, node: Node, port: int) -> Find:
        def find(client: str) -> tuple[Node, ServiceEntry | None]:
            is_own = client == node.address or bool(node.pods and client.startswith(node.pods))
            return node, node.table.at_node_port(port, is_own=is_own)

        return find

    def close(self) -> None:
        """Stop listening; open connections end with the process."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()


def _addresses(node: Node, table: Table) -> list[Address]:
    return [*table.by_cluster_address, *((node.address, port) for port in table.by_node_port)]
