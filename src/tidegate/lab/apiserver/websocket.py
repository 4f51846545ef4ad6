"""The server's side of a WebSocket on an upgraded connection (RFC 6455, framed by wsproto)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from tidegate.kube.exchange import Request, Response
from tidegate.lab.apiserver import failures

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_READ_BYTES = 65_536


class WebSocket:
    """Messages over one connection. ``receive`` answers None when the peer is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = Connection(ConnectionType.SERVER)
        self._messages: list[bytes] = []
        self._partial = bytearray()
        self._is_over = False

    async def receive(self) -> bytes | None:
        """The next whole message, text as UTF-8."""
        while not self._messages:
            if self._is_over:
                return None
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError:
                data = b""
            if not data:
                self._is_over = True
                return None
            self._take(data)
        return self._messages.pop(0)

    def _take(self, data: bytes) -> None:
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                if isinstance(event, BytesMessage | TextMessage):
                    part = event.data
                    self._partial += part.encode() if isinstance(part, str) else part
                    if event.message_finished:
                        self._messages.append(bytes(self._partial))
                        self._partial.clear()
                elif isinstance(event, Ping):
                    self._writer.write(self._protocol.send(event.response()))
                elif isinstance(event, CloseConnection):
                    self._writer.write(self._protocol.send(event.response()))
                    self._is_over = True
        except RemoteProtocolError:
            self._is_over = True

    async def send(self, message: bytes) -> None:
        """One binary message; lost silently when the peer is gone."""
        if self._is_over:
            return
        try:
            self._writer.write(self._protocol.send(BytesMessage(data=message)))
            await self._writer.drain()
        except (OSError, LocalProtocolError):
            self._is_over = True

    async def close(self, code: int = 1000) -> None:
        """Say good-bye. Waits for nothing."""
        if self._is_over:
            return
        self._is_over = True
        try:
            self._writer.write(self._protocol.send(CloseConnection(code=code)))
            await self._writer.drain()
        except (OSError, LocalProtocolError):
            return


Talk = Callable[[WebSocket, str], Awaitable[None]]
"""What happens on an open WebSocket: (socket, subprotocol agreed on)."""


def is_upgrade(request: Request) -> bool:
    return request.headers.get("upgrade", "").lower() == "websocket"


def accept(request: Request, known: tuple[str, ...], talk: Talk) -> Response:
    """Agree on the first offered subprotocol of ``known`` ("" = none offered is fine) and hand over to ``talk``."""
    offered = [name.strip() for name in request.headers.get("sec-websocket-protocol", "").split(",") if name.strip()]
    chosen = next((name for name in offered if name in known), "")
    if not chosen and (offered or "" not in known):
        raise failures.bad_request(f"unable to upgrade: none of the subprotocols is supported: {', '.join(offered)}")
    key = request.headers.get("sec-websocket-key", "").encode()
    token = base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()
    headers = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": token}
    if chosen:
        headers["sec-websocket-protocol"] = chosen

    async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        socket = WebSocket(reader, writer)
        try:
            await talk(socket, chosen)
        finally:
            await socket.close()

    return Response(101, headers, _NoChunks(), upgrade=upgraded)


class _NoChunks:
    """No chunks: the connection itself is the body."""

    def __aiter__(self) -> _NoChunks:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration
