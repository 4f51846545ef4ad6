"""Time and the ground under every process of ours: the wall clock, or a seeded virtual one.

Code above this package is plain asyncio. On an ordinary loop it meets real time, sockets and signals; on a
``VirtualLoop`` the same code meets virtual time, an in-memory TCP and modelled processes, and the same seed
gives the same run. Public surface: ``now``, ``run``, ``VirtualLoop``, ``Deadlock``, ``Program``, ``Entrypoint``,
``Process``, ``Nursery``, ``read_text``, ``socket_inodes``, ``to_thread``, ``hosted``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.late import late

if TYPE_CHECKING:
    from tidegate.vtime.clock import hosted, now
    from tidegate.vtime.loop import VirtualLoop, run
    from tidegate.vtime.nursery import Nursery
    from tidegate.vtime.proc import is_virtual, read_text, socket_inodes, to_thread
    from tidegate.vtime.process import Process
    from tidegate.vtime.program import Entrypoint, Program, entrypoint
    from tidegate.vtime.realtime import new_event_loop
    from tidegate.vtime.timers import Deadlock

__all__ = [
    "Deadlock", "Entrypoint", "Nursery", "Process", "Program", "VirtualLoop",
    "entrypoint", "hosted",
    "is_virtual", "new_event_loop", "now", "read_text", "run", "socket_inodes",
    "to_thread",
]  # fmt: skip

__getattr__ = late(
    __name__,
    {
        "Deadlock": "timers",
        "Entrypoint": "program",
        "Nursery": "nursery",
        "Process": "process",
        "Program": "program",
        "VirtualLoop": "loop",
        "entrypoint": "program",
        "hosted": "clock",
        "is_virtual": "proc",
        "new_event_loop": "realtime",
        "now": "clock",
        "read_text": "proc",
        "run": "loop",
        "socket_inodes": "proc",
        "to_thread": "proc",
    },
)
