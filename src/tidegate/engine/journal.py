"""The engine's journal: what was observed, decided and done, as JSON lines that outlive the process.

One line per event, ``{"at": seconds since 1970, "event": name, ...}``, written in one ``write`` before the act it
announces, so that a process that starts anew can see what the last one had begun and never finished.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tidegate import vtime

Entry = dict[str, Any]
BYTES_MAX = 4 * 1024 * 1024
"""A hold writes about 1 KiB; older entries than this many bytes are dropped at the next start."""


class Journal:
    """Appends entries to ``path``; without one it keeps nothing. A full disk never stops a drain."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.failure = ""
        self._descriptor = -1
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            _shorten(Path(path))
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                os.write(self._descriptor, b"\n")  # a line cut short by a kill takes the next one with it

    def record(self, event: str, **fields: Any) -> None:
        """Write one entry, stamped now."""
        if self._descriptor < 0:
            return
        entry = {"at": round(vtime.now().timestamp(), 6), "event": event, **fields}
        try:
            os.write(self._descriptor, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            self.failure = str(error)

    def entries(self) -> list[Entry]:
        """What the file holds, oldest first; a last line cut short by a kill is left out."""
        return read(Path(self.path)) if self.path else []

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read(path: Path) -> list[Entry]:
    """The entries of a journal file; lines that are none are left out."""
    entries = []
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            entries.append(entry)
    return entries


def _shorten(path: Path) -> None:
    """Keep the newest half of a file that has grown too long."""
    if not path.exists() or path.stat().st_size <= BYTES_MAX:
        return
    kept = path.read_bytes()[-BYTES_MAX // 2 :]
    part = path.with_suffix(".part")
    part.write_bytes(kept[kept.find(b"\n") + 1 :])
    part.rename(path)
