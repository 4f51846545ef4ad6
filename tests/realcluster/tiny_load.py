"""Requests through one address for as long as it runs: a new connection for each, and some connections kept open.

``python tiny_load.py URL-HOST PORT PER_SECOND``; on SIGTERM it finishes what is under way and prints
``{"sent": n, "lost": n, "kept": n, "why": {...}}``. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter

TIMEOUT_SECONDS = 5.0
KEPT = 4
KEPT_PAUSE_SECONDS = 0.02
REQUESTS_PER_KEPT = 40


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, is_last: bool) -> None:
    kind = "close" if is_last else "keep-alive"
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: {kind}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(head.split(b"\r\n", 1)[0].decode())
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)


class Load:
    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.sent = self.kept = 0
        self.why: Counter[str] = Counter()
        self.stop = asyncio.Event()

    async def once(self) -> None:
        self.sent += 1
        await self._on_a_connection(1, 0.0)

    async def keep(self) -> None:
        while not self.stop.is_set():
            await self._on_a_connection(REQUESTS_PER_KEPT, KEPT_PAUSE_SECONDS)

    async def _on_a_connection(self, count: int, pause: float) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                for number in range(count):
                    self.kept += bool(pause)
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        await ask(reader, writer, self.host, number == count - 1 or self.stop.is_set())
                    if self.stop.is_set():
                        break
                    await asyncio.sleep(pause)
            finally:
                writer.close()
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.why[repr(error)] += 1


async def main(host: str, port: int, per_second: float) -> None:
    load = Load(host, port)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop.set)
    tasks = [asyncio.create_task(load.keep()) for _ in range(KEPT)]
    while not load.stop.is_set():
        tasks.append(asyncio.create_task(load.once()))
        await asyncio.sleep(1 / per_second)
    await asyncio.gather(*tasks)
    told = {"sent": load.sent, "lost": sum(load.why.values()), "kept": load.kept, "why": dict(load.why)}
    print(json.dumps(told), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
