"""HTTP/1.1 over asyncio, parsed by httptools: runs on any loop, real or virtual.

Serves an ``Exchange`` and fetches from one. Why not aiohttp: it opens sockets by itself, so it cannot run on the
virtual loop, and it serves 38,000 small GETs/s where an asyncio protocol over httptools serves 98,000 (wrk, 64
connections; facts restated in docs/decisions).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools

from tidegate.kube.crowd import DEFAULT_LIMITS, Crowd, Guest, Limits
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Caller, Exchange, Request, Response, parse_target
from tidegate.vtime.dial import dial

if TYPE_CHECKING:
    import ssl

BODY_BYTES_MAX = 8 * 1024 * 1024
"""Largest request body taken. etcd's own limit for one object is 1.5 MiB."""

HEADER_COUNT_MAX = 100
_PIPELINE_MAX = 64
_PIPELINE_OF_STRANGERS_MAX = 2
_BACKLOG = 1024
ACCEPTED_AT_ONCE = 512
"""By a server with limits. More that wait are the kernel's: it has them try again after a second."""
_REASONS = {status.value: status.phrase for status in HTTPStatus}


# --- serving ---


@dataclass(frozen=True, slots=True)
class Terms:
    """On which callers are let in. ``tls``: a server's context; ``peers``: where it asks for certificates, the names
    that may ask. ``is_shared``: others may listen on the same port (SO_REUSEPORT), as an agent's successor does."""

    limits: Limits = DEFAULT_LIMITS
    tls: ssl.SSLContext | None = None
    peers: tuple[str, ...] = ()
    is_shared: bool = False
    log: Callable[[str], None] = lambda line: None


class _Doorway(asyncio.Protocol):
    """One accepted connection before its TLS handshake."""

    def __init__(self, server: Server, crowd: Crowd, terms: Terms) -> None:
        self._server, self._crowd, self._terms = server, crowd, terms
        self._guest: Guest | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()  # what comes now is the handshake's
        self._guest = Guest(_source(transport), transport.abort)
        self._task = asyncio.get_running_loop().create_task(self._greet(transport, self._guest))
        self._crowd.enter(self._guest)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._guest is not None:
            self._crowd.leave(self._guest)

    async def _greet(self, transport: asyncio.Transport, guest: Guest) -> None:
        assert self._terms.tls is not None
        if transport.is_closing():  # it made room for one that came in the same moment: a flood costs no handshakes
            return
        connection = _Connection(self._server, guest)
        try:
            under_tls = await asyncio.get_running_loop().start_tls(
                transport, connection, self._terms.tls, server_side=True,
                ssl_handshake_timeout=self._terms.limits.request_seconds, ssl_shutdown_timeout=1.0,
            )  # fmt: skip
        except OSError as error:  # ssl.SSLError is one
            return self._give_up(guest, _why_no_tls(error))
        # A connection that ended in the middle of its handshake is "done" too (CPython 3.11, sslproto).
        session = None if under_tls is None else under_tls.get_extra_info("ssl_object")
        if under_tls is None or session is None or session.version() is None:
            return self._give_up(guest, "gone in the handshake")
        guest.abort = under_tls.abort
        name = _name(session.getpeercert()) if self._terms.peers else ""
        if self._terms.peers:
            if name not in self._terms.peers:
                return self._give_up(guest, "with a certificate that may not ask here")
            if not self._crowd.vouch(guest):
                return
        connection.named(name)
        connection.connection_made(under_tls)

    def _give_up(self, guest: Guest, why: str) -> None:
        if not self._crowd.has(guest):
            return  # it made room, and is counted
        self._crowd.leave(guest)
        self._crowd.turn_away(guest, why)


def _why_no_tls(error: OSError) -> str:
    reason = str(getattr(error, "reason", "") or "")
    if "PEER_DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return "without a certificate"
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return "with a certificate that is not trusted"
    return "without TLS 1.3" if reason else "gone in the handshake"


