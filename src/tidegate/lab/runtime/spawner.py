"""The lab process's end of a zygote: asks it to fork, hears who ended. One socket, replies matched by number."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.lab.runtime import processes
from tidegate.lab.runtime.spec import Namespace, StartError

MESSAGE_BYTES_MAX = 128 * 1024
_KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Birth:
    """What to start: a command, or an entry point ("module:function") in a fork of the zygote."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    name: str
    entrypoint: str | None = None
    cwd: str = ""
    network: Namespace | None = None


@dataclass(slots=True)
class Child:
    """A process that the zygote forked."""

    number: int
    pid: int
    exit: asyncio.Future[int]


@dataclass(slots=True)
class _Pending:
    started: asyncio.Future[int]
    exit: asyncio.Future[int]


@dataclass(slots=True)
class _Outgoing:
    data: bytes
    descriptors: list[int] = field(default_factory=list)
    """Our own duplicates: the caller may close its descriptors while the message still waits."""


class Spawner:
    """A zygote and the children it forked. A zygote that dies takes them along; the next ``start`` starts anew."""

    def __init__(self, lab: str, modules: tuple[str, ...]) -> None:
        self._lab = lab
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._outgoing: deque[_Outgoing] = deque()

    @property
    def pid(self) -> int:
        """The zygote's pid; 0 when none runs."""
        return self._process.pid if self._process is not None else 0

    def launch(self) -> None:
        """Start the zygote, if none runs. It loads its modules (about 0.2 s) while the caller goes on."""
        if self._socket is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, processes.MARK: self._lab}
        command = [sys.executable, "-m", "tidegate.lab.runtime.zygote", str(theirs.fileno()), *self._modules]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)

    async def start(self, birth: Birth, descriptors: list[int]) -> Child:
        """Fork a child with (stdout, stderr) or (stdin, stdout, stderr). Raises ``StartError``."""
        self.launch()
        descriptors = [*descriptors, *_network(birth)]
        self._number += 1
        number = self._number
        loop = asyncio.get_running_loop()
        pending = _Pending(loop.create_future(), loop.create_future())
        self._pending[number] = pending
        self._send(
            {
                "op": "spawn", "id": number, "argv": birth.argv, "entrypoint": birth.entrypoint,
                "env": dict(birth.env), "cwd": birth.cwd, "name": birth.name,
                "network": birth.network is not None,
            },
            descriptors,
        )  # fmt: skip
        pid = await asyncio.shield(pending.started)
        return Child(number, pid, pending.exit)

    def signal(self, child: Child, number: int) -> None:
        """Through the zygote, which alone knows whether the pid is still the child's."""
        if not child.exit.done() and self._socket is not None:
            self._send({"op": "signal", "id": child.number, "number": number})

    async def close(self) -> None:
        """End the zygote and everything it forked."""
        process, self._process = self._process, None
        self._lose()
        if process is not None:
            for _ in range(400):
                if process.poll() is not None:
                    return
                await asyncio.sleep(0.01)
            process.kill()
            process.wait()

    # --- the socket ---

    def _send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        data = json.dumps(message).encode()
        self._outgoing.append(_Outgoing(data, [os.dup(number) for number in descriptors or []]))
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._outgoing and self._socket is not None:
            message = self._outgoing[0]
            try:
                socket.send_fds(self._socket, [message.data], message.descriptors)
            except BlockingIOError:
                loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:  # the zygote is gone; the reader will notice
                pass
            self._outgoing.popleft()
            for descriptor in message.descriptors:
                os.close(descriptor)
        if self._socket is not None:
            loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        while self._socket is not None:
            try:
                data = self._socket.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lose()
                return
            self._told(json.loads(data))

    def _told(self, message: dict[str, Any]) -> None:
        number = message["id"]
        pending = self._pending.get(number)
        if pending is None:
            return
        if "pid" in message:
            _settle(pending.started, message["pid"])
        elif "error" in message:
            del self._pending[number]
            if not pending.started.done():
                pending.started.set_exception(StartError(message["error"]))
        else:
            del self._pending[number]
            _settle(pending.exit, message["exit"])

    def _lose(self) -> None:
        """The zygote is gone, and with it (PDEATHSIG) every child."""
        if self._socket is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.2)
        for message in self._outgoing:
            for descriptor in message.descriptors:
                os.close(descriptor)
        self._outgoing.clear()
        pending, self._pending = self._pending, {}
        for entry in pending.values():
            if not entry.started.done():
                entry.started.set_exception(StartError("the process that starts containers has ended"))
            else:
                _settle(entry.exit, _KILLED)


def _network(birth: Birth) -> list[int]:
    if birth.network is None:
        return []
    try:
        return [birth.network.fileno()]
    except OSError as error:
        raise StartError(str(error)) from error


def _settle(future: asyncio.Future[int], value: int) -> None:
    if not future.done():
        future.set_result(value)
