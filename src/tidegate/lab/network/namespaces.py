"""Network namespaces without a name: each lives as long as a process is in it, a socket of it or a descriptor is open.

Nothing of them is on disk (no ``ip netns add``), so a lab that is killed takes all of them along, the virtual Ethernet
pairs between them included: the kernel ends a namespace's devices with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from tidegate.lab.kernel.client import KernelError

_CLONE_NEWNET = 0x40000000
_COMMAND_SECONDS = 30.0
_libc = ctypes.CDLL(None, use_errno=True)


def _call(code: int, what: str) -> None:
    if code:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def own() -> int:
    """A descriptor of the namespace that the calling thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(descriptor: int) -> None:
    """Put the calling thread, and no other, into a namespace. Raises ``OSError``."""
    _call(_libc.setns(descriptor, _CLONE_NEWNET), "enter a network namespace")


def leave_for_new() -> None:
    """Put the calling thread into a namespace made for it. Raises ``OSError``: EPERM for who is not root."""
    _call(_libc.unshare(_CLONE_NEWNET), "make a network namespace")


@contextlib.contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """The calling thread is in the namespace for the block, which must not await: sockets made there belong to it.

    A thread's own affair and some 2 microseconds, so that an event loop needs no thread beside it to dial from a node.
    """
    home = own()
    try:
        enter(descriptor)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def bound(host: str, port: int) -> socket.socket:
    """A TCP socket on an address of the namespace the thread is in. Raises ``OSError``."""
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def become(path: str, command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Be ``command`` in the namespace that ``path`` opens. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    enter(descriptor)
    os.execvpe(command[0], list(command), {**os.environ, **environment})


class Namespace:
    """One network namespace, held open. ``close`` lets go of it: it ends with the last process in it."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor
        self._thread: ThreadPoolExecutor | None = None

    @classmethod
    def make(cls, name: str) -> Namespace:
        """A new one; the calling thread stays where it is. Raises ``OSError``."""
        home = own()
        try:
            leave_for_new()
            try:
                return cls(name, own())
            finally:
                enter(home)
        finally:
            os.close(home)

    @classmethod
    def here(cls, name: str) -> Namespace:
        """The one that the calling thread is in."""
        return cls(name, own())

    def fileno(self) -> int:
        """Raises ``OSError`` when it was closed: its number may be another file's by now."""
        if self._descriptor < 0:
            raise OSError(f"the network of {self.name} is gone")
        return self._descriptor

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """See ``inside``."""
        return inside(self.fileno())

    async def run(self, command: Sequence[str], text: bytes) -> bytes:
        """Run a command in it, with that standard input: its standard output. Raises ``KernelError``, ``OSError``.

        In a thread that stays in the namespace, whose children are born there; one command after another.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, f"network of {self.name}", enter, (self.fileno(),))
        return await asyncio.get_running_loop().run_in_executor(self._thread, _run, tuple(command), text)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _run(command: tuple[str, ...], text: bytes) -> bytes:
    name = " ".join(command[:3])
    try:
        ran = subprocess.run(command, input=text, capture_output=True, timeout=_COMMAND_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"{name}: no end after {_COMMAND_SECONDS:g} s") from error
    if ran.returncode:
        raise KernelError(f"{name}: exit {ran.returncode}: {ran.stderr[-600:].decode(errors='replace').strip()}")
    return ran.stdout
