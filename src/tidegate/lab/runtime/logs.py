"""Container logs: kept in CRI format, read as ``kubectl logs`` asks, followed without polling.

A line on disk is ``2026-11-21T09:20:13.403761000Z stdout F text`` (CRI: instant, stream, F for a full line or P
for a part of one). The lab process is the only writer, so whoever follows is woken by the write itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tidegate import vtime
from tidegate.lab.runtime.spec import ContainerSpec

LINE_BYTES_MAX = 16 * 1024
"""containerd's max_container_log_line_size: longer lines are cut into parts."""

LOG_BYTES_MAX = 10 * 1024 * 1024
"""The kubelet's containerLogMaxSize. One older file is kept beside the current one, real kubelets keep four."""

ATTEMPTS_KEPT = 2
"""The running attempt and the one before it: what ``kubectl logs`` and ``logs --previous`` can ask for."""

_TELLING_LINES = 40
"""Where a program says why it gave up: a Python traceback ends its log, Go's panic comes within a screen of it."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """``PodLogOptions``. ``tail_lines`` None = all; ``since`` None = from the start."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None


def stamp(instant: datetime) -> str:
    """RFC 3339 with nanoseconds, as containerd writes it."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


class ContainerLog:
    """The log of one attempt: in a file, or in memory when it has no path."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.is_open = True
        self._lines: list[bytes] = []
        self._written = 0
        self._dropped = 0
        self._partial: dict[str, bytes] = {}
        self._changed: list[asyncio.Future[None]] = []
        self._descriptor = -1
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, stream: str, data: bytes) -> None:
        """Take what the container wrote to ``stdout`` or ``stderr``; keeps an unfinished line back."""
        *whole, rest = (self._partial.pop(stream, b"") + data).split(b"\n")
        head = f"{stamp(vtime.now())} {stream} ".encode()
        lines = [part for line in whole for part in _parts(head, line)]
        while len(rest) > LINE_BYTES_MAX:
            lines.append(head + b"P " + rest[:LINE_BYTES_MAX] + b"\n")
            rest = rest[LINE_BYTES_MAX:]
        if rest:
            self._partial[stream] = rest
        self._append(lines)

    def close(self) -> None:
        """The container has ended: no more comes, and followers stop after the last line."""
        for stream, rest in sorted(self._partial.items()):
            self._append([f"{stamp(vtime.now())} {stream} F ".encode() + rest + b"\n"])
        self._partial.clear()
        self.is_open = False
        self._wake()

    def discard(self) -> None:
        """Give the file back (the pod is gone)."""
        self.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, lines: list[bytes]) -> None:
        if not lines:
            return
        if self._descriptor >= 0:
            block = b"".join(lines)
            if self._written + len(block) > LOG_BYTES_MAX:
                self._rotate()
            os.write(self._descriptor, block)
            self._written += len(block)
        else:
            self._lines.extend(lines)
            self._written = len(self._lines)
        self._wake()

    def _rotate(self) -> None:
        os.close(self._descriptor)
        os.replace(self.path, f"{self.path}.1")
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._dropped += 1
        self._written = 0

    def _wake(self) -> None:
        waiting, self._changed = self._changed, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def lines_after(self, mark: tuple[int, int]) -> tuple[list[bytes], tuple[int, int]]:
        """The CRI lines written since ``mark`` ((0, 0) = the beginning), and the mark that follows them."""
        rotations, position = mark
        if rotations != self._dropped:
            position = 0
        if self._descriptor < 0:
            return self._lines[position:], (self._dropped, len(self._lines))
        data = os.pread(self._descriptor, max(self._written - position, 0), position)
        return data.splitlines(keepends=True), (self._dropped, position + len(data))

    async def changed(self, mark: tuple[int, int]) -> None:
        """Until there is more than ``mark``, or no more will come."""
        while self.is_open and mark == (self._dropped, self._written):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.append(future)
            await future

    async def says(self, *texts: bytes) -> bool:
        """Whether one of ``texts`` (lower case) is among the last lines, once the log is complete."""
        while self.is_open:
            await self.changed((self._dropped, self._written))
        lines, _ = self.lines_after((0, 0))
        last = b"".join(lines[-_TELLING_LINES:]).lower()
        return any(text in last for text in texts)


