"""Network ``kernel``: the parts of a lab in namespaces of their own, and this machine's netfilter in each node's."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

from tidegate.kube import wire
from tidegate.kube.exchange import Exchange
from tidegate.lab.journal import Journal
from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.lab.network.fabric import CLIENT, Fabric, Node, path
from tidegate.lab.network.namespaces import Namespace, bound
from tidegate.lab.network.network import NodeNetwork, Peer, Streams
from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import NodePlace, NodeRules
from tidegate.vtime.dial import connect


async def dial(namespace: Namespace, host: str, port: int) -> Streams:
    """Open a connection from a namespace. Raises ``OSError``."""
    with namespace.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await connect(lambda: protocol, (host, port), sock)
    loop = asyncio.get_running_loop()
    return reader, asyncio.StreamWriter(cast(asyncio.WriteTransport, transport), protocol, reader, loop)


class KernelNode:
    """One node: its rules, its pods, what its kubelet dials."""

    is_real = True

    def __init__(self, place: Node, made: Callable[[], NodeRules], journal: Journal) -> None:
        self._place = place
        self._made = made
        self._rules = made()
        self._journal = journal
        self._generation = 0

    @property
    def node(self) -> Namespace:
        return self._place.namespace

    async def join(self, address: str) -> Namespace:
        return await self._place.add_pod(address)

    async def leave(self, address: str) -> None:
        await self._place.remove_pod(address)

    async def dial(self, host: str, port: int) -> Streams:
        return await dial(self._place.namespace, host, port)

    dial_hook = dial

    async def serve(self, exchange: Exchange, address: str, port: int) -> wire.Server:
        with self._place.namespace.inside():
            listening = bound(address, port)
        return await wire.serve_on(exchange, listening)

    def begin(self) -> None:
        self._rules = self._made()

    async def commit(self, node: str, services: Iterable[ServiceEntry]) -> int:
        entries = tuple(services)
        await self._rules.commit(entries)
        self._generation += 1
        by_key = {entry.key: list(entry.endpoints) for entry in entries}
        self._journal.record("table-committed", node=node, generation=self._generation, services=by_key)
        return self._generation


class KernelNetwork:
    """Every namespace of one lab, held by the process that built ``fabric``."""

    kernel_socket = ""

    def __init__(self, fabric: Fabric, shape: str, journal: Journal) -> None:
        self._fabric = fabric
        self._nodes: dict[str, KernelNode] = {}
        addressing = fabric.addressing
        for number, (name, place) in enumerate(fabric.nodes.items(), start=1):
            where = NodePlace(
                name, (addressing.node(number),), addressing.pod_network(number), f"{addressing.service_prefix}.0.0/16"
            )
            made = partial(node_rules, shape, place.namespace.run, where)
            self._nodes[name] = KernelNode(place, made, journal)

    async def ready(self) -> None:
        """It is, since it was built."""

    async def register(self, node: str, address: str, pods: str) -> None:
        del node, address, pods

    def on(self, node: str) -> NodeNetwork:
        return self._nodes[node]

    async def dial_pod(self, address: str, port: int) -> Streams:
        """On localhost inside the pod, as a container runtime does; for who binds $POD_IP alone, on that."""
        namespace = self._fabric.at(address)
        if namespace is None:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        try:
            return await dial(namespace, "127.0.0.1", port)
        except ConnectionRefusedError:
            return await dial(namespace, address, port)

    def path(self, node: str) -> str:
        return path(self._nodes[node].node)

    def clients(self) -> Sequence[Peer]:
        return (Peer(CLIENT, self._fabric.client_addresses, path(self._fabric.client)),)
