"""The road to a real API server for whoever has little room, or little time: asyncio's streams, httptools, TLS.

aiohttp takes 10 MiB of a process that imports it (10 of the 62 MiB of a node agent at 10,000 Services; the budget is
64), a certificate store that nobody asked for among them, and 0.12 s of a core before a command line asks anything.
It stays for the coordinator and the operator, and for what this here does not do: proxies, credential plugins,
WebSockets (``kube/http.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httptools

from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, Response
from tidegate.kube.kubeconfig import Cluster

CONNECT_SECONDS = 10.0
READ_SECONDS = 330.0
"""Silence after which a stream is given up: above the 290 s a watch asks for."""
IDLE_SECONDS = 15.0
"""A connection without a request is not used again after that; aiohttp's figure. The API server closes it after 90."""
IDLE_MAX = 8
CHUNK_BYTES = 1 << 16
_SAFE = ("GET", "HEAD")


def goes(cluster: Cluster) -> bool:
    """Whether ``cluster`` can be asked this way."""
    return not cluster.proxy and cluster.plugin is None


class _Gone(Exception):
    """The server had closed the connection before the request came: it has done nothing."""


class _Line:
    """One connection, and the answer that is read from it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.since = 0.0
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.body: deque[bytes] = deque()
        self.has_head = self.is_done = self._has_more = self._is_kept = False

    # httptools
    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        if self.status < 200:  # 100 Continue and the like: another head follows
            self.headers.clear()
        else:
            self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_begin(self) -> None:
        self._has_more = self.is_done

    def on_message_complete(self) -> None:
        self.is_done = self.has_head
        self._is_kept = bool(self._parser.should_keep_alive())  # afterwards it says no

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    @property
    def is_open(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing()

    @property
    def has_unasked(self) -> bool:
        """Whether something has come since the last answer: it would be taken for the next one. A proxy says 408 on a
        connection that is idle for too long, and closes it."""
        return bool(getattr(self._reader, "_buffer", b""))

    @property
    def is_reusable(self) -> bool:
        return self.is_done and self._is_kept and not self._has_more and self.is_open

    async def ask(self, head: bytes, body: bytes, is_bodiless: bool) -> None:
        """Send a request, and read up to the end of its answer's head. Raises ``OSError``, ``_Gone``."""
        self._begin()
        try:
            self._writer.write(head + body)
            await self._writer.drain()
            while not self.has_head:
                await self.read_on()
        except (ConnectionError, RuntimeError) as error:  # RuntimeError: uvloop 0.23, gone before the first byte
            raise _Gone from error
        if is_bodiless:
            self.is_done = True

    async def read_on(self) -> None:
        """Wait for more of the answer. Raises ``OSError``, ``_Gone`` where not one byte of an answer came, and
        ``Unreachable`` for one that ends in its middle or is no HTTP."""
        async with asyncio.timeout(READ_SECONDS):
            data = await self._reader.read(CHUNK_BYTES)
        if data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise Unreachable(f"not HTTP: {error}") from error
        elif self.has_head and "content-length" not in self.headers and "transfer-encoding" not in self.headers:
            self.is_done = True  # its end is that of the connection
        elif self.has_head or self.headers:
            raise Unreachable("the connection ended in the middle of an answer")
        else:
            raise _Gone

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # a loop that is closed has closed it
            self._writer.close()


