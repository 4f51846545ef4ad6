"""The lab's journal: what really happened to processes, tables and connections, as JSON lines.

The judge reads it (rehearse/), never a component of the cluster: like a camera above the stage. Every line is
``{"at": wall seconds (float), "event": name, ...}``; under virtual time ``at`` is virtual. Events:

- ``process-started`` {pod, uid, namespace, node, container, pid, ip}
- ``process-exited`` {pod, uid, container, code}
- ``signal-sent`` {pod, uid, container, signal}
- ``hook-started`` / ``hook-ended`` {pod, uid, container, outcome}
- ``table-committed`` {node, generation, services: {"ns/name:port": ["ip:port", ...]}}
- ``proxy-synced`` {node}: the end of a successful sync, which is all that kube-proxy's healthz and its metric tell
- ``connection-closed`` / ``connection-failed`` (the endpoint did not take it) {node, endpoint, source, opened,
  pod_closed}: when the endpoint was chosen, and when it closed its end (0.0: it never had one)
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidegate import vtime

Entry = dict[str, Any]
Subscriber = Callable[[Entry], None]

KEPT_ENTRIES = 100_000
"""Entries kept in memory: a demo run writes about 2,000 process events and 20,000 closed connections."""


class Journal:
    """Records entries in memory, to subscribers (called at once, in order) and to a file, if one is given.

    A line is one ``write`` on an append-only descriptor, so several processes may share the file.
    """

    def __init__(self, path: Path | None = None, keep: int = KEPT_ENTRIES) -> None:
        self.entries: deque[Entry] = deque(maxlen=keep)
        self._subscribers: list[Subscriber] = []
        self._descriptor = -1
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def record(self, event: str, **fields: Any) -> None:
        """Write one entry, stamped now."""
        self.append({"at": vtime.now().timestamp(), "event": event, **fields})

    def append(self, entry: Entry) -> None:
        """Write an entry that another process stamped already."""
        self.entries.append(entry)
        if self._descriptor >= 0:
            os.write(self._descriptor, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        for subscriber in tuple(self._subscribers):
            subscriber(entry)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber`` with every entry from now on; the returned function ends that."""
        self._subscribers.append(subscriber)

        def leave() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return leave

    def of(self, event: str) -> list[Entry]:
        """The kept entries of one event, oldest first."""
        return [entry for entry in self.entries if entry["event"] == event]

    def close(self) -> None:
        """Close the file; entries recorded later stay in memory only."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read(path: Path) -> list[Entry]:
    """The entries of a journal file, oldest first. A last line cut short by a kill is left out."""
    entries = []
    for line in path.read_bytes().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries
