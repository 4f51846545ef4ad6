"""The lab kernel of one node, over its control socket: JSON lines, one request and one reply at a time.

It brings raw text in and interprets nothing but errors: the dump goes to ``dataplane.labkernel`` as it came.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

DUMP_BYTES_MAX = 64 * 1024 * 1024
"""10,000 Services with 50,000 conntrack entries dump to about 12 MiB."""
REPLY_SECONDS = 5.0
"""A kernel that has not answered by then (beyond the wait it was asked for) counts as unreachable."""
IDLE_CONNECTIONS_MAX = 4


class KernelUnreachable(Exception):
    """The kernel cannot be asked, or refused: nothing is known about its tables."""


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
