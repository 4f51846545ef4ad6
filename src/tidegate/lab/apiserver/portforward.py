"""``pods/portforward``: connections of a kubectl user, carried to a pod's port.

kubectl >= 1.31 tunnels SPDY/3.1 through a WebSocket (KEP-4006): per connection an error stream and a data stream
with the same request id. kr8s speaks the older channel form without a subprotocol: channel 2i data, 2i+1 error,
and the first message of each channel is the port, little-endian.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable

from tidegate import vtime
from tidegate.kube.exchange import Request, Response
from tidegate.lab.apiserver import websocket
from tidegate.lab.apiserver.spdy import PING as SPDY_PING
from tidegate.lab.apiserver.spdy import RST_STREAM, SYN_STREAM, Frame, Framing
from tidegate.lab.apiserver.websocket import WebSocket

TUNNEL = "SPDY/3.1+portforward.k8s.io"
CHANNELS = ("v4.channel.k8s.io", "portforward.k8s.io", "")
_READ_BYTES = 65_536

Dial = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Open a connection to a port of the pod; raises OSError."""


def answer(request: Request, pod: str, dial: Dial) -> Response:
    """Upgrade, then forward until the client leaves. ``pod`` is how failures name it."""

    async def talk(socket: WebSocket, protocol: str) -> None:
        if protocol == TUNNEL:
            await _Tunnel(socket, pod, dial).run()
        else:
            await _channels(socket, [int(port) for port in request.params("ports") if port.isdigit()], dial)

    return websocket.accept(request, (TUNNEL, *CHANNELS), talk)


class _Tunnel:
    """SPDY streams over one WebSocket."""

    def __init__(self, socket: WebSocket, pod: str, dial: Dial) -> None:
        self._socket = socket
        self._pod = pod
        self._dial = dial
        self._framing = Framing()
        self._errors: dict[str, int] = {}
        self._inputs: dict[int, asyncio.Queue[bytes]] = {}

    async def run(self) -> None:
        async with vtime.Nursery() as nursery:
            while (message := await self._socket.receive()) is not None:
                try:
                    frames = list(self._framing.feed(message))
                except (zlib.error, struct.error, UnicodeDecodeError):
                    break
                for frame in frames:
                    await self._take(frame, nursery)
            nursery.cancel()

    async def _take(self, frame: Frame, nursery: vtime.Nursery) -> None:
        if frame.kind == SYN_STREAM:
            await self._socket.send(self._framing.reply(frame.stream))
            request = frame.headers.get("requestid", "")
            if frame.headers.get("streamtype") == "error":
                self._errors[request] = frame.stream
            else:
                self._inputs[frame.stream] = asyncio.Queue()
                port = int(frame.headers.get("port", "0"))
                work = self._forward(frame.stream, self._errors.pop(request, 0), port)
                nursery.start(work, name=f"port-forward {self._pod}:{port}")
        elif frame.kind == 0 and frame.stream in self._inputs:
            queue = self._inputs[frame.stream]
            if frame.payload:
                queue.put_nowait(frame.payload)
            if frame.is_last:
                queue.put_nowait(b"")
        elif frame.kind == RST_STREAM and frame.stream in self._inputs:
            self._inputs[frame.stream].put_nowait(b"")
        elif frame.kind == SPDY_PING:
            await self._socket.send(self._framing.pong(frame.payload))

    async def _forward(self, stream: int, error: int, port: int) -> None:
        """One connection. A closed, empty error stream means success."""
        complaint = b""
        try:
            reader, writer = await self._dial(port)
        except OSError as failed:
            complaint = f"error forwarding port {port} to pod {self._pod}: {failed.strerror or failed}".encode()
        else:
            feeding = asyncio.ensure_future(self._feed(stream, writer))
            try:
                while chunk := await reader.read(_READ_BYTES):
                    await self._socket.send(self._framing.data(stream, chunk))
            except OSError:
                pass
            finally:
                feeding.cancel()
                writer.close()
        self._inputs.pop(stream, None)
        await self._socket.send(self._framing.data(stream, b"", last=True))
        if error:
            await self._socket.send(self._framing.data(error, complaint, last=True))

    async def _feed(self, stream: int, writer: asyncio.StreamWriter) -> None:
        queue = self._inputs[stream]
        try:
            while chunk := await queue.get():
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            return


async def _channels(socket: WebSocket, ports: list[int], dial: Dial) -> None:
    """The older form: every port is dialled at once and the socket ends with the first connection."""
    writers: dict[int, asyncio.StreamWriter] = {}
    async with vtime.Nursery() as nursery:
        for index, port in enumerate(ports):
            head = struct.pack("<H", port)
            await socket.send(bytes([2 * index]) + head)
            await socket.send(bytes([2 * index + 1]) + head)
            try:
                reader, writers[2 * index] = await dial(port)
            except OSError as failed:
                await socket.send(bytes([2 * index + 1]) + str(failed.strerror or failed).encode())
                continue
            nursery.start(_copy(socket, 2 * index, reader), name=f"port-forward :{port}")
        while (message := await socket.receive()) is not None:
            if message and (writer := writers.get(message[0])) is not None:
                writer.write(message[1:])
        nursery.cancel()
    for writer in writers.values():
        writer.close()


async def _copy(socket: WebSocket, channel: int, reader: asyncio.StreamReader) -> None:
    try:
        while chunk := await reader.read(_READ_BYTES):
            await socket.send(bytes([channel]) + chunk)
    except OSError:
        pass
    await socket.close()
