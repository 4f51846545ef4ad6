"""The demo workload, image ``tidegate/echo:TAG``: an HTTP server that says who it is.

``GET /`` answers ``{"pod", "version", "node"}`` (version = the image's tag), ``/healthz`` answers ``ok``,
``/sleep?ms=N`` answers after N ms. ``/work?seconds=N`` answers 202 at once and works on for N s with nobody
connected, as a transcoder does: ``/activity`` is 503 while any such job runs, else 200, and ``/metrics`` counts them
(``echo_jobs``) and the requests in flight (``echo_in_flight``) as Prometheus text. ``/ws`` is a WebSocket that says
back what it hears, until its client leaves. ``/queue?revision=R&length=N`` sets the length of a queue that every pod
tells of in ``/metrics`` (``echo_queue{revision="R"}``), as of a broker that they all look at.
Environment: ``POD_IP`` (address to bind), ``PORT`` (8080), ``STARTUP_SECONDS`` (before it listens),
``LATENCY_MS`` (of every answer but /healthz) and ``ON_SIGTERM``:

- ``exit`` (default) - no handler: the process ends at once, as most programs do that nobody taught better;
- ``drain`` - stop listening, close idle connections, finish what is in flight, exit 0;
- ``ignore`` - go on serving until SIGKILL.

It costs far less than 0.1 ms of CPU per request: a lab on two cores must measure the rollout, not the app.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
from collections import deque
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs

import httptools

from tidegate import vtime
from tidegate.lab import images

DEFAULT_PORT = 8080
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10


@dataclass(frozen=True, slots=True)
class Answer:
    """One response body and how long to think before sending it (seconds)."""

    status: str
    body: bytes
    content_type: str = "application/json"
    delay_seconds: float = 0.0

    def render(self, keep_alive: bool) -> bytes:
        """The response as sent."""
        connection = "keep-alive" if keep_alive else "close"
        head = (
            f"HTTP/1.1 {self.status}\r\ncontent-type: {self.content_type}\r\n"
            f"content-length: {len(self.body)}\r\nconnection: {connection}\r\n\r\n"
        )
        return head.encode() + self.body


class Site:
    """What the server answers, and the connections it has open."""

    def __init__(self, program: vtime.Program) -> None:
        env = program.env
        who = {
            "pod": env.get("POD_NAME", ""),
            "version": images.parse(env.get("TIDEGATE_IMAGE", "")).tag,
            "node": env.get("NODE_NAME", ""),
        }
        self.latency = float(env.get("LATENCY_MS", "0")) / 1000
        self.root = Answer("200 OK", json.dumps(who).encode(), delay_seconds=self.latency)
        self.health = Answer("200 OK", b"ok", "text/plain")
        self.missing = Answer("404 Not Found", b"not found\n", "text/plain")
        self.connections: dict[Connection, None] = {}
        self.jobs_until: list[float] = []
        self.queues: dict[str, int] = {}
        self.is_draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def answer(self, url: bytes) -> Answer:
        """The answer to one request target."""
        path, _, query = url.partition(b"?")
        if path == b"/":
            return self.root
        if path == b"/healthz":
            return self.health
        if path == b"/sleep":
            milliseconds = float(parse_qs(query.decode()).get("ms", ["0"])[0])
            return Answer("200 OK", b"{}", delay_seconds=milliseconds / 1000)
        if path == b"/work":
            seconds = float(parse_qs(query.decode()).get("seconds", ["0"])[0])
            self.jobs_until.append(asyncio.get_running_loop().time() + seconds)
            return Answer("202 Accepted", b"{}")
        if path == b"/queue":
            asked = parse_qs(query.decode())
            self.queues[asked.get("revision", [""])[0]] = int(asked.get("length", ["0"])[0])
            return Answer("200 OK", b"{}")
        if path == b"/activity":
            jobs = self._jobs()
            said = f"{len(jobs)} job{'s' * (len(jobs) > 1)}, {max(jobs):.0f} s to go\n" if jobs else "idle\n"
            return Answer("503 Service Unavailable" if jobs else "200 OK", said.encode(), "text/plain")
        if path == b"/metrics":
            in_flight = sum(one.is_answering for one in self.connections)
            lines = (
                "# TYPE echo_jobs gauge", f"echo_jobs {len(self._jobs())}",
                "# TYPE echo_in_flight gauge", f"echo_in_flight {in_flight}",
                "# TYPE echo_queue gauge",
                *(f'echo_queue{{revision="{name}"}} {length}' for name, length in sorted(self.queues.items())),
            )  # fmt: skip
            return Answer("200 OK", "\n".join(lines).encode() + b"\n", "text/plain; version=0.0.4")
        return self.missing

    def _jobs(self) -> list[float]:
        """Seconds that each job still takes."""
        now = asyncio.get_running_loop().time()
        self.jobs_until = [until for until in self.jobs_until if until > now]
        return [until - now for until in self.jobs_until]

    def drain(self) -> None:
        """Close idle connections now, the others after the answer they owe."""
        self.is_draining = True
        for connection in tuple(self.connections):
            connection.close_if_idle()


class Connection(asyncio.Protocol):
    """One client connection; answers in the order asked."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._owed: deque[tuple[Answer, bool]] = deque()
        self._waiting: asyncio.TimerHandle | None = None
        self._socket: WebSocket | None = None
        self._key = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._site.connections[self] = None
        self._site.empty.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None:
            self._waiting.cancel()
        self._site.connections.pop(self, None)
        if not self._site.connections:
            self._site.empty.set()

    def data_received(self, data: bytes) -> None:
        if self._socket is not None:
            self._say(self._socket.heard(data))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def _upgrade(self, rest: bytes) -> None:
        if self._transport is None:
            return
        self._owed.clear()
        if self._url.partition(b"?")[0] != b"/ws" or not self._key:
            self._transport.write(self._site.missing.render(False))
            self._transport.close()
            return
        self._socket = WebSocket()
        accept = base64.b64encode(hashlib.sha1(self._key + _WEBSOCKET_GUID).digest()).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        self._transport.write(f"{head}sec-websocket-accept: {accept}\r\n\r\n".encode())
        self._say(self._socket.heard(rest))

    def _say(self, answer: bytes) -> None:
        if self._transport is not None and self._socket is not None:
            if answer:
                self._transport.write(answer)
            if self._socket.is_over:
                self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"sec-websocket-key":
            self._key = value

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        keep_alive = self._parser.should_keep_alive() and not self._site.is_draining
        self._owed.append((self._site.answer(self._url), keep_alive))
        if self._waiting is None:
            self._serve()

    def _serve(self) -> None:
        """Send what is owed until an answer has to wait for its delay."""
        while self._owed and self._transport is not None:
            answer, keep_alive = self._owed[0]
            if answer.delay_seconds > 0 and self._waiting is None:
                loop = asyncio.get_running_loop()
                self._waiting = loop.call_later(answer.delay_seconds, self._serve)
                return
            self._waiting = None
            self._owed.popleft()
            keep_alive = keep_alive and not self._site.is_draining
            self._transport.write(answer.render(keep_alive))
            if not keep_alive:
                self._transport.close()
                return

    @property
    def is_answering(self) -> bool:
        """Whether an answer is owed."""
        return bool(self._owed)

    def close_if_idle(self) -> None:
        """Close unless an answer is owed. A WebSocket's client is not sent away: it leaves."""
        if self._socket is None and not self._owed and self._transport is not None:
            self._transport.close()


