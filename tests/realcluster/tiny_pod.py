"""What runs in a pod of ``real_node``: answers every GET with its name, on both families, until SIGTERM.

Standard library only. It begins to listen once a line on its standard input says that its network is there.
"""

from __future__ import annotations

import asyncio
import signal
import sys


async def main(port: int, name: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                close = b"connection: close" in request.lower()
                if b"/slow" in request.split(b"\r\n", 1)[0]:
                    await asyncio.sleep(1.0)
                kept = b"close" if close else b"keep-alive"
                head = b"HTTP/1.1 200 OK\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n" % (kept, len(name))
                writer.write(head + name.encode())
                await writer.drain()
                if close:
                    return
        except (OSError, EOFError):
            return
        finally:
            writer.close()

    sys.stdin.readline()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(serve, None, port, backlog=1024)
    print("listening", flush=True)
    await stop.wait()
    server.close()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
