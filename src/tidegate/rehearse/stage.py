"""What a story needs of the world it is played in. The real lab and the virtual one each provide a ``Stage``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from tidegate.kube.api import Api
from tidegate.lab.faults import Fault
from tidegate.rehearse.loadspec import LoadSpec, Source
from tidegate.rehearse.samples import Sample, decode_line

Entry = Mapping[str, Any]
"""One line of the lab's journal: {"at": wall seconds, "event": name, ...}."""

T = TypeVar("T")


class LoadFailed(Exception):
    """The load process ended by itself, or wrote what cannot be read."""


class RunningLoad(Protocol):
    """A load that is being sent."""

    def samples(self) -> Sequence[Sample]:
        """Every request accounted for so far, in the order they ended."""
        ...

    async def stop(self) -> Sequence[Sample]:
        """Send no more, wait for what is outstanding; all samples. Raises ``LoadFailed``."""
        ...

    def abandon(self) -> None:
        """Send no more; nobody will ask for the samples."""
        ...


class Stage(Protocol):
    """A lab to play in."""

    @property
    def api(self) -> Api: ...

    @property
    def sources(self) -> tuple[Source, ...]:
        """The nodes and their addresses, in order; the load is bound to each in turn."""
        ...

    @property
    def scratch(self) -> str:
        """A folder for the load's files."""
        ...

    def journal(self) -> Sequence[Entry]:
        """Everything the lab has journaled so far, in order; a sequence that only grows."""
        ...

    async def start_load(self, spec: LoadSpec) -> RunningLoad: ...

    async def fault(self, fault: Fault) -> None: ...


class Tail(Generic[T]):
    """A JSON-lines file that another process appends to. ``read`` takes in what is new; a torn line waits."""

    def __init__(self, path: str, decode: Callable[[bytes], T]) -> None:
        self.path = path
        self.lines: list[T] = []
        self._decode = decode
        self._offset = 0

    def read(self) -> list[T]:
        """All lines so far. A file that is not there yet is empty."""
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size == self._offset:
                    return self.lines
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return self.lines
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.lines.extend(self._decode(line) for line in whole.splitlines())
        return self.lines


class LoadProcess:
    """A ``RunningLoad`` that is a process of ``rehearse.load``: real or modelled, its starter says how to end it."""

    def __init__(self, path: str, terminate: Callable[[], None], wait: Callable[[], Awaitable[int]]) -> None:
        """``terminate`` sends SIGTERM, ``wait`` gives the exit code; ``path`` is the spec's output."""
        self._tail = Tail(path, decode_line)
        self._terminate = terminate
        self._wait = wait

    def samples(self) -> Sequence[Sample]:
        return self._tail.read()

    def abandon(self) -> None:
        self._terminate()

    async def stop(self) -> Sequence[Sample]:
        self._terminate()
        code = await self._wait()
        if code != 0:
            raise LoadFailed(f"the load process ended with exit code {code}")
        try:
            return self._tail.read()
        except msgspec.MsgspecError as error:
            raise LoadFailed(f"{self._tail.path}: {error}") from error
