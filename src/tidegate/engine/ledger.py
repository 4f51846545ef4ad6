"""The ledger's file: JSON lines, appended, bounded, for its owner's eyes only. A full disk never stops a drain."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate.drain.ledger import Entry

BYTES_MAX = 8 * 1024 * 1024
"""Of one file. A retirement of a small cluster is 2 KiB; the file before is kept beside it, then forgotten."""
OLDER = ".1"


@dataclass(frozen=True, slots=True)
class Read:
    """``entries`` as they were written, oldest first; ``unreadable`` lines were passed over, ``problem`` says why
    there is nothing to read where there should be."""

    entries: tuple[Entry, ...] = ()
    unreadable: int = 0
    problem: str = ""


class Ledger:
    """Appends entries to ``path``; without one it keeps nothing. Several processes may write to one file."""

    def __init__(self, path: str = "", bytes_max: int = BYTES_MAX) -> None:
        self.path = path
        self.failure = ""
        """Why the last entry was not kept; empty when it was."""
        self._bytes_max = bytes_max

    def write(self, entry: Entry) -> None:
        """Append one line. Never raises."""
        from tidegate.drain.ledger import encode

        if not self.path:
            return
        try:
            Path(self.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.path) as descriptor:
                line = encode(entry)
                size = os.fstat(descriptor).st_size
                if size and size + len(line) > self._bytes_max:
                    os.replace(self.path, self.path + OLDER)
                    with _locked(self.path) as fresh:
                        _append(fresh, line)
                else:
                    _append(descriptor, line)
            self.failure = ""
        except OSError as error:
            self.failure = f"the ledger {self.path} cannot be written: {error.strerror or error}"

    async def settled(self) -> None:
        """Until what was written is where another process finds it; never for long."""

    def read(self) -> Read:
        """All that is kept. Never raises."""
        from tidegate.drain.ledger import decode

        entries: list[Entry] = []
        unreadable = 0
        for path in (self.path + OLDER, self.path):
            try:
                lines = Path(path).read_bytes().splitlines() if self.path else []
            except FileNotFoundError:
                continue
            except OSError as error:
                return Read(problem=f"{path}: {error.strerror or error}")
            for line in filter(None, lines):
                entry = decode(line)
                if entry is None:
                    unreadable += 1
                else:
                    entries.append(entry)
        return Read(tuple(entries), unreadable)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int]:
    """The file that stands at ``path`` while we hold it: another process may have put it aside as we waited."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _append(descriptor: int, line: bytes) -> None:
    """In one write; after a line that a full disk has cut short, on a line of its own."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    if os.write(descriptor, line) != len(line):
        raise OSError(28, "No space left on device")
