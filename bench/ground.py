"""What a measurement stands on: a lab of its own, and a word on the machine it was made on."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.lab import boot
from tidegate.lab.folder import LabFolder, LabRecord
from tidegate.lab.runtime import processes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "out" / "bench"
"""Where every run leaves its figures; ``python -m bench.evidence`` takes them into docs/evidence.md."""
UP_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class BenchLab:
    """A lab that is up."""

    folder: LabFolder
    record: LabRecord

    @property
    def process(self) -> int:
        """The pid of its API server, controllers, kubelets and proxies: the reaper's child that has a zygote."""
        for child in processes.children(self.record.pid):
            if processes.children(child):
                return child
        raise LookupError("the lab has no lab process")


def tidegate(*arguments: str, seconds: float = 120.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does. Its exit code is the caller's to judge."""
    command = [sys.executable, "-m", "tidegate", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT, env=env)


@contextlib.contextmanager
def lab(name: str, *options: str) -> Iterator[BenchLab]:
    """A lab booted by ``tidegate lab up``; taken down at the end. Raises ``RuntimeError`` with its words."""
    try:
        done = tidegate("lab", "up", "--detach", "--lab", name, *options, seconds=UP_SECONDS)
    except BaseException:  # Ctrl-C while it boots: it may be up by now, detached
        boot.stop(name)
        raise
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    try:
        folder = LabFolder(name)
        record = folder.record()
        if record is None:
            raise RuntimeError(f"lab {name} wrote no record")
        yield BenchLab(folder, record)
    finally:
        boot.stop(name)


def bound() -> Callable[[], None]:
    """For a process that we start (``preexec_fn``): it is killed when we end, however we do."""
    return functools.partial(processes.die_with_parent, os.getpid())


def rss_mib(pid: int) -> float:
    """Resident memory of a process, MiB (what ``ps`` shows as RSS)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def pss_mib(pid: int) -> float:
    """Resident memory with shared pages counted by share, MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    """User and system CPU of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load() -> str:
    """The load average of the last minute: other work on the machine slows every figure."""
    return f"{os.getloadavg()[0]:.1f}"


def machine() -> str:
    """Cores, kernel, Python and commit of a run, in one line."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    parts = [
        f"{os.cpu_count()} cores",
        f"Linux {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}",
        f"commit {commit.stdout.strip() or 'unknown'}",
        f"load {load()}",
    ]
    return ", ".join(parts)
