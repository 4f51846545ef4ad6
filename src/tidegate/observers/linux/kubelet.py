"""Which process of the node is the kubelet: its open probes are no clients of a pod.

A name alone proves nothing, for any process may call itself ``kubelet`` and its connections would then not count. So
the process also is root's, and in the node's own process and network namespaces, which are ours (hostPID,
hostNetwork): who can start such a process has the node. None, or more than one, and nobody's connections are ignored.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

NAME = "kubelet"
"""Its comm. Distributions that build it into one binary with others (k3s) are left out: there the same process is an
API server or a proxy too, and what it opens may be a client's."""


@dataclass(slots=True)
class KubeletProcess:
    """``given``: its process id where somebody knows it. Else it is looked for, and again after it restarted."""

    given: int = 0
    proc: str = "/proc"
    _found: tuple[int, str] = field(default=(0, ""))

    def pid(self) -> int:
        """Its process id, 0 where it cannot be told."""
        if self.given:
            return self.given
        known, began = self._found
        # A process id is used again: only with its start time does it name a process.
        if not known or self._began(known) != began:
            self._found = self._search()
        return self._found[0]

    def _search(self) -> tuple[int, str]:
        found = [(pid, self._began(pid)) for pid in self._pids() if self._is_kubelet(pid)]
        return found[0] if len(found) == 1 else (0, "")

    def _pids(self) -> list[int]:
        with suppress(OSError):
            return sorted(int(name) for name in os.listdir(self.proc) if name.isdigit())
        return []

    def _is_kubelet(self, pid: int) -> bool:
        with suppress(OSError):
            with open(f"{self.proc}/{pid}/comm", encoding="utf-8", errors="replace") as file:
                if file.read().rstrip("\n") != NAME:
                    return False
            namespaces = ("pid", "net")
            ours = [os.readlink(f"{self.proc}/self/ns/{one}") for one in namespaces]
            its = [os.readlink(f"{self.proc}/{pid}/ns/{one}") for one in namespaces]
            return ours == its and self._is_roots(pid)
        return False

    def _is_roots(self, pid: int) -> bool:
        """By every one of its user ids: /proc/PID itself is root's too where a process gave root up (proc(5))."""
        with open(f"{self.proc}/{pid}/status", encoding="utf-8", errors="replace") as file:
            return any(line.split() == ["Uid:", "0", "0", "0", "0"] for line in file)

    def _began(self, pid: int) -> str:
        """Its start, in ticks since boot (proc(5), field 22; the name before may have blanks and brackets)."""
        with suppress(OSError, IndexError):
            with open(f"{self.proc}/{pid}/stat", encoding="utf-8", errors="replace") as file:
                return file.read().rpartition(")")[2].split()[19]
        return ""
