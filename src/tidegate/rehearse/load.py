"""Open-loop load: a process of its own that accounts for every request it was scheduled to send.

Open loop, because a client that waits for answers stops asking just when the service is bad and so hides the
loss ("coordinated omission", Gil Tene; wrk2's README). The client never retries: a request sent on a kept
connection that dies unanswered is a loss, as it is for any client that cannot prove its request idempotent.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import socket
from collections import deque
from dataclasses import dataclass
from typing import BinaryIO, cast

import httptools
import msgspec

from tidegate import vtime
from tidegate.lab.network.namespaces import inside
from tidegate.rehearse import samples
from tidegate.rehearse.loadspec import LoadSpec, Source, decode_spec
from tidegate.rehearse.samples import Sample
from tidegate.vtime.dial import dial

FLUSH_SECONDS = 0.25
START_SECONDS = 0.05
"""From the process being up to its first request: it must not be late for our own start-up."""

_LOCAL_ERRORS = frozenset({errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EMFILE, errno.ENFILE, errno.ENOBUFS})


class _Answer(msgspec.Struct, gc=False):
    """What the echo says about itself; anything else answers with blanks."""

    pod: str = ""
    version: str = ""
    node: str = ""


_BLANK = _Answer()
_ANSWERS = msgspec.json.Decoder(_Answer)


@dataclass(slots=True, eq=False)
class _Pending:
    """A request that has left and has not ended. Instants are of the loop's clock."""

    number: int
    lane: _Lane
    source: _Station
    scheduled_at: float
    started_at: float
    connection: _Connection | None = None
    dialling: asyncio.Task[None] | None = None
    port: int = 0
    is_over: bool = False


class _Station:
    """One source address and the connections it keeps. Raises ``OSError`` where its namespace is gone."""

    def __init__(self, source: Source) -> None:
        self._namespace = os.open(source.namespace, os.O_RDONLY | os.O_CLOEXEC) if source.namespace else -1
        self.node = source.node
        self.address = source.address
        self.idle: deque[_Connection] = deque()
        self.kept = 0

    def opened(self) -> socket.socket | None:
        """A fresh socket of its network namespace. None: of our own will do."""
        if self._namespace < 0:
            return None
        with inside(self._namespace):
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


@dataclass(slots=True)
class _Lane:
    """A stream of requests at a fixed rate: the k-th leaves at ``first_at + k / rate``."""

    name: str
    rate: float
    first_at: float
    head: bytes
    sent: int = 0

    @property
    def next_at(self) -> float:
        return self.first_at + self.sent / self.rate


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection; at most one request at a time is on it."""

    __slots__ = (
        "answer",
        "body",
        "is_closed",
        "is_retired",
        "load",
        "parser",
        "pending",
        "port",
        "retiring",
        "transport",
    )

    def __init__(self, load: Load, pending: _Pending) -> None:
        self.load = load
        self.pending: _Pending | None = pending
        self.answer = _BLANK
        self.body = b""
        self.port = 0
        self.is_closed = False
        self.is_retired = pending.lane.name == samples.NEW
        self.parser = httptools.HttpResponseParser(self)
        self.retiring: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = self.transport = cast(asyncio.Transport, transport)
        pending = self.pending
        if pending is None or pending.is_over:  # its deadline passed while it was being dialled
            stream.abort()
            return
        pending.connection = self
        self.port = pending.port = stream.get_extra_info("sockname", ("", 0))[1]
        if not self.is_retired:
            self.retiring = self.load.loop.call_later(self.load.spec.retire_seconds, self.retire)
        stream.write(pending.lane.head)

    def ask(self, pending: _Pending) -> None:
        """Send another request on a kept connection."""
        self.pending = pending
        pending.connection = self
        pending.port = self.port
        self.body = b""
        if self.transport is not None:
            self.transport.write(pending.lane.head)

    def retire(self) -> None:
        """Take no further request; close now if none is being answered."""
        self.is_retired = True
        if self.pending is None:
            self.close()

    def close(self) -> None:
        self.is_closed = True
        if self.transport is not None:
            self.transport.close()

    def give_up(self) -> None:
        """Its request is past the deadline: an answer that still comes is nobody's."""
        self.pending = None
        self.is_closed = True
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_usable(self) -> bool:
        """May take a request: open, and younger than its retirement."""
        return not (self.is_closed or self.is_retired or self.transport is None or self.transport.is_closing())

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.fail(samples.RESET)
            self.give_up()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        pending, self.pending = self.pending, None
        status = int(self.parser.get_status_code())
        reusable = not self.is_retired and self.parser.should_keep_alive()
        if pending is not None:
            try:
                self.answer = _ANSWERS.decode(self.body)
            except msgspec.MsgspecError:
                self.answer = _BLANK
            self.load.end(pending, _outcome(status), status, self.answer)
        if reusable and pending is not None and not self.is_closed:
            pending.source.idle.append(self)
        else:
            self.close()

    def eof_received(self) -> bool | None:
        self.is_closed = True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self.retiring is not None:
            self.retiring.cancel()
        self.fail(samples.RESET)
        self.load.lost(self)
        del self.parser  # breaks the cycle parser <-> protocol

    def fail(self, outcome: str) -> None:
        pending, self.pending = self.pending, None
        if pending is not None:
            self.load.end(pending, outcome, 0, self.answer)


