"""HTTP/1.1 over asyncio, parsed by httptools: runs on any loop, real or virtual.

Serves an ``Exchange`` and fetches from one. Why not aiohttp: it opens sockets by itself, so it cannot run on the
virtual loop, and it serves 38,000 small GETs/s where an asyncio protocol over httptools serves 98,000 (wrk, 64
connections; facts restated in docs/decisions).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import httptools

from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Exchange, Request, Response, parse_target
from tidegate.vtime.dial import dial

BODY_BYTES_MAX = 8 * 1024 * 1024
"""Largest request body taken. etcd's own limit for one object is 1.5 MiB."""

HEADER_COUNT_MAX = 100
_PIPELINE_MAX = 64
_REASONS = {status.value: status.phrase for status in HTTPStatus}


# --- serving ---


class _Connection(asyncio.Protocol):
    """One accepted connection: requests in, answered in order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._writable.set()
        self._upgraded: asyncio.StreamReader | None = None
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._server.connections[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.pop(self, None)
        self._writable.set()
        if self._upgraded is not None:
            self._upgraded.feed_eof()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._upgraded is not None:
            self._upgraded.feed_data(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded = asyncio.StreamReader()
            self._upgraded.feed_data(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()

    def eof_received(self) -> bool:
        if self._upgraded is not None:
            self._upgraded.feed_eof()
            return True
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # httptools
    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) >= HEADER_COUNT_MAX:
            raise ValueError("too many headers")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            raise ValueError("body too large")
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, query = parse_target(self._url.decode("latin-1"))
        method = self._parser.get_method().decode("ascii")
        request = Request(method, path, query, self._headers, b"".join(self._body))
        self._waiting.append((request, self._parser.should_keep_alive()))
        self._reset()
        if len(self._waiting) > _PIPELINE_MAX:
            raise ValueError("too many requests in the pipeline")
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer_all())

    async def _answer_all(self) -> None:
        while self._waiting and not self._transport.is_closing():
            request, keep_alive = self._waiting.popleft()
            try:
                response = await self._server.exchange(request)
            except Exception as error:  # a bug of ours must not hang the client
                self._server.failed(request, error)
                self._transport.write(_head(500, {}, 0, False))
                self._transport.close()
                return
            if response.upgrade is not None:
                await self._hand_over(response)
                return
            await self._send(request, response, keep_alive)

    async def _send(self, request: Request, response: Response, keep_alive: bool) -> None:
        if response.body is not None or request.method == "HEAD":
            body = response.body or b""
            head = _head(response.status, response.headers, len(body), keep_alive)
            self._transport.write(head if request.method == "HEAD" else head + body)
        else:
            self._transport.write(_head(response.status, response.headers, None, keep_alive))
            try:
                async for chunk in response.chunks:
                    if chunk:
                        self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    if not self._writable.is_set():
                        await self._writable.wait()
                    if self._transport.is_closing():
                        return
                self._transport.write(b"0\r\n\r\n")
            finally:
                await response.close()
        if not keep_alive:
            self._transport.close()
        elif not self._writable.is_set():
            await self._writable.wait()

    async def _hand_over(self, response: Response) -> None:
        assert response.upgrade is not None
        self._transport.write(_head(response.status, response.headers, None, True, upgrade=True))
        reader = self._upgraded or asyncio.StreamReader()
        self._upgraded = reader
        writer = asyncio.StreamWriter(self._transport, _Drain(self._writable), reader, asyncio.get_running_loop())
        try:
            await response.upgrade(reader, writer)
        finally:
            self._transport.close()

    def close(self) -> None:
        self._transport.close()


class _Drain(asyncio.BaseProtocol):
    """What a StreamWriter asks of its protocol."""

    def __init__(self, writable: asyncio.Event) -> None:
        self._writable = writable

    async def _drain_helper(self) -> None:
        await self._writable.wait()


def _head(
    status: int, headers: Mapping[str, str], length: int | None, keep_alive: bool, upgrade: bool = False
) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name != "content-length"]
    if upgrade:
        pass
    elif length is None:
        lines.append("transfer-encoding: chunked")
    else:
        lines.append(f"content-length: {length}")
    if not keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Server:
    """A listening server. ``errors`` keeps the last failures of the exchange (bugs), newest last."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.connections: dict[_Connection, None] = {}
        self.errors: deque[tuple[Request, Exception]] = deque(maxlen=20)
        self.port = 0
        self._listener: Any = None

    def failed(self, request: Request, error: Exception) -> None:
        self.errors.append((request, error))
        context = {"message": f"{request.method} {request.path}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    async def listen(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), host, port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self._listener.close()
        for connection in list(self.connections):
            connection.close()


async def serve(exchange: Exchange, host: str, port: int = 0) -> Server:
    """Serve ``exchange`` on an address; port 0 takes a free one (``Server.port``). Raises ``OSError`` when taken."""
    server = Server(exchange)
    await server.listen(host, port)
    return server


# --- fetching ---


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to ask: address, the local address to come from ("" = any), and how long to wait in all."""

    host: str
    port: int
    local_host: str = ""
    timeout_seconds: float = 5.0


class _Answer:
    """Collects one response from the parser."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.done = True


async def fetch(peer: Peer, request: Request) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: (status, headers, body).

    Raises ``Unreachable`` when refused, reset, silent for ``peer.timeout_seconds`` or unintelligible.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(peer.timeout_seconds):
            reader, writer = await connect(peer)
            return await converse(reader, writer, request, f"{peer.host}:{peer.port}")
    except TimeoutError as error:
        raise Unreachable(f"{peer.host}:{peer.port}: no answer within {peer.timeout_seconds:g} s") from error
    except OSError as error:
        raise Unreachable(f"{peer.host}:{peer.port}: {error.strerror or error}") from error
    finally:
        if writer is not None:
            writer.close()


async def connect(peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection from ``local_host`` without scanning for a port (``vtime.dial``). Raises ``OSError``."""
    if not peer.local_host:
        return await asyncio.open_connection(peer.host, peer.port)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await dial(lambda: protocol, (peer.host, peer.port), peer.local_host)
    loop = asyncio.get_running_loop()
    return reader, asyncio.StreamWriter(cast(asyncio.WriteTransport, transport), protocol, reader, loop)


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, host: str
) -> tuple[int, dict[str, str], bytes]:
    """Send ``request`` on an open connection and read its answer. Raises ``Unreachable`` on a broken one."""
    headers = {"host": host, "connection": "close", **request.headers}
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(len(request.body))
    lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body)
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    try:
        while not answer.done:
            data = await reader.read(65_536)
            if not data:
                break
            parser.feed_data(data)
        status: int = parser.get_status_code()
    except httptools.HttpParserError as error:
        raise Unreachable(f"{host}: not HTTP: {error}") from error
    bodiless_close = bool(status) and "content-length" not in answer.headers and not answer.done
    if not answer.done and not bodiless_close:
        raise Unreachable(f"{host}: the connection ended in the middle of an answer")
    return status, answer.headers, b"".join(answer.body)


@contextlib.asynccontextmanager
async def serving(exchange: Exchange, host: str, port: int = 0) -> Any:
    """``async with serving(...) as server``: closed on leaving."""
    server = await serve(exchange, host, port)
    try:
        yield server
    finally:
        await server.close()
