"""Who this process is, and whether another of this machine still runs."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

from tidegate.client.options import Identity


def this_process() -> Identity:
    """The person and process that ask, for records on pods."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an uid without a name, as in containers
        user = str(os.getuid())
    host = socket.gethostname()
    return Identity(f"{user}@{host}", f"{_machine()}/{os.getpid()}/{_started(os.getpid())}", is_alive)


def is_alive(holder: str) -> bool | None:
    """Whether that process runs; None for one of another machine. A pid that was given again started later."""
    machine, _, process = holder.rpartition("/")[0].rpartition("/")
    started = holder.rpartition("/")[2]
    if machine != _machine() or not process.isdigit():
        return None
    return _started(int(process)) == started


def _machine() -> str:
    """This boot of this machine, and this pid namespace: pids mean nothing beyond."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When it started, in clock ticks since boot; empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
