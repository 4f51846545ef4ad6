"""What the parts of a lab reach each other by, and what its proxies write into: loopback addresses or namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.kube import wire
from tidegate.kube.exchange import Exchange
from tidegate.lab.kernel.client import KernelClient, control_path, egress, egress_path
from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.lab.kubelet.seams import PodNetwork, SharedNetwork

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NodeNetwork(PodNetwork, Protocol):
    """One node of it, as its kubelet and its proxy use it."""

    is_real: bool
    """Whether netfilter does the work, and takes its own time for it; else the lab models it."""

    async def dial_hook(self, host: str, port: int) -> Streams:
        """As ``dial``, through the node's redirects. Raises ``OSError``."""
        ...

    async def serve(self, exchange: Exchange, address: str, port: int) -> wire.Server:
        """Listen on an address of the node. Raises ``OSError``."""
        ...

    def begin(self) -> None:
        """A proxy's process starts: it knows nothing of what an earlier one wrote."""
        ...

    async def commit(self, node: str, services: Iterable[ServiceEntry]) -> int:
        """Replace what the node forwards; its new generation. Raises ``KernelError``, ``OSError``."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody outside the cluster's nodes who is in its network; ``path`` opens the namespace."""

    name: str
    addresses: tuple[str, ...]
    path: str


class Network(Protocol):
    """A lab's."""

    kernel_socket: str
    """The nodes' kernels' control socket, "" where there is none."""

    async def ready(self) -> None:
        """Return once it can be used. Raises ``TimeoutError``."""
        ...

    async def register(self, node: str, address: str, pods: str) -> None:
        """Make a node known. ``pods`` is its pods' address prefix with its last dot. Raises ``OSError``."""
        ...

    def on(self, node: str) -> NodeNetwork: ...

    async def dial_pod(self, address: str, port: int) -> Streams:
        """Open a connection as ``kubectl port-forward`` does. Raises ``OSError``."""
        ...

    def path(self, node: str) -> str:
        """What opens a node's namespace, for who may; "" where it is everybody's."""
        ...

    def clients(self) -> Sequence[Peer]:
        """Who is outside the cluster, in its network."""
        ...


class LoopbackNode(SharedNetwork):
    """A node on loopback addresses: told by the source address."""

    is_real = False

    def __init__(self, kernel: KernelClient, address: str, egress_socket: Path) -> None:
        super().__init__(address)
        self._egress = egress_socket
        self.commit = kernel.commit

    def begin(self) -> None:
        """The modelled kernel replaces its table as a whole."""

    async def dial_hook(self, host: str, port: int) -> Streams:
        if host == "127.0.0.1":  # a node's own loopback: here all nodes share one, and a node's is its address
            return await asyncio.open_connection(self.node_address, port)
        return await egress(self._egress, host, port)

    async def serve(self, exchange: Exchange, address: str, port: int) -> wire.Server:
        return await wire.serve(exchange, address, port)


class Loopback:
    """127.0.0.0/8, with the modelled kernels of the process that serves in ``folder``."""

    def __init__(self, kernel: KernelClient, folder: Path) -> None:
        self.kernel_socket = str(control_path(folder))
        self._kernel = kernel
        self._folder = folder
        self._nodes: dict[str, LoopbackNode] = {}

    async def ready(self) -> None:
        await self._kernel.ready()

    async def register(self, node: str, address: str, pods: str) -> None:
        await self._kernel.register(node, address, pods)
        self._nodes[node] = LoopbackNode(self._kernel, address, egress_path(self._folder, node))

    def on(self, node: str) -> NodeNetwork:
        return self._nodes[node]

    async def dial_pod(self, address: str, port: int) -> Streams:
        return await asyncio.open_connection(address, port)

    def path(self, node: str) -> str:
        del node
        return ""

    def clients(self) -> Sequence[Peer]:
        return ()