def _parts(head: bytes, line: bytes) -> list[bytes]:
    """A line as CRI lines: one, or several when it is longer than ``LINE_BYTES_MAX``."""
    starts = range(0, max(len(line), 1), LINE_BYTES_MAX)
    last = starts[-1]
    return [
        head + (b"F " if start == last else b"P ") + line[start : start + LINE_BYTES_MAX] + b"\n" for start in starts
    ]


def _instant(text: bytes) -> datetime:
    """The instant at the head of a CRI line, to the microsecond."""
    return datetime.fromisoformat(text[:26].decode() + "+00:00")


def _render(line: bytes, timestamps: bool) -> bytes:
    """What ``kubectl logs`` shows of a CRI line; a part of a longer line loses its line feed."""
    instant, _stream, tag, text = line.split(b" ", 3)
    if tag == b"P":
        text = text[:-1]
    return instant + b" " + text if timestamps else text


async def read(log: ContainerLog, options: LogOptions) -> AsyncIterator[bytes]:
    """The log as asked, in chunks; with ``follow`` until the container has ended."""
    budget = options.limit_bytes
    lines, mark = log.lines_after((0, 0))
    if options.since is not None:
        lines = [line for line in lines if _instant(line) >= options.since]
    if options.tail_lines is not None:
        lines = lines[-options.tail_lines :] if options.tail_lines > 0 else []
    while True:
        chunk = b"".join(_render(line, options.timestamps) for line in lines)
        if budget is not None:
            chunk = chunk[:budget]
            budget -= len(chunk)
        if chunk:
            yield chunk
        if not options.follow or budget == 0:
            return
        await log.changed(mark)
        lines, mark = log.lines_after(mark)
        if not lines and not log.is_open:
            return


class NoLog(LookupError):
    """There is no such log (any more); the text is the API server's message."""


class LogBook:
    """Every container's logs of a lab, by name: the API server's ``LogSource``."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, str, str], list[tuple[ContainerSpec, ContainerLog]]] = {}

    def open(self, spec: ContainerSpec) -> ContainerLog:
        """Begin the log of an attempt; forgotten are attempts older than the previous one, and another pod's."""
        log = ContainerLog(spec.log_path)
        attempts = self._attempts.setdefault((spec.namespace, spec.pod, spec.container), [])
        while attempts and attempts[0][0].uid != spec.uid:
            attempts.pop(0)[1].discard()
        attempts.append((spec, log))
        while len(attempts) > ATTEMPTS_KEPT:
            attempts.pop(0)[1].discard()
        return log

    def forget(self, uid: str) -> None:
        """The pod is gone: so are its logs, as on a real node. Files stay until the lab goes down."""
        for key in [key for key, attempts in self._attempts.items() if attempts[0][0].uid == uid]:
            for _, log in self._attempts.pop(key):
                log.discard()

    def find(self, namespace: str, pod: str, container: str, previous: bool = False) -> ContainerLog:
        """Raises ``NoLog``."""
        attempts = self._attempts.get((namespace, pod, container), [])
        if not attempts or (previous and len(attempts) < 2):
            kind = "previous terminated container" if previous else "container"
            raise NoLog(f'{kind} "{container}" in pod "{pod}" not found')
        return attempts[-2 if previous else -1][1]

    def running(self, namespace: str, pod: str, container: str) -> ContainerSpec:
        """The latest attempt, if it has not ended. Raises ``NoLog``."""
        attempts = self._attempts.get((namespace, pod, container), [])
        if not attempts or not attempts[-1][1].is_open:
            raise NoLog(f'container "{container}" in pod "{pod}" is not running')
        return attempts[-1][0]

    def logs(self, namespace: str, pod: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Raises ``NoLog`` at once, not at the first chunk."""
        return read(self.find(namespace, pod, container, options.previous), options)


def since_seconds(seconds: float) -> datetime:
    """The instant ``sinceSeconds`` means."""
    return vtime.now() - timedelta(seconds=seconds)


LogSource = Callable[[str, str, str, LogOptions], AsyncIterator[bytes]]
