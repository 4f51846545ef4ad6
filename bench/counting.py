"""A pod that counts for itself, and shares nothing with what it judges: what reached it after it was told to stop.

Run as a container's command. It answers with its name after 10 ms, on SIGTERM goes on answering for another second, and
leaves ``$FOLDER/$POD_NAME.json``: requests served in all, and connections and requests that began after the SIGTERM.
The kubelet's probes (``/healthz``) are not counted, nor is a connection that was open before and says nothing more.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

LINGER_SECONDS = 1.0
THINK_SECONDS = 0.01
PROBE = b"/healthz"


class Counting:
    """The server's counters."""

    def __init__(self) -> None:
        self.is_told = False
        self.served = 0
        self.late_connections = 0
        self.late_requests = 0
        name = os.environ.get("POD_NAME", "")
        self.body = json.dumps({"pod": name}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came_late, is_probe = self.is_told, False
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split(b" ", 2)[1]
                is_probe = target == PROBE
                if not is_probe:
                    self.late_requests += self.is_told
                    self.served += 1
                    await asyncio.sleep(THINK_SECONDS)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(self.body), self.body))
                await writer.drain()
                if b"\r\nconnection: close" in head.lower():
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.late_connections += came_late and not is_probe
            writer.close()

    async def run(self) -> None:
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        await asyncio.start_server(self.serve, os.environ["POD_IP"], int(os.environ["PORT"]), backlog=512)
        await told.wait()
        self.is_told = True
        await asyncio.sleep(LINGER_SECONDS)
        counted = {"served": self.served, "connections": self.late_connections, "requests": self.late_requests}
        (Path(os.environ["FOLDER"]) / f"{os.environ['POD_NAME']}.json").write_text(json.dumps(counted))


if __name__ == "__main__":
    asyncio.run(Counting().run())
