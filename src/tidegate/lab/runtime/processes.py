"""The process table of this machine: who is below whom, and who carries the mark of a lab.

Linux only (/proc). Every answer may be stale by the time it is read: callers kill, then look again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

MARK = "TIDEGATE_LAB"
"""Every process of a lab has ``TIDEGATE_LAB=<name>`` in its environment."""

STATE_MARK = "TIDEGATE_LAB_STATE"
"""And the state folder that knows this lab: the same name elsewhere is another lab."""

_libc = ctypes.CDLL(None, use_errno=True)


def control(option: int, value: int | bytes) -> None:
    """prctl(2). Raises ``OSError``."""
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(parent: int) -> None:
    """Be killed when ``parent``, the process that forked us, ends. Closes the race of a parent already gone."""
    control(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every orphan below us, daemons included (PR_SET_CHILD_SUBREAPER, Linux 3.4)."""
    control(PR_SET_CHILD_SUBREAPER, 1)


def raise_file_limit() -> None:
    """Let us and our children open as many files as the machine allows: a connection through a Service takes four.

    Distributions leave the soft limit at 1024 for programs that use select(2) (systemd 240, NEWS).
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parents() -> dict[int, int]:
    """pid -> parent pid of every process that can be seen; zombies are left out."""
    table = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                after_name = file.read().rpartition(b")")[2].split()
        except OSError:  # ended between the listing and the read
            continue
        if after_name[0] not in (b"Z", b"X"):
            table[int(name)] = int(after_name[1])
    return table


def descendants(*roots: int) -> list[int]:
    """Every living process below ``roots``, parents before children."""
    below: dict[int, list[int]] = {}
    for pid, parent in sorted(parents().items()):
        below.setdefault(parent, []).append(pid)
    found = [pid for root in roots for pid in below.get(root, [])]
    for pid in found:  # grows while we walk it
        found.extend(below.get(pid, []))
    return found


def children(pid: int) -> list[int]:
    """The processes whose parent is ``pid``, in order; where the kernel lists them (CONFIG_PROC_CHILDREN) fast."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return sorted(int(child) for child in file.read().split())
    except OSError:
        return sorted(child for child, parent in parents().items() if parent == pid)


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            raw = file.read()
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, _, value in pairs}


def _ourselves() -> set[int]:
    """We and our ancestors: a shell that exports the mark must not be taken for a part of the lab."""
    table = parents()
    found, pid = {os.getpid()}, os.getpid()
    while pid in table and pid > 1:
        pid = table[pid]
        found.add(pid)
    return found


def marked(lab: str, state: str = "") -> list[int]:
    """Our own user's processes that carry the lab's mark, but never us nor our ancestors.

    ``state`` leaves out labs of that name which another state folder knows.
    """
    spared = _ourselves()
    found = []
    for pid in sorted(parents()):
        try:
            is_ours = pid not in spared and os.stat(f"/proc/{pid}").st_uid == os.geteuid()
        except OSError:
            continue
        if not is_ours:
            continue
        given = environment(pid)
        if given.get(MARK) == lab and state in ("", given.get(STATE_MARK)):
            found.append(pid)
    return found


def _family(lab: str, state: str) -> list[int]:
    """What carries the mark and all that hangs below it, whatever has become of its environment."""
    heads = marked(lab, state)
    spared = _ourselves()
    return sorted({*heads, *descendants(*heads)} - spared)


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Signal processes; those already gone, or not ours, are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_descendants(seconds: float = 3.0) -> list[int]:
    """Kill everything below us and reap it, over and over until nothing is left or the time is up.

    The caller must have called ``adopt_orphans`` first: then a fork that escapes one round comes back to us in the
    next. Returns what is left: nothing, unless a process hangs in the kernel.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = descendants(os.getpid())
        kill(left)
        reap_all()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.005)


def reap_all() -> list[tuple[int, int]]:
    """Collect every child that has ended: (pid, exit code or 128 + signal)."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        code = os.waitstatus_to_exitcode(status)
        ended.append((pid, code if code >= 0 else 128 - code))


def sweep(lab: str, seconds: float = 3.0, *, state: str = "") -> list[int]:
    """Kill whatever carries the lab's mark, and all below it, until none is left. Returns the pids killed.

    All are stopped before any is killed: a daemon without a mark can be found through its parents only, so no
    parent may end while one can still be forked.
    """
    killed: list[int] = []
    deadline = time.monotonic() + seconds
    while True:
        found = _family(lab, state)
        new = [pid for pid in found if pid not in killed]
        if new:
            kill(new, signal.SIGSTOP)
            killed.extend(new)
            continue
        kill(found)
        if not found or time.monotonic() > deadline:
            return killed
        time.sleep(0.005)
