"""A node's own way out: a UNIX socket on which the kubelet dials through its node's kernel.

First line ``CONNECT ip:port``, answer ``OK`` or ``ERR reason``, then bytes. A redirect of the port sends the
connection elsewhere, as an nft output hook does, and tells the new target where it was meant to go: a PROXY
protocol v1 line, the lab's stand-in for SO_ORIGINAL_DST (facts: an empty-host preStop hook plus redirect).
Only what leaves the node itself passes here; pods dial each other directly, as an output hook leaves them.
"""

from __future__ import annotations

import asyncio

from tidegate.lab.kernel.splice import Side, Splice
from tidegate.lab.kernel.state import Node
from tidegate.lab.kernel.tables import Address, TableError, split_address

_REQUEST_BYTES_MAX = 128


class _Asking(Side):
    """The client's side: its first line is the request, the rest is payload."""

    __slots__ = ("_asked", "_request")

    def __init__(self, splice: Egress) -> None:
        super().__init__(splice)
        self._asked = False
        self._request = b""

    def data_received(self, data: bytes) -> None:
        if self._asked:
            super().data_received(data)
            return
        line, feed, rest = (self._request + data).partition(b"\n")
        if not feed:
            self._request = line
            if len(line) > _REQUEST_BYTES_MAX:
                self.splice.refuse()
            return
        self._asked = True
        if rest:
            super().data_received(rest)
        assert isinstance(self.splice, Egress)
        self.splice.asked(line.decode("ascii", "replace").strip())


class Egress(Splice):
    """One connection out of a node."""

    __slots__ = ("_node", "_redirected_from")

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.client = _Asking(self)
        self._node = node
        self._redirected_from: Address | None = None

    def opened(self) -> None:
        """Wait for the request line."""

    def asked(self, request: str) -> None:
        verb, _, where = request.partition(" ")
        try:
            target = split_address(where)
        except TableError:
            verb = ""
        if verb != "CONNECT":
            self._answer(b"ERR bad request\n")
            return
        redirect = self._node.redirects.get(target[1])
        if redirect is not None:
            self._redirected_from, target = target, redirect
        self.dial(target, self._node.address)

    def refuse(self) -> None:
        self._answer(b"ERR refused\n")

    def _answer(self, line: bytes) -> None:
        self.server.is_lost = True
        transport = self.client.transport
        if transport is not None and not self.client.is_lost:
            transport.write(line)
            transport.close()

    def made(self, side: Side) -> None:
        if side is self.server and not self.client.is_lost:
            assert side.transport is not None and self.client.transport is not None
            if self._redirected_from is not None:
                host, port = self._redirected_from
                source = side.transport.get_extra_info("sockname")
                side.transport.write(f"PROXY TCP4 {source[0]} {host} {source[1]} {port}\r\n".encode())
            self.client.transport.write(b"OK\n")
        super().made(side)


async def serve(node: Node, path: str) -> asyncio.AbstractServer:
    """Listen for egress of ``node`` on the UNIX socket ``path``."""

    def accept() -> asyncio.Protocol:
        return Egress(node).client

    return await asyncio.get_running_loop().create_unix_server(accept, path)
