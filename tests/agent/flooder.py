"""The ten thousand: a process that does its worst to an agent's two ports; for ``test_flood``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time

from tidegate.kube.tls import unverified_client

HOST, FLOOD = "127.0.0.1", "127.0.0.66"
CALLERS = 10_000
AT_ONCE = 250


async def dial(port, tls=None, host=FLOOD):
    return await asyncio.open_connection(HOST, port, ssl=tls, local_addr=(host, 0))


async def silent(peers, ask, kept):
    kept.append(await dial(peers))


async def garbage(peers, ask, kept):
    reader, writer = await dial(peers)
    writer.write(b"\x16\x03\x01" + os.urandom(400))
    await reader.read()
    writer.close()


async def uncertified(peers, ask, kept):
    reader, writer = await dial(peers, unverified_client())
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.close()


def http(head, body=b"", is_slow=False):
    async def send(peers, ask, kept):
        reader, writer = await dial(ask, unverified_client())
        writer.write(head)
        if is_slow:
            kept.append((reader, writer))
            return
        writer.write(body)
        await writer.drain()
        await reader.read(4096)
        writer.close()

    return send


LAST = b"connection: close\r\n\r\n"
POST = b"POST /v1/question HTTP/1.1\r\nhost: x\r\n"
FORGED = {
    "silent": (silent, CALLERS),
    "garbage instead of TLS": (garbage, 500),
    "no certificate": (uncertified, 150),
    "forged tokens": (http(b"GET /v1/about HTTP/1.1\r\nhost: x\r\nx-tidegate-token: forged\r\n" + LAST), 150),
    "a head that does not end": (http(b"GET / HTTP/1.1\r\nx: ", b"x" * 200_000), 50),
    "a body beyond measure": (http(POST + b"content-length: 999999999\r\n\r\n", b"x" * 1_500_000), 20),
    "bodies that do not end": (http(POST + b"content-length: 900000\r\n\r\n" + b"x" * 100_000, is_slow=True), 150),
    "a byte now and then": (http(b"GET /v1/about HT", is_slow=True), 150),
    "garbage instead of JSON": (http(POST + b"x-tidegate-token: good\r\ncontent-length: 3\r\n" + LAST + b"{]x"), 150),
}  # fmt: skip


async def flood(peers, ask, send, count):
    """``count`` callers; those that are turned away have what they came for."""
    kept, gate = [], asyncio.Semaphore(AT_ONCE)

    async def call():
        async with gate:
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                async with asyncio.timeout(8):
                    await send(peers, ask, kept)

    await asyncio.gather(*(call() for _ in range(count)))
    return kept


async def main(peers, ask):
    kept, took = [], {}
    for name, (send, count) in FORGED.items():
        began = time.monotonic()
        kept += await flood(peers, ask, send, count)
        took[name] = [count, round(time.monotonic() - began, 2)]
    await asyncio.sleep(0.5)
    print(json.dumps(took), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
