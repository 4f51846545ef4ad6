"""Analyses put: one question to Prometheus, one HTTP check, one command; bounded in time and in what is read.

What an answer means is ``release/analysis.py``. Whatever cannot be had is a problem, never a success.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from typing import cast
from urllib.parse import urlsplit

from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, parse_target
from tidegate.model.activity import first_line
from tidegate.release import analysis as judging
from tidegate.release.analysis import Finding
from tidegate.release.spec import Analysis

BODY_BYTES_MAX = 1024 * 1024
"""An instant query that is judged by one sample answers in some hundred bytes."""
_PORTS = {"http": 80, "https": 443}


async def ask(one: Analysis, is_before: bool = False) -> Finding:
    """One answer. Never raises. ``is_before``: only whether it answers at all, whatever it says."""
    try:
        match one.kind:
            case "prometheus":
                found = await _prometheus(one, is_before)
            case "http":
                status, _ = await _fetched(one, one.url, ())
                found = judging.judge_status(status)
            case _:
                found = await _command(one)
    except Unreachable as error:
        return Finding(None, f"cannot be asked: {error}")
    return found


async def _prometheus(one: Analysis, is_before: bool) -> Finding:
    """Instant query (Prometheus HTTP API, ``GET /api/v1/query``). Raises ``Unreachable``."""
    place = f"{one.url.rstrip('/')}/api/v1/query"
    status, body = await _fetched(one, place, (("query", one.query), ("timeout", f"{one.timeout_seconds:g}s")))
    if is_before:
        return judging.judge_answer(status, body)
    return judging.judge_prometheus(status, body, one.success)


async def _fetched(one: Analysis, url: str, query: tuple[tuple[str, str], ...]) -> tuple[int, bytes]:
    """Raises ``Unreachable``."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise Unreachable(f"{url!r} is no URL: {error}") from error
    if not parts.hostname or not port:
        raise Unreachable(f"{url!r} is no URL: write http://HOST[:PORT]/PATH, or https")
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    peer = wire.Peer(parts.hostname, port, timeout_seconds=one.timeout_seconds, tls=tls, tls_name=parts.hostname)
    path, given = parse_target(f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/")
    headers = {"host": parts.netloc.rpartition("@")[2], "user-agent": "tidegate-analysis", "accept": "*/*"}

    async def dialled(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await wire.connect(peer)
        return cast("asyncio.StreamReader", _Bounded(reader)), writer

    status, _, body = await wire.fetch(peer, Request("GET", path, (*given, *query), headers), dialled)
    return status, body


class _Bounded:
    """A reader that gives up on answers that are longer than anything that can be judged."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._left = reader, BODY_BYTES_MAX

    async def read(self, count: int) -> bytes:
        data = await self._reader.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise Unreachable(f"an answer of more than {BODY_BYTES_MAX} bytes")
        return data


async def _command(one: Analysis) -> Finding:
    """Exit 0 passes, 1 fails; run without a shell where the command line runs. Raises ``Unreachable``."""
    try:
        process = await asyncio.create_subprocess_exec(
            *one.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise Unreachable(f"{one.command[0]}: {error.strerror or error}") from error
    assert process.stdout is not None
    try:
        async with asyncio.timeout(one.timeout_seconds):
            output = await process.stdout.read(4096)
            while await process.stdout.read(65_536):
                pass  # what more it says is nobody's, but it must not block on it
            code = await process.wait()
    except TimeoutError as error:
        raise Unreachable(f"{one.command[0]} took longer than {one.timeout_seconds:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whatever it started
            await process.wait()
    return judging.judge_exit(code, first_line(output))
