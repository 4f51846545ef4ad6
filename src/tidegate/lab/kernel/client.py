"""How the other processes of a lab speak to the nodes' kernels.

One UNIX connection per call: calls are rare (a proxy's sync, an agent's question), and a caller that is
cancelled half-way leaves no half-read reply behind for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tidegate.lab.kernel.tables import ServiceEntry

_REPLY_BYTES_MAX = 64 * 1024 * 1024


class KernelError(Exception):
    """The kernel answered that it cannot do what was asked; the message is its own."""


def control_path(directory: Path) -> Path:
    """The control socket in the kernels' folder (``TIDEGATE_KERNEL_DIR``)."""
    return directory / "kernel.sock"


def egress_path(directory: Path, node: str) -> Path:
    """A node's egress socket in the kernels' folder."""
    return directory / f"egress-{node}.sock"


class KernelClient:
    """Speaks to the control socket at ``path``.

    Every method raises ``KernelError`` when the kernel refuses, and ``ConnectionError`` or
    ``FileNotFoundError`` when there is no kernel.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)

    async def ready(self, seconds: float = 5.0) -> None:
        """Return once the kernel process listens. Raises ``TimeoutError`` after ``seconds``."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    _, writer = await asyncio.open_unix_connection(self._path)
                except (ConnectionError, FileNotFoundError):
                    await asyncio.sleep(0.005)
                    continue
                writer.close()
                return

    async def register(self, node: str, address: str, pods: str = "") -> None:
        """Make a node known. ``pods`` is its pods' address prefix with its last dot ("127.17.1.")."""
        await self._ask({"op": "node", "node": node, "address": address, "pods": pods})

    async def commit(self, node: str, services: Iterable[ServiceEntry]) -> int:
        """Replace a node's table in one step; returns its new generation.

        Raises ``UnboundError`` when the table is in force but an address of it could not be listened on.
        """
        reply = await self._ask({"op": "commit", "node": node, "services": list(services)})
        generation = int(reply["generation"])
        if reply["unbound"]:
            raise UnboundError(generation, tuple(reply["unbound"]))
        return generation

    async def dump(self, node: str) -> str:
        """A node's table, redirects and connections at one instant, as the kernel wrote it."""
        return (await self._call({"op": "dump", "node": node})).decode()

    async def wait(self, node: str, generation: int, seconds: float) -> str:
        """``dump`` once the table is newer than ``generation``, or after ``seconds`` (at most 60)."""
        request = {"op": "wait", "node": node, "generation": generation, "seconds": seconds}
        return (await self._call(request)).decode()

    async def redirect(self, node: str, port: int, target: str | None) -> None:
        """Send what leaves the node itself for ``port`` to ``target`` ("ip:port"); ``None`` ends that."""
        await self._ask({"op": "redirect", "node": node, "port": port, "target": target})

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = msgspec.json.decode(await self._call(request))
        return reply

    async def _call(self, request: dict[str, Any]) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=_REPLY_BYTES_MAX)
        try:
            writer.write(msgspec.json.encode(request) + b"\n")
            await writer.drain()
            reply = await reader.readline()
        finally:
            writer.close()
        if not reply.endswith(b"\n"):
            raise ConnectionResetError("the kernel went away before it answered")
        if reply.startswith(b'{"error":'):
            raise KernelError(msgspec.json.decode(reply)["error"])
        return reply[:-1]


class UnboundError(KernelError):
    """A commit is in force, but some of its addresses take no connections (port taken, or privileged)."""

    def __init__(self, generation: int, unbound: tuple[str, ...]) -> None:
        super().__init__(f"cannot listen on {'; '.join(unbound)}")
        self.generation = generation
        self.unbound = unbound


async def egress(path: Path | str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Dial ``host:port`` from a node, through its kernel: ``path`` is the node's egress socket.

    Raises ``ConnectionRefusedError`` when nobody answers there, or when there is no kernel.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except (ConnectionError, FileNotFoundError) as error:
        raise ConnectionRefusedError(111, f"no kernel at {path}") from error
    try:
        writer.write(f"CONNECT {host}:{port}\n".encode())
        answer = await reader.readline()
    except BaseException:
        writer.close()
        raise
    if answer != b"OK\n":
        writer.close()
        raise ConnectionRefusedError(111, f"dial tcp {host}:{port}: connect: connection refused")
    return reader, writer