class DirectTransport:
    """An ``Exchange`` with one API server. ``await close()`` when done."""

    def __init__(self, cluster: Cluster) -> None:
        parts = urlsplit(cluster.server)
        self._cluster = cluster
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._is_tls else 80)
        self._named, self._path = parts.netloc.rpartition("@")[2], parts.path.rstrip("/")
        self._tls: ssl.SSLContext | None = None
        self._idle: deque[_Line] = deque()
        self._busy: dict[_Line, None] = {}

    async def __call__(self, request: Request) -> Response:
        """Raises ``Unreachable``, ``ConfigError``."""
        try:
            line = await self._asked(request)
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {READ_SECONDS:g} s") from error
        except OSError as error:
            raise self._unreachable(_plain(error)) from error
        except Unreachable as error:
            raise self._unreachable(str(error)) from error
        return Response(line.status, line.headers, _Body(self, line))

    async def messages(self, request: Request, protocols: tuple[str, ...]) -> AsyncIterator[bytes]:
        """What the server of a WebSocket sends: by aiohttp, which is imported for it. Raises as that."""
        from tidegate.kube.http import HttpTransport

        transport = HttpTransport(self._cluster)
        try:
            async for message in transport.messages(request, protocols):
                yield message
        finally:
            await transport.close()

    async def _asked(self, request: Request) -> _Line:
        """What only reads is asked again where the connection of before turns out to be closed."""
        head = self._head(request)
        while True:
            line = self._taken()
            is_fresh = line is None
            if line is None:
                line = await self._opened()
            self._busy[line] = None
            try:
                await line.ask(head, request.body, request.method == "HEAD")
                return line
            except _Gone as error:
                self.give_back(line)
                if is_fresh or request.method not in _SAFE:
                    raise Unreachable("the server closed the connection without an answer") from error
            except BaseException:
                self.give_back(line)
                raise

    def _head(self, request: Request) -> bytes:
        headers = {"host": self._named, **self._cluster.headers(), **request.headers}
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(len(request.body))
        lines = [f"{request.method} {self._path}{request.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _taken(self) -> _Line | None:
        """A connection that stands open without a request."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if line.is_open and not line.has_unasked and now - line.since < IDLE_SECONDS:
                return line
            line.close()
        return None

    async def _opened(self) -> _Line:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if not self._is_tls:
                    return _Line(*await asyncio.open_connection(self._host, self._port))
                name = self._cluster.tls_server_name or self._host
                return _Line(
                    *await asyncio.open_connection(
                        self._host, self._port, ssl=self._context(), server_hostname=name, ssl_shutdown_timeout=1.0
                    )
                )
        except TimeoutError as error:
            raise Unreachable(f"cannot connect: nothing within {CONNECT_SECONDS:g} s") from error
        except ssl.SSLError:
            raise
        except OSError as error:
            raise Unreachable(f"cannot connect: {_plain(error).lower()}") from error

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = self._cluster.tls()
            assert isinstance(context, ssl.SSLContext)
            self._tls = context
        return self._tls

    def give_back(self, line: _Line) -> None:
        """The answer on it is over, or nobody reads on."""
        self._busy.pop(line, None)
        if not line.is_reusable or line.body:
            return line.close()
        line.since = asyncio.get_running_loop().time()
        self._idle.append(line)
        while len(self._idle) > IDLE_MAX:
            self._idle.popleft().close()

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(f"{self._cluster.server}: {why}")

    async def close(self) -> None:
        for line in (*self._idle, *self._busy):
            line.close()
        self._idle.clear()
        self._busy.clear()


class _Body(AsyncIterator[bytes]):
    """The chunks of an answer as they come. Its connection is given back at its end, or with ``aclose``."""

    def __init__(self, transport: DirectTransport, line: _Line) -> None:
        self._transport = transport
        self._line: _Line | None = line

    async def __anext__(self) -> bytes:
        line = self._line
        if line is None:
            raise StopAsyncIteration
        try:
            while not line.body and not line.is_done:
                await line.read_on()
        except Unreachable as error:
            raise self._failed(str(error)) from error
        except TimeoutError as error:
            raise self._failed(f"silent for {READ_SECONDS:g} s") from error
        except OSError as error:
            raise self._failed(_plain(error)) from error
        except BaseException:
            await self.aclose()
            raise
        if line.body:
            return line.body.popleft()
        await self.aclose()
        raise StopAsyncIteration

    def _failed(self, why: str) -> Unreachable:
        self._give_back()
        return self._transport._unreachable(why)

    def _give_back(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._transport.give_back(line)

    async def aclose(self) -> None:
        self._give_back()

    def __del__(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is over
            self._give_back()


def _plain(error: OSError) -> str:
    """One line a person can act on."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or str(error)
        return f"its certificate is not trusted: {why}; does the kubeconfig name the right certificate-authority?"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or error}"
    if error.errno and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
