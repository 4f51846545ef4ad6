"""``pods/exec`` and ``pods/attach``: a command beside a container, its streams on WebSocket channels.

Channels (k8s.io/apimachinery pkg/util/remotecommand): 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 resize,
255 closes one (v5 only, KEP-4006): without it a command that reads to the end of stdin never ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tidegate.kube.api import JsonObject
from tidegate.kube.exchange import Request, Response
from tidegate.lab.apiserver import failures, websocket
from tidegate.lab.apiserver.bodies import is_true
from tidegate.lab.apiserver.versions import encode
from tidegate.lab.apiserver.websocket import WebSocket

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


@dataclass(slots=True)
class Terminal:
    """The streams of one exec. ``read`` answers b"" at the end of stdin (at once when there is none)."""

    command: tuple[str, ...]
    is_tty: bool
    write: Callable[[bytes], Awaitable[None]]
    write_error: Callable[[bytes], Awaitable[None]]
    _input: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def read(self) -> bytes:
        return await self._input.get()

    def feed(self, data: bytes) -> None:
        """What the client typed; b"" ends it."""
        self._input.put_nowait(data)


class NotRunnable(Exception):
    """The command could not be started; the text says why."""


Execute = Callable[[JsonObject, str, Terminal], Awaitable[int]]
"""Run ``terminal.command`` in (pod, container) until it ends: its exit code. Raises ``NotRunnable``."""


def answer(request: Request, pod: JsonObject, container: str, execute: Execute | None) -> Response:
    """Upgrade and run. Raises ApiError before the upgrade for what cannot be run at all."""
    if execute is None:
        raise failures.unavailable("this lab runs no commands in containers")
    if not websocket.is_upgrade(request):
        raise failures.bad_request("unable to upgrade: Upgrade request required")
    command = tuple(request.params("command"))
    if not command:
        raise failures.bad_request("you must specify at least one command for the container")
    has_input = is_true(request.param("stdin"))

    async def talk(socket: WebSocket, protocol: str) -> None:
        async def write(data: bytes) -> None:
            await socket.send(bytes([STDOUT]) + data)

        async def write_error(data: bytes) -> None:
            await socket.send(bytes([STDERR]) + data)

        terminal = Terminal(command, is_true(request.param("tty")), write, write_error)
        if not has_input:
            terminal.feed(b"")
        await _run(socket, terminal, execute(pod, container, terminal))

    return websocket.accept(request, PROTOCOLS, talk)


def attach(request: Request, chunks: AsyncIterator[bytes]) -> Response:
    """Follow what a container writes from now on; the lab's containers have no stdin to attach to."""
    if not websocket.is_upgrade(request):
        raise failures.bad_request("unable to upgrade: Upgrade request required")

    async def talk(socket: WebSocket, protocol: str) -> None:
        async def write(data: bytes) -> None:
            await socket.send(bytes([STDOUT]) + data)

        async def follow() -> int:
            async for chunk in chunks:
                await write(chunk)
            return 0

        await _run(socket, Terminal((), False, write, write), follow())

    return websocket.accept(request, PROTOCOLS, talk)


async def _run(socket: WebSocket, terminal: Terminal, work: Awaitable[int]) -> None:
    """Until the command ends or the client leaves, whichever is first."""
    running = asyncio.ensure_future(work)
    reading = asyncio.ensure_future(_read(socket, terminal))
    try:
        await asyncio.wait((running, reading), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await socket.send(bytes([ERROR]) + encode(_outcome(running)))
    finally:
        for task in (running, reading):
            task.cancel()
        await asyncio.gather(running, reading, return_exceptions=True)


async def _read(socket: WebSocket, terminal: Terminal) -> None:
    while (message := await socket.receive()) is not None:
        if not message:
            continue
        if message[0] == STDIN and len(message) > 1:
            terminal.feed(message[1:])
        elif message[0] == CLOSE and message[1:2] == bytes([STDIN]):
            terminal.feed(b"")


def _outcome(running: asyncio.Future[int]) -> JsonObject:
    """The Status that ends an exec; kubectl takes its exit code from the ExitCode cause."""
    error = running.exception()
    if isinstance(error, NotRunnable):
        return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": str(error), "code": 500}
    code = running.result()
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": causes},
    }
