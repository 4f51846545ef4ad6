"""The journals of one node's agents: while one is replaced there are two, and neither may take the other for dead.

Each living agent has a file of its own and a lock on it (flock), which the kernel takes off when the process ends,
however it ends. A file that nobody has locked is of an agent that is gone: what it held is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.engine.journal import Entry, Journal

SLOTS = 8
"""Agents of one node at once: one, or two while it is replaced, or some more that see their last holds through."""


class NoSlot(Exception):
    """More agents run on this node than there are files for."""


@dataclass(slots=True)
class Follower:
    """Another agent's file, read on from where it ended last time."""

    path: Path
    _offset: int = 0
    _inode: int = 0

    def fresh(self) -> list[Entry]:
        """What was written since, oldest first; all of it again where the file is another one."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                whole, ended, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(whole) + len(ended)
        return [entry for line in whole.splitlines() if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "event" in entry else None


@dataclass(slots=True)
class Journals:
    """Ours, and the others' in ``folder``. Without a folder nothing is kept, and there are no others."""

    folder: str
    own: Journal = field(init=False)
    others: tuple[Follower, ...] = field(init=False, default=())
    _lock: int = -1

    def __post_init__(self) -> None:
        """Raises ``NoSlot``, ``OSError``."""
        if not self.folder:
            self.own = Journal()
            return
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        for slot in range(SLOTS):
            self._lock = _locked(self._path(slot))
            if self._lock >= 0:
                self.own = Journal(str(self._path(slot)))
                self.others = tuple(Follower(self._path(one)) for one in range(SLOTS) if one != slot)
                return
        raise NoSlot(f"{SLOTS} agents have their journals in {self.folder} already")

    def orphaned(self) -> Iterator[Path]:
        """Files of agents that are gone. Each is ours alone while it is looked at."""
        for other in self.others:
            if not other.path.exists():
                continue
            lock = _locked(other.path)
            if lock < 0:
                continue
            try:
                yield other.path
            finally:
                os.close(lock)

    def close(self) -> None:
        self.own.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _path(self, slot: int) -> Path:
        return Path(self.folder) / (f"holds-{slot}.jsonl" if slot else "holds.jsonl")


def _locked(journal: Path) -> int:
    """A descriptor that holds the lock until it is closed; -1: somebody has it. The lock is a file beside the journal,
    which is replaced when it has grown too long."""
    descriptor = os.open(journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    os.close(descriptor)
    return -1
