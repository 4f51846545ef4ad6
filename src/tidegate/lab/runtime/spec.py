"""What a kubelet asks of a container runtime; the lab's CRI, cut to what a process needs."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


class Namespace(Protocol):
    """A network namespace (``network.namespaces``)."""

    def fileno(self) -> int:
        """A descriptor of it. Raises ``OSError`` once it was given up."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One attempt at one container.

    ``entrypoint`` ("module:function") is set for an image the lab has and a container without a command; then
    ``argv`` is its arguments. Else ``argv`` is the command to run on this machine. ``env`` is complete but for
    what the machine itself gives every process (PATH, HOME). ``log_path`` is where the CRI log goes.
    """

    lab: str
    namespace: str
    pod: str
    uid: str
    container: str
    image: str
    argv: tuple[str, ...] = ()
    entrypoint: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    working_directory: str = ""
    log_path: str = ""
    network: Namespace | None = None
    """Where its sockets are; None: with everybody else's of this machine."""

    @property
    def identity(self) -> str:
        """Names this attempt among all of the lab; every process of it carries it in its environment."""
        return f"{self.uid}/{self.container}/{self.attempt}"


class StartError(Exception):
    """The container could not be started: no such program, not executable, no such folder."""


class ContainerProcess(Protocol):
    """A started container: its first process and what hangs below it."""

    pid: int
    started_at: datetime

    async def wait(self) -> int:
        """The exit code once it has ended: 128 + signal when a signal ended it. Nothing of it is left then."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to the first process, as CRI StopContainer does. No effect once it has ended."""
        ...


class Streams(Protocol):
    """The far end of a command's stdin, stdout and stderr."""

    is_tty: bool

    async def read(self) -> bytes:
        """What to hand to stdin next; b"" = no more."""
        ...

    def write(self, data: bytes, /) -> Awaitable[None]: ...

    def write_error(self, data: bytes, /) -> Awaitable[None]: ...


class Runtime(Protocol):
    """Starts containers and runs commands beside them."""

    async def start(self, spec: ContainerSpec) -> ContainerProcess:
        """Start a container. Raises ``StartError``."""
        ...

    async def run(
        self, spec: ContainerSpec, command: tuple[str, ...], timeout_seconds: float | None = None
    ) -> tuple[int, bytes]:
        """Run a command in the container's environment: exec probes, exec hooks, ``kubectl exec``.

        Returns exit code and what it wrote (stdout and stderr as they came). Raises ``TimeoutError`` after
        ``timeout_seconds``, when the command has been killed, and ``StartError``.
        """
        ...

    async def converse(self, spec: ContainerSpec, command: tuple[str, ...], streams: Streams) -> int:
        """Run a command beside a container with live streams (``kubectl exec -i``, ``cp``): its exit code.

        The command is killed when the caller is cancelled. Raises ``StartError``.
        """
        ...