def _outcome(status: int) -> str:
    if 200 <= status < 300:
        return samples.OK
    return samples.SERVER_ERROR if status >= 500 else samples.OTHER_STATUS


class Load:
    """The load of one run. ``await run(stop)`` sends until ``stop`` is set or the spec's end, then drains."""

    def __init__(self, spec: LoadSpec, output: BinaryIO) -> None:
        self.spec = spec
        self.loop = asyncio.get_running_loop()
        # One offset for the whole run: an instant must not jump when the wall clock is set.
        self._offset = vtime.now().timestamp() - self.loop.time()
        self._output = output
        self._stations = [_Station(source) for source in spec.sources]
        self._pool_of: dict[_Connection, _Station] = {}
        self._pending: dict[int, _Pending] = {}
        self._done: list[Sample] = []
        self._stopping = False
        self._end_at = math.inf
        self._stop = self._stopped = asyncio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.sent = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Send, drain what is outstanding (at most the deadline), write everything."""
        first_at = self.loop.time() + START_SECONDS
        lanes = self._lanes(first_at)
        for lane in lanes:
            self._timers[lane.name] = self.loop.call_at(lane.next_at, self._tick, lane)
        self._timers["flush"] = self.loop.call_later(FLUSH_SECONDS, self._flush)
        if self.spec.seconds_max:
            self._end_at = first_at + self.spec.seconds_max
            self._timers["end"] = self.loop.call_at(self._end_at, stop.set)
        self._stop = stop
        await stop.wait()
        self._stopping = True
        for lane in lanes:
            self._timers.pop(lane.name).cancel()
        if self._pending:
            await self._stopped.wait()
        for timer in self._timers.values():
            timer.cancel()
        for connection in list(self._pool_of):
            connection.retire()
        self._write()

    def _lanes(self, first_at: float) -> list[_Lane]:
        """The lanes asked for. The pool's instants lie half an interval after the others'."""
        start = f"GET {self.spec.path} HTTP/1.1\r\nHost: {self.spec.host}:{self.spec.port}\r\n"
        lanes = []
        if self.spec.new_per_second:
            head = f"{start}Connection: close\r\n\r\n".encode()
            lanes.append(_Lane(samples.NEW, self.spec.new_per_second, first_at, head))
        if self.spec.pool_per_second:
            half = 0.5 / self.spec.pool_per_second
            head = f"{start}\r\n".encode()
            lanes.append(_Lane(samples.POOL, self.spec.pool_per_second, first_at + half, head))
        return lanes

    def _tick(self, lane: _Lane) -> None:
        """Send everything of a lane that is due, then sleep until its next instant."""
        now = self.loop.time()
        # A clock of coarse resolution may fire a hair early: that request is due.
        while not self._stopping and lane.next_at <= now + 1e-4 and lane.next_at < self._end_at - 1e-6:
            self._send(lane, now)
            if self.sent == self.spec.requests_max:
                self._stopping = True
                self._stop.set()
        self._timers[lane.name] = self.loop.call_at(lane.next_at, self._tick, lane)

    def _send(self, lane: _Lane, now: float) -> None:
        station = self._stations[lane.sent % len(self._stations)]
        pending = _Pending(self.sent, lane, station, lane.next_at, max(now, lane.next_at))
        self._pending[pending.number] = pending
        lane.sent += 1
        self.sent += 1
        if "deadline" not in self._timers:
            self._watch_deadline(pending)
        kept = self._kept(station) if lane.name == samples.POOL else None
        if kept is not None:
            kept.ask(pending)
        else:
            pending.dialling = self.loop.create_task(self._dial(pending))

    def _kept(self, station: _Station) -> _Connection | None:
        """A kept connection to ask on, the longest idle first; None: open another one."""
        if station.kept < self.spec.pool_size:
            return None
        while station.idle:
            connection = station.idle.popleft()
            if connection.is_usable:
                return connection
        return None

    async def _dial(self, pending: _Pending) -> None:
        """Open a connection from the source's address; connection_made sends the request."""
        is_kept = pending.lane.name == samples.POOL
        connection = _Connection(self, pending)
        if is_kept:
            pending.source.kept += 1
            self._pool_of[connection] = pending.source
        try:
            station, target = pending.source, (self.spec.host, self.spec.port)
            await dial(lambda: connection, target, station.address, station.opened())
        except OSError as error:
            connection.fail(_dial_outcome(error))
            self.lost(connection)
        except asyncio.CancelledError:  # its deadline passed: see _expire
            self.lost(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is over; if it was a kept one its place is free."""
        station = self._pool_of.pop(connection, None)
        if station is not None:
            station.kept -= 1

    def end(self, pending: _Pending, outcome: str, status: int, answer: _Answer) -> None:
        """Account for a request, once. An answer after the deadline is a timeout whatever it says."""
        if self._pending.pop(pending.number, None) is None:
            return
        pending.is_over = True
        ended_at = self.loop.time()
        deadline_at = pending.scheduled_at + self.spec.deadline_seconds
        if ended_at >= deadline_at:
            outcome, ended_at = samples.TIMEOUT, deadline_at
        at = self._offset
        self._done.append(
            Sample(
                pending.number,
                pending.lane.name,
                pending.source.node,
                round(at + pending.scheduled_at, 6),
                round(at + pending.started_at, 6),
                round(at + ended_at, 6),
                outcome,
                status,
                answer.pod,
                answer.version,
                answer.node,
                pending.port,
            )
        )
        if self._stopping and not self._pending:
            self._stopped.set()

    def _watch_deadline(self, oldest: _Pending) -> None:
        at = oldest.scheduled_at + self.spec.deadline_seconds
        self._timers["deadline"] = self.loop.call_at(at, self._expire)

    def _expire(self) -> None:
        """End what is past its deadline. One timer, set for the oldest: requests leave in schedule order."""
        del self._timers["deadline"]
        limit = self.loop.time() - self.spec.deadline_seconds + 1e-4
        for pending in list(self._pending.values()):
            if pending.scheduled_at > limit:
                self._watch_deadline(pending)
                return
            connection = pending.connection
            self.end(pending, samples.TIMEOUT, 0, connection.answer if connection else _BLANK)
            if connection is not None:
                connection.give_up()
            elif pending.dialling is not None:
                pending.dialling.cancel()

    def _flush(self) -> None:
        self._write()
        self._timers["flush"] = self.loop.call_later(FLUSH_SECONDS, self._flush)

    def _write(self) -> None:
        if self._done:
            done, self._done = self._done, []
            self._output.write(samples.encode_lines(done))


def _dial_outcome(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return samples.REFUSED
    if error.errno in _LOCAL_ERRORS:
        return samples.CLIENT_ERROR
    # The kernel gave up by itself (ETIMEDOUT, EHOSTUNREACH): nobody refused, nobody answered.
    return samples.TIMEOUT if error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH) else samples.RESET


async def main(program: vtime.Program) -> int:
    """Entrypoint: ``argv[1]`` is the spec as JSON. SIGTERM ends the sending, then it drains."""
    spec = decode_spec(program.argv[1])
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    with open(spec.output, "ab", buffering=0) as output:
        await Load(spec, output).run(stop)
    return 0