def _name(certificate: Mapping[str, Any] | None) -> str:
    """The first DNS name of a verified certificate."""
    return next((value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"), "")


def _source(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


class _Connection(asyncio.Protocol):
    """One accepted connection: requests in, answered in order."""

    def __init__(self, server: Server, guest: Guest | None = None) -> None:
        self._server = server
        self._crowd = server.crowd
        self._guest = guest
        self._caller = Caller()
        self._name = ""
        self._early: list[bytes] | None = []
        self._clock: asyncio.TimerHandle | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._writable.set()
        self._upgraded: asyncio.StreamReader | None = None
        self._ended = 0
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._is_in_head = True

    def named(self, name: str) -> None:
        """By the certificate that was shown."""
        self._name = name

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._server.connections[self] = None
        if self._crowd is not None:
            if self._guest is None:
                self._guest = Guest(_source(transport), self._transport.abort)
                self._crowd.enter(self._guest)
            self._caller = Caller(self._guest.source, self._name, self._vouch)
            self._expect(self._crowd.limits.request_seconds)
        early, self._early = self._early or [], None
        for data in early:
            self.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.pop(self, None)
        if self._crowd is not None and self._guest is not None:
            self._crowd.leave(self._guest)
        self._expect(0)
        self._writable.set()
        if self._upgraded is not None:
            self._upgraded.feed_eof()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._early is not None:  # `start_tls` may hand on what came with the handshake before it returns
            self._early.append(data)
            return
        if self._upgraded is not None:
            self._upgraded.feed_data(data)
            return
        ended = self._ended
        try:
            self._parser.feed_data(data)
            # After a request's end what is left of ``data`` is the next one's, and how much that is nobody says.
            self._count_head(len(data) if self._is_in_head and self._ended == ended else 0)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded = asyncio.StreamReader()
            self._upgraded.feed_data(data[upgrade.args[0] :])
        except (httptools.HttpParserError, ValueError):
            if self._crowd is not None and self._guest is not None:
                self._crowd.count(self._guest, "too large, or not HTTP")
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._close()

    def eof_received(self) -> bool:
        if self._upgraded is not None:
            self._upgraded.feed_eof()
            return self._transport.get_extra_info("ssl_object") is None  # under TLS nothing is open after that
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # what a stranger may cost
    def _vouch(self) -> bool:
        return self._crowd is None or (self._guest is not None and self._crowd.vouch(self._guest))

    def _count_head(self, size: int) -> None:
        """A head that does not end is kept by the parser: it is counted as it comes."""
        self._head_bytes += size
        if self._crowd is not None and self._head_bytes > self._crowd.limits.head_bytes_max:
            raise ValueError("head too large")

    def _expect(self, seconds: float) -> None:
        """Something has to happen within ``seconds``, or the connection ends; 0: nothing has to."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        if self._crowd is not None and seconds:
            self._clock = asyncio.get_running_loop().call_later(seconds, self._late)

    def _late(self) -> None:
        if self._crowd is not None and self._guest is not None:
            self._crowd.turn_away(self._guest, "too slow")

    def _close(self) -> None:
        """Once what was written has been taken, for which there is not for ever."""
        self._transport.close()
        if self._crowd is not None:
            self._expect(self._crowd.limits.answer_seconds)

    # httptools
    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) >= HEADER_COUNT_MAX:
            raise ValueError("too many headers")
        self._count_head(len(name) + len(value))
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._is_in_head = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > (BODY_BYTES_MAX if self._crowd is None else self._crowd.limits.body_bytes_max):
            raise ValueError("body too large")
        if self._crowd is not None and self._guest is not None and not self._crowd.buffers(self._guest, len(body)):
            raise ValueError("too much of all strangers' bodies is waiting to be whole")
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, query = parse_target(self._url.decode("latin-1"))
        method = self._parser.get_method().decode("ascii")
        request = Request(method, path, query, self._headers, b"".join(self._body), self._caller)
        self._waiting.append((request, self._parser.should_keep_alive()))
        self._ended += 1
        self._reset()
        self._expect(0)
        if len(self._waiting) > (_PIPELINE_MAX if self._crowd is None else _PIPELINE_OF_STRANGERS_MAX):
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
                self._close()
                return
            finally:
                if self._crowd is not None and self._guest is not None:
                    self._crowd.took(self._guest)
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
            self._close()
            return
        if self._crowd is not None and not self._waiting:
            self._expect(self._crowd.limits.answer_seconds)
        if not self._writable.is_set():
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
    """A listening server. ``errors`` keeps the last failures of the exchange (bugs), newest last. Without ``terms`` it
    bears everything. ``tls``: under TLS for whoever comes; it goes with no terms, whose own handshake can turn away.
    """

    def __init__(self, exchange: Exchange, terms: Terms | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.exchange = exchange
        self._tls = tls
        self.terms = terms
        self.crowd = None if terms is None else Crowd(terms.limits, terms.log)
        self.connections: dict[_Connection, None] = {}
        self.errors: deque[tuple[Request, Exception]] = deque(maxlen=20)
        self.port = 0
        self._listener: Any = None

    def failed(self, request: Request, error: Exception) -> None:
        self.errors.append((request, error))
        context = {"message": f"{request.method} {request.path}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    async def listen(self, host: str, port: int) -> None:
        await self._listen(host=host, port=port)

    async def listen_on(self, listening: socket.socket) -> None:
        await self._listen(sock=listening)

    async def _listen(self, **where: Any) -> None:
        loop = asyncio.get_running_loop()
        if self.terms is not None and self.terms.is_shared:
            where["reuse_port"] = True
        if self.terms is not None and self.terms.tls is not None and type(loop).__module__.startswith("uvloop"):
            raise RuntimeError("uvloop 0.23 does not end start_tls on a server's side: use asyncio's own loop for TLS")
        if self._tls is not None:  # uvloop 0.23 does end a handshake that the listener itself begins
            where["ssl"] = self._tls
        # asyncio accepts as many at once as may wait: for a moment each of them has a descriptor.
        backlog = _BACKLOG if self.terms is None else ACCEPTED_AT_ONCE
        self._listener = await loop.create_server(self._protocol, backlog=backlog, **where)
        self.port = self._listener.sockets[0].getsockname()[1]

    def _protocol(self) -> asyncio.Protocol:
        if self.terms is None or self.crowd is None or self.terms.tls is None:
            return _Connection(self)
        return _Doorway(self, self.crowd, self.terms)

    def stop_listening(self) -> None:
        """What is open goes on."""
        self._listener.close()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        self._listener.close()
        for connection in list(self.connections):
            connection.close()
        if self.crowd is not None:
            self.crowd.close()


async def serve(
    exchange: Exchange, host: str, port: int = 0, terms: Terms | None = None, tls: ssl.SSLContext | None = None
) -> Server:
    """Serve ``exchange`` on an address; port 0 takes a free one (``Server.port``). Raises ``OSError`` when taken."""
    server = Server(exchange, terms, tls)
    await server.listen(host, port)
    return server


async def serve_on(exchange: Exchange, listening: socket.socket, tls: ssl.SSLContext | None = None) -> Server:
    """Serve ``exchange`` on a bound socket, which may be of another network namespace. It is the server's now."""
    server = Server(exchange, tls=tls)
    await server.listen_on(listening)
    return server


# --- fetching ---


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to ask: address, the local address to come from ("" = any), and how long to wait in all. ``tls``: a client's
    context, for which the peer is ``tls_name``."""

    host: str
    port: int
    local_host: str = ""
    timeout_seconds: float = 5.0
    tls: ssl.SSLContext | None = None
    tls_name: str = ""


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


Dialler = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection to (address, port). Raises ``OSError``."""


async def fetch(peer: Peer, request: Request, dialled: Dialler | None = None) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own, or on the one that ``dialled`` opens: (status, headers, body).

    Raises ``Unreachable`` when refused, reset, silent for ``peer.timeout_seconds`` or unintelligible.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(peer.timeout_seconds):
            reader, writer = await (dialled(peer.host, peer.port) if dialled else connect(peer))
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
    if peer.tls is not None:
        return await asyncio.open_connection(
            peer.host, peer.port, ssl=peer.tls, server_hostname=peer.tls_name or peer.host, ssl_shutdown_timeout=1.0
        )
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
    """Send ``request`` on an open connection and read its answer. Raises ``Unreachable`` on a broken one, ``OSError``
    where it was reset."""
    headers = {"host": host, "connection": "close", **request.headers}
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(len(request.body))
    lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body)
    except RuntimeError as error:
        # uvloop 0.23 (UVHandle._ensure_alive): the peer was gone before the first byte. asyncio's own only drops it.
        raise ConnectionResetError(errno.ECONNRESET, "connection reset by peer") from error
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
async def serving(exchange: Exchange, host: str, port: int = 0, terms: Terms | None = None) -> Any:
    """``async with serving(...) as server``: closed on leaving."""
    server = await serve(exchange, host, port, terms)
    try:
        yield server
    finally:
        await server.close()
