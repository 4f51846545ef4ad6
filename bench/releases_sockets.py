"""WebSocket clients that stay: each says something twice a second and wants to hear it again, until told to go."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
from dataclasses import dataclass, field

from tidegate.lab.network.namespaces import inside
from tidegate.rehearse.loadspec import Source

PAUSE_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
_TEXT, _CLOSE = 1, 8
_WHO = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
_ASK = (
    b"GET /ws HTTP/1.1\r\nHost: lab\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
)


@dataclass(eq=False)
class Guest:
    """One client on one pod. ``cut``: how its connection ended while it wanted to stay, "" for not."""

    pod: str
    version: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: int = 0
    cut: str = ""
    seconds: float = 0.0
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    talking: asyncio.Task[None] | None = None

    async def talk(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while not self.leaving.is_set():
                self.writer.write(_framed(_TEXT, str(self.heard).encode()))
                code, said = await asyncio.wait_for(_frame(self.reader), PATIENCE_SECONDS)
                if (code, said) != (_TEXT, str(self.heard).encode()):
                    self.cut = f"heard {code} {said!r}"
                    return
                self.heard += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.leaving.wait(), PAUSE_SECONDS)
            self.writer.write(_framed(_CLOSE, struct.pack("!H", 1000)))
            await asyncio.wait_for(_frame(self.reader), PATIENCE_SECONDS)
        except (OSError, EOFError, TimeoutError) as error:
            self.cut = f"{self.pod} after {loop.time() - began:.1f} s: {error!r}"
        finally:
            self.seconds = loop.time() - began
            self.writer.close()

    async def leave(self) -> None:
        self.leaving.set()
        if self.talking is not None:
            await self.talking


async def seated(source: Source, at: tuple[str, int]) -> Guest:
    """A client of that node: it asks who is there, then stays on that connection. Raises ``OSError``, ``EOFError``."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        made = _socket(source)
        await asyncio.get_running_loop().sock_connect(made, at)
        reader, writer = await asyncio.open_connection(sock=made)
        writer.write(_WHO)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
        who = json.loads(await reader.readexactly(size))
        writer.write(_ASK % base64.b64encode(os.urandom(16)))
        answer = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in answer.partition(b"\r\n")[0]:
        raise ConnectionError(f"no WebSocket: {answer[:80]!r}")
    guest = Guest(who["pod"], who["version"], reader, writer)
    guest.talking = asyncio.create_task(guest.talk())
    return guest


def _socket(source: Source) -> socket.socket:
    if source.namespace:
        place = os.open(source.namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside(place):
                made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            os.close(place)
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.bind((source.address, 0))
    return made


def _framed(code: int, payload: bytes) -> bytes:
    """A short frame, masked as a client's is (RFC 6455, 5.3); a mask of zeros leaves it as it is."""
    return bytes([0x80 | code, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    code, length = await reader.readexactly(2)
    return code & 0x0F, await reader.readexactly(length & 0x7F)
