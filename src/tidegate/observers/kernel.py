"""What a witness asks of its node's kernel, and the lab's kernel: JSON lines over its control socket.

A real node's is ``observers.linux``.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from tidegate.dataplane import labkernel
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.model.endpoint import Endpoint

DUMP_BYTES_MAX = 64 * 1024 * 1024
"""10,000 Services with 50,000 conntrack entries dump to about 12 MiB."""
REPLY_SECONDS = 5.0
"""A kernel that has not answered by then (beyond the wait it was asked for) counts as unreachable."""
IDLE_CONNECTIONS_MAX = 4


class KernelUnreachable(Exception):
    """The kernel cannot be asked, or refused: nothing is known about its tables."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one dump shows, and the generation of the tables it shows."""

    facts: Facts
    generation: int


class Tables(Protocol):
    """A node's kernel as its witness reads it. What cannot be read is unreadable: nothing here raises."""

    async def read(self, endpoints: tuple[Endpoint, ...] | None) -> Reading:
        """Now: all that concerns ``endpoints`` (more may be told), or everything for None."""
        ...

    async def read_after(self, generation: int, seconds: float, endpoints: tuple[Endpoint, ...]) -> Reading:
        """The same, once the generation is another than ``generation``, or after ``seconds``."""
        ...


class Dumps(Protocol):
    """A lab kernel's dumps, as text."""

    async def dump(self) -> str: ...

    async def wait(self, generation: int, seconds: float) -> str: ...


class LabTables:
    """``Tables`` of the lab kernel of ``node``."""

    def __init__(self, kernel: Dumps, node: str) -> None:
        self._kernel = kernel
        self._node = node

    async def read(self, endpoints: tuple[Endpoint, ...] | None) -> Reading:
        try:
            return self._understood(await self._kernel.dump())
        except KernelUnreachable as error:
            return self._nothing(error)

    async def read_after(self, generation: int, seconds: float, endpoints: tuple[Endpoint, ...]) -> Reading:
        try:
            return self._understood(await self._kernel.wait(generation, seconds))
        except KernelUnreachable as error:
            return self._nothing(error)

    def _understood(self, raw: str) -> Reading:
        return Reading(labkernel.parse(raw, self._node), _generation(raw))

    def _nothing(self, error: KernelUnreachable) -> Reading:
        return Reading(Facts(self._node, "no dump", unreadable=(Unreadable(str(error), self._node),)), 0)


class _Generation(msgspec.Struct):
    generation: int = 0


def _generation(raw: str) -> int:
    try:
        return msgspec.json.decode(raw, type=_Generation).generation
    except msgspec.DecodeError:
        return 0


class LabKernel:
    """The kernel of ``node`` behind the UNIX socket at ``path``. Safe for concurrent callers."""

    def __init__(self, path: str, node: str) -> None:
        self.path = path
        self.node = node
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def dump(self) -> str:
        """The node's tables and connections now, as the kernel wrote them. Raises KernelUnreachable."""
        return await self._ask({"op": "dump", "node": self.node})

    async def wait(self, generation: int, seconds: float) -> str:
        """A dump once the table generation exceeds ``generation``, or after ``seconds``."""
        question = {"op": "wait", "node": self.node, "generation": generation, "seconds": seconds}
        return await self._ask(question, REPLY_SECONDS + seconds)

    async def redirect(self, port: int, target: str) -> None:
        """Send what the node's own processes dial on ``port`` of any pod to ``target`` ("ip:port")."""
        await self._ask({"op": "redirect", "node": self.node, "port": port, "target": target})

    def close(self) -> None:
        """Close the connections kept for reuse."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _ask(self, question: dict[str, Any], seconds: float = REPLY_SECONDS) -> str:
        try:
            async with asyncio.timeout(seconds):
                line = await self._exchange(json.dumps(question).encode() + b"\n")
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            raise KernelUnreachable(f"the kernel of {self.node} does not answer: {error!r}") from error
        text = line.decode(errors="replace")
        if text.startswith('{"error"'):
            raise KernelUnreachable(f"the kernel of {self.node} refused {question['op']}: {text[:200]}")
        return text

    async def _exchange(self, line: bytes) -> bytes:
        if self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return await self._on(reader, writer, line)
            writer.close()
        reader, writer = await asyncio.open_unix_connection(self.path, limit=DUMP_BYTES_MAX)
        return await self._on(reader, writer, line)

    async def _on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
        """One request and its reply; a connection that did not finish both is never used again."""
        is_reusable = False
        try:
            writer.write(line)
            reply = await reader.readuntil(b"\n")
            is_reusable = len(self._idle) < IDLE_CONNECTIONS_MAX
            return reply
        finally:
            if is_reusable:
                self._idle.append((reader, writer))
            else:
                writer.close()
