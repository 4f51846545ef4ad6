"""``pods/exec``: run a command in a container, over a WebSocket with one channel per stream.

Channels (k8s.io/apimachinery pkg/util/remotecommand): 1 stdout, 2 stderr, 3 the final ``Status``. Offered are
``v5.channel.k8s.io`` (Kubernetes 1.30) and v4, which differ in the closing of stdin only: nothing is sent here.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from tidegate.kube.errors import ApiError, Unreachable
from tidegate.kube.exchange import Exchange, Request

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDOUT, STDERR, ERROR = 1, 2, 3
OUTPUT_BYTES_MAX = 64 * 1024
"""Kept of a command's output; the rest is read and dropped."""


class MessageTransport(Protocol):
    """A transport that can open WebSockets by itself (``kube.http.HttpTransport``)."""

    def messages(self, request: Request, protocols: tuple[str, ...]) -> AsyncIterator[bytes]:
        """The messages the server sends, until it closes. Raises ``ApiError``, ``Unreachable``."""
        ...


async def execute(
    exchange: Exchange, path: str, container: str, command: tuple[str, ...], bytes_max: int = OUTPUT_BYTES_MAX
) -> tuple[int, bytes]:
    """(exit code, stdout and stderr as they came) of ``command``; ``path`` is the pod's exec subresource.

    Raises ``ApiError`` (403, 404, a command that cannot be started) and ``Unreachable``.
    """
    query = [("container", container)] if container else []
    query += [("command", word) for word in command]
    request = Request("GET", path, (*query, ("stdout", "true"), ("stderr", "true")))
    opened = getattr(exchange, "messages", None)
    messages: AsyncIterator[bytes] = (
        opened(request, PROTOCOLS) if opened is not None else in_process(exchange, request, PROTOCOLS)
    )
    output = bytearray()
    async for message in messages:
        if message[:1] in (bytes([STDOUT]), bytes([STDERR])):
            output += message[1 : 1 + bytes_max - len(output)]
        elif message[:1] == bytes([ERROR]):
            return _exit_code(message[1:]), bytes(output)
    raise Unreachable(f"exec {' '.join(command)}: the connection ended before the command did")


class _Cause(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, frozen=True):
    causes: tuple[_Cause, ...] = ()


class _Status(msgspec.Struct, frozen=True):
    status: str = ""
    reason: str = ""
    message: str = ""
    code: int = 0
    details: _Details = _Details()


def _exit_code(body: bytes) -> int:
    try:
        status = msgspec.json.decode(body, type=_Status)
        if status.status == "Success":
            return 0
        if status.reason == "NonZeroExitCode":
            return int(next(cause.message for cause in status.details.causes if cause.reason == "ExitCode"))
    except (msgspec.DecodeError, ValueError, StopIteration) as error:
        raise Unreachable(f"exec ended with a status that is not understood: {body[:200]!r}") from error
    raise ApiError(status.code or 500, status.reason, status.message or "the command could not be run")


# --- without a network: straight into a server of this process (virtual time) ---


class _Pipe(asyncio.Transport):
    """One end's way out: what is written is what the other end reads."""

    def __init__(self, other: asyncio.StreamReader) -> None:
        super().__init__()
        self._other = other
        self._is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closed:
            self._other.feed_data(bytes(data))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._other.feed_eof()

    def is_closing(self) -> bool:
        return self._is_closed


class _Unbounded(asyncio.BaseProtocol):
    """What a StreamWriter asks of its protocol: a pipe never makes anybody wait."""

    async def _drain_helper(self) -> None:
        return


async def in_process(exchange: Exchange, request: Request, protocols: tuple[str, ...]) -> AsyncIterator[bytes]:
    """The messages of a server in this process. Needs wsproto, as that server does."""
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage, CloseConnection

    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(b"in this process!").decode(),
        "sec-websocket-protocol": ", ".join(protocols),
    }
    response = await exchange(Request(request.method, request.path, request.query, headers))
    if response.upgrade is None:
        raise _refused(response.status, await response.read())
    ours, theirs = asyncio.StreamReader(), asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    answering = asyncio.StreamWriter(_Pipe(ours), _Unbounded(), theirs, loop)
    serving = loop.create_task(_serve(response.upgrade(theirs, answering), answering), name="exec")
    framing, partial = Connection(ConnectionType.CLIENT), b""
    try:
        while data := await ours.read(65_536):
            framing.receive_data(data)
            for event in framing.events():
                if isinstance(event, BytesMessage):
                    partial += bytes(event.data)
                    if event.message_finished:
                        yield partial
                        partial = b""
                elif isinstance(event, CloseConnection):
                    return
    finally:
        theirs.feed_eof()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _serve(talk: object, writer: asyncio.StreamWriter) -> None:
    try:
        await talk  # type: ignore[misc]
    finally:
        writer.close()


def _refused(status: int, body: bytes) -> ApiError:
    try:
        found = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        found = _Status(message=body[:200].decode("utf-8", "replace"))
    return ApiError(status, found.reason, found.message or f"exec was answered {status}")