class WebSocket:
    """What is said back to a client's frames (RFC 6455): text and binary as they came, pong to ping, close to close."""

    def __init__(self) -> None:
        self._buffer = b""
        self.is_over = False

    def heard(self, data: bytes) -> bytes:
        """Bytes to send back; ``is_over`` after a close, or a frame that no client may send."""
        self._buffer += data
        said = b""
        while not self.is_over and (frame := self._frame()) is not None:
            code, payload = frame
            if code in (_TEXT, _BINARY):
                said += _framed(code, payload)
            elif code == _PING:
                said += _framed(_PONG, payload)
            elif code == _CLOSE:
                said += _framed(_CLOSE, payload[:2])
                self.is_over = True
        return said

    def _frame(self) -> tuple[int, bytes] | None:
        """The next whole frame, unmasked. Fragments are taken for messages: nobody sends them here."""
        held = self._buffer
        if len(held) < 2:
            return None
        code, length, at = held[0] & 0x0F, held[1] & 0x7F, 2
        if not held[1] & 0x80 or length == 127:  # a client masks; nobody says 64 KiB to an echo
            self.is_over = True
            return None
        if length == 126:
            length, at = int.from_bytes(held[2:4], "big"), 4
        end = at + 4 + length
        if len(held) < end:
            return None
        mask, body = held[at : at + 4], held[at + 4 : end]
        self._buffer = held[end:]
        return code, bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))


def _framed(code: int, payload: bytes) -> bytes:
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return bytes([0x80 | code]) + size + payload


async def main(program: vtime.Program) -> int:
    """Serve until told to stop; the exit code is 0 after a drain, 1 when the port is taken."""
    env = program.env
    startup = float(env.get("STARTUP_SECONDS", "0"))
    on_sigterm = env.get("ON_SIGTERM", "exit")
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    if on_sigterm == "drain":
        loop.add_signal_handler(signal.SIGTERM, told.set)
    elif on_sigterm == "ignore":
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
    if startup > 0:
        await asyncio.sleep(startup)
    site = Site(program)
    host, port = env.get("POD_IP") or "127.0.0.1", int(env.get("PORT", str(DEFAULT_PORT)))
    try:
        server: Any = await loop.create_server(lambda: Connection(site), host, port, backlog=1024)
    except OSError as error:
        program.log(f"cannot listen on {host}:{port}: {error.strerror or error}")
        return 1
    program.log(f"listening on {host}:{port}, version {json.loads(site.root.body)['version']}")
    await told.wait()
    server.close()
    site.drain()
    await site.empty.wait()
    return 0
