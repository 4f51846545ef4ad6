"""What the tests of this folder do: run the installed commands, look at processes, wait for the machine."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.lab.folder import known_labs
from tidegate.lab.runtime import processes

BIN = Path(sys.executable).parent
_UNSET = ("KUBECONFIG", "TIDEGATE_LAB", "TIDEGATE_LAB_NAME", "TIDEGATE_LAB_STATE", "TIDEGATE_DEBUG")


def eventually(holds: Callable[[], object], seconds: float = 8.0) -> None:
    """Return once ``holds`` does. Other processes are waited for, so this is the wall clock."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)  # realtime: processes of this machine


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    stdout: str
    stderr: str
    code: int

    def expect(self, code: int) -> Done:
        assert self.code == code, self
        return self


def finish(process: subprocess.Popen[str]) -> Done:
    """A command that was started, once it has ended."""
    stdout, stderr = process.communicate(timeout=20)
    return Done(stdout, stderr, process.returncode)


class User:
    """Runs ``tidegate`` and ``kubectl`` with a state folder of their own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._cwd = state.parent
        self.files_max = 0
        """The soft limit of open files; 0 leaves it."""
        kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
        self.environment = {**kept, "TIDEGATE_STATE": str(state)}
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, program: str = "tidegate") -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a shell does."""
        process = subprocess.Popen(
            [BIN / program, *arguments], env=self.environment, cwd=self._cwd, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=self._limit if self.files_max else None,
        )  # fmt: skip
        self._running.append(process)
        return process

    def _limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.files_max, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def run(self, *arguments: str, program: str = "tidegate") -> Done:
        """Run a command to its end."""
        return finish(self.start(*arguments, program=program))

    def kubectl(self, *arguments: str) -> Done:
        return self.run(*arguments, program="kubectl")

    def told(self, done: Done) -> str:
        """What a failed command said, for a golden file: one line and the exit code."""
        assert done.stdout == "" and done.stderr.count("\n") == 1, done
        text = re.sub(r"http://127\.\d+\.", "http://127.B.", done.stderr.replace(str(self.state), "STATE"))
        return f"{text}-> {done.code}\n\n"

    # --- processes ---

    def family(self, lab: str) -> dict[str, list[int]]:
        """The lab's processes by their names (``tidegate-lab``, ``agent``, ``sleep``, ...)."""
        found: dict[str, list[int]] = {}
        marked = processes.marked(lab, str(self.state))
        for pid in sorted({*marked, *processes.descendants(*marked)}):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
            found.setdefault(name, []).append(pid)
        return found

    def is_gone(self, lab: str, also: list[int] | None = None) -> bool:
        """No process of it is left, nor any of ``also``, and its name is free."""
        living = processes.parents()
        return not self.family(lab) and not any(pid in living for pid in also or ())

    def labs(self) -> list[str]:
        """The labs that have state."""
        before = os.environ.get("TIDEGATE_STATE")
        os.environ["TIDEGATE_STATE"] = str(self.state)
        try:
            return known_labs()
        finally:
            os.environ.pop("TIDEGATE_STATE")
            if before is not None:
                os.environ["TIDEGATE_STATE"] = before

    def leave(self) -> None:
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if self.labs():
            self.run("lab", "down", "--all").expect(0)
