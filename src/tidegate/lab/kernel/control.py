"""The kernels' control socket: JSON lines, one request, one reply.

``{"op": "node", "node", "address", "pods"?}``, ``commit``, ``dump``, ``wait``, ``redirect`` (docs: kernel/client.py).
A request that cannot be done is answered ``{"error": why}`` and changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tidegate.lab.journal import Journal
from tidegate.lab.kernel import egress
from tidegate.lab.kernel.client import control_path, egress_path
from tidegate.lab.kernel.forward import Forwarder
from tidegate.lab.kernel.state import Node
from tidegate.lab.kernel.tables import Table, TableError, decode_entries, split_address

_LINE_BYTES_MAX = 64 * 1024 * 1024
"""A commit of 10,000 Services of 5 endpoints is about 3 MB."""

_WAIT_SECONDS_MAX = 60.0

Request = dict[str, Any]


class Control:
    """Every node's kernel of one lab, programmed through a UNIX socket in ``directory``."""

    def __init__(self, directory: Path, seed: int, journal: Journal) -> None:
        self._directory = directory
        self._seed = seed
        self._journal = journal
        self._forwarder = Forwarder()
        self._egresses: dict[str, asyncio.AbstractServer] = {}
        self._server: asyncio.AbstractServer | None = None
        self._operations: dict[str, Callable[[Request], Awaitable[bytes]]] = {
            "node": self._register,
            "commit": self._commit,
            "dump": self._dump,
            "wait": self._wait,
            "redirect": self._redirect,
        }

    async def serve(self) -> None:
        """Listen; sockets left by a kernel that was killed are replaced."""
        path = control_path(self._directory)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._converse, str(path), limit=_LINE_BYTES_MAX)

    def close(self) -> None:
        """Stop listening everywhere and take the sockets' names away."""
        servers = [*self._egresses.values(), *([self._server] if self._server else [])]
        for server in servers:
            server.close()
        self._forwarder.close()
        for path in [control_path(self._directory), *map(self._egress_path, self._egresses)]:
            path.unlink(missing_ok=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(await self._answer(line) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # gone, or a line over the limit
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
            operation = self._operations.get(str(request.get("op")))
            if operation is None:
                raise TableError(f"unknown op {request.get('op')!r}; known: {', '.join(self._operations)}")
            return await operation(request)
        except KeyError as error:
            return _error(f"missing field {error}")
        except (msgspec.DecodeError, TableError, TypeError, ValueError, OSError) as error:
            return _error(str(error))

    def _node(self, request: Request) -> Node:
        node = self._forwarder.nodes.get(request["node"])
        if node is None:
            known = ", ".join(self._forwarder.nodes) or "none"
            raise TableError(f"unknown node {request['node']!r}; known: {known}")
        return node

    def _egress_path(self, name: str) -> Path:
        return egress_path(self._directory, name)

    async def _register(self, request: Request) -> bytes:
        name, address = str(request["node"]), str(request["address"])
        node = self._forwarder.nodes.get(name)
        if node is None:
            rng = random.Random(f"{self._seed}/kernel/{name}")
            node = Node(name, address, rng, self._journal, pods=str(request.get("pods", "")))
            path = self._egress_path(name)
            path.unlink(missing_ok=True)
            self._egresses[name] = await egress.serve(node, str(path))
            self._forwarder.add(node)
        elif node.address != address:
            raise TableError(f"node {name} has address {node.address}, not {address}")
        return msgspec.json.encode({"node": name, "generation": node.generation})

    async def _commit(self, request: Request) -> bytes:
        node = self._node(request)
        table = Table(decode_entries(request["services"]))
        generation, unbound = await self._forwarder.commit(node, table)
        return msgspec.json.encode({"generation": generation, "unbound": unbound})

    async def _dump(self, request: Request) -> bytes:
        return self._node(request).dump()

    async def _wait(self, request: Request) -> bytes:
        node = self._node(request)
        await node.beyond(int(request["generation"]), min(float(request["seconds"]), _WAIT_SECONDS_MAX))
        return node.dump()

    async def _redirect(self, request: Request) -> bytes:
        node, port = self._node(request), int(request["port"])
        if request["target"] is None:
            node.redirects.pop(port, None)
        else:
            node.redirects[port] = split_address(str(request["target"]))
        return msgspec.json.encode({"redirects": len(node.redirects)})


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": message})
