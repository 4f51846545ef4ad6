"""Start and end a real lab from a command: one reaper process, told what to run, watched until it is up."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from tidegate import vtime
from tidegate.lab.blocks import Claim, claim
from tidegate.lab.config import KERNEL
from tidegate.lab.folder import LabError, LabFolder, LabRecord
from tidegate.lab.runtime import processes
from tidegate.lab.settings import LabSettings

BOOT_SECONDS = 30.0
"""A lab is up in about a second; one that is not by now never will be."""

_STOP_SECONDS = 8.0
_PORT_MAX = 65_535
_NEEDED = ("wsproto",)
"""What the `lab` extra brings and a lab cannot do without; uvloop only makes it faster."""


class AlreadyUp(LabError):
    """A lab of this name runs."""


class RunningLab:
    """A lab that was started by this process. Closing its lifeline ends it, unless it was detached."""

    def __init__(self, folder: LabFolder, process: subprocess.Popen[bytes], lifeline: int) -> None:
        self.folder = folder
        self.process = process
        self._lifeline = lifeline

    @property
    def record(self) -> LabRecord:
        record = self.folder.record()
        if record is None:
            raise LabError(f'lab "{self.folder.name}" ended{_with_log(self.folder.own_log)}')
        return record

    @property
    def has_ended(self) -> bool:
        """By itself: killed, crashed, or taken down by another command."""
        return self.process.poll() is not None

    def last_words(self) -> str:
        """What its log ends with; "" where nothing is to be read."""
        return _last_line(self.folder.own_log)

    def wait(self) -> int:
        """Until it ends."""
        return self.process.wait()

    def close(self, *, keep_state: bool = False) -> None:
        """End it, and everything of it, and delete its state unless its log is still wanted."""
        self.process.terminate()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        lock = self.folder.lock()
        if lock is None:
            return  # its name is another lab's by now
        with lock:
            _sweep(self.folder)
            if not (keep_state and self.folder.own_log.exists()):
                self.folder.remove()


def start(settings: LabSettings, *, detach: bool = False) -> RunningLab:
    """Boot a lab and return when it is up. Raises ``AlreadyUp`` or ``LabError``; then nothing is left running.

    ``settings.block`` 0 takes the first free block of loopback addresses.
    """
    _check_machine(settings)
    folder = LabFolder(settings.name)
    is_new = not folder.path.exists()
    lock = folder.lock()
    if lock is None:
        raise AlreadyUp(f'lab "{settings.name}" is up already; `tidegate lab down --lab {settings.name}` takes it down')
    ready, ready_there = os.pipe()
    try:
        with lock, contextlib.closing(claim(settings.block, settings.port)) as claimed:
            settings = replace(settings, block=claimed.block)
            _sweep(folder)
            folder.prepare()
            if settings.tls:
                _certify(folder, settings)
            folder.write_kubeconfig(settings.addressing.host_server)
            lab = _launch(folder, settings, ready_there, _Held(lock, claimed, detach))
    except BaseException:
        os.close(ready)
        if is_new:
            folder.remove()
        raise
    finally:
        os.close(ready_there)
    try:
        _wait_until_up(lab, ready)
    except LabError:
        lab.close(keep_state=True)  # the message names its log
        raise
    except BaseException:
        lab.close()
        raise
    finally:
        os.close(ready)
    return lab


def _check_machine(settings: LabSettings) -> None:
    """Raises ``LabError`` where no lab can run, before anything is made."""
    if sys.platform != "linux":
        raise LabError(
            f"a lab needs Linux (loopback addresses, /proc), not {sys.platform}; use a Linux machine, VM or container"
        )
    for module in _NEEDED:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise LabError(f"a lab needs {module}, which is not installed: pip install 'tidegate[lab]'") from error
    if settings.tls:
        if settings.port == _PORT_MAX:
            raise LabError(f"with TLS a lab takes two ports: --port can be {_PORT_MAX - 1} at most")
        try:
            importlib.import_module("cryptography")
        except ModuleNotFoundError as error:
            raise LabError("TLS needs cryptography, which is not installed: pip install 'tidegate[cluster]'") from error
    if settings.network == KERNEL:
        from tidegate.lab.network.machine import missing

        why_not = missing(settings.proxy)
        if why_not:
            raise LabError(why_not)


def _certify(folder: LabFolder, settings: LabSettings) -> None:
    from tidegate.lab import certificates  # late: an extra, and 0.1 s

    try:
        certificates.write(folder.path, settings.addressing, vtime.now())
    except OSError as error:
        raise LabError(
            f"no certificate can be kept in {folder.path}: {(error.strerror or str(error)).lower()}"
        ) from error


class _Held:
    """What the reaper takes over from the command that starts it."""

    def __init__(self, lock: IO[str], claimed: Claim, detach: bool) -> None:
        self.descriptors = (lock.fileno(), *claimed.filenos())
        self.detach = detach


def _launch(folder: LabFolder, settings: LabSettings, ready: int, held: _Held) -> RunningLab:
    lifeline_there, lifeline = (-1, -1) if held.detach else os.pipe()
    order = {
        "settings": asdict(settings),
        "ready_fd": ready,
        "lifeline_fd": lifeline_there,
        "held_fds": held.descriptors,
    }
    command = [sys.executable, "-m", "tidegate.lab.runtime.reaper", json.dumps(order)]
    try:
        with folder.own_log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **folder.marks, "TIDEGATE_STATE": str(folder.root)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[fd for fd in (ready, lifeline_there, *held.descriptors) if fd >= 0],
                cwd="/",
                start_new_session=True,
            )
    finally:
        if lifeline_there >= 0:
            os.close(lifeline_there)
    return RunningLab(folder, process, lifeline)


def _wait_until_up(lab: RunningLab, ready: int) -> None:
    log = lab.folder.own_log
    poll = select.poll()  # select() takes no descriptor beyond 1,023, and whoever boots a lab may hold that many
    poll.register(ready, select.POLLIN)
    if not poll.poll(BOOT_SECONDS * 1000):
        raise LabError(f"the lab was not up after {BOOT_SECONDS:.0f} s{_with_log(log)}")
    line = os.read(ready, 65_536)
    if not line:
        raise LabError(f"the lab ended while it booted{_with_log(log)}")
    message = json.loads(line)
    if "error" in message:
        raise LabError(message["error"])


def _last_line(log: Path) -> str:
    """The last error in a lab's log, else which of its processes ended; "" where it was killed in silence."""
    try:
        lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    errors = [line.strip() for line in lines if "Error" in line]
    ends = [line for line in lines if " process ended with " in line]
    return (errors or ends or [""])[-1]


def _with_log(log: Path) -> str:
    """Why a lab ended and where to read more, as the end of a sentence."""
    last = _last_line(log)
    return f": {last} (its log is {log})" if last else f"; its log is {log}"


def stop(name: str) -> bool:
    """End a lab of this name and delete its state. Returns whether anything of it was there."""
    folder = LabFolder(name)
    if not folder.path.exists():  # deleted by hand, perhaps, while the lab goes on
        swept = _sweep(folder)
        folder.remove()
        return bool(swept)
    record = folder.running()
    if record is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
        _wait_gone(record.pid)
    lock = folder.lock()
    if lock is None and record is not None:
        return True  # ours has ended; who holds the name now is a new lab, and not meant
    if lock is None:
        _sweep(folder)  # it has no record, or one cut short: its processes are all we have of it
        lock = _lock_soon(folder)
    with lock or contextlib.nullcontext():
        _sweep(folder)
        folder.remove()
    return True


def _lock_soon(folder: LabFolder) -> IO[str] | None:
    """The name of a lab that was just killed: its last process may take a moment to end."""
    for _ in range(100):
        lock = folder.lock()
        if lock is not None:
            return lock
        time.sleep(0.01)
    return None


def _sweep(folder: LabFolder) -> list[int]:
    return processes.sweep(folder.name, state=str(folder.root))


def _wait_gone(pid: int) -> None:
    """Until ``pid`` has ended; killed when that takes too long. Its death takes everything below it along."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        readable, _, _ = select.select([handle], [], [], _STOP_SECONDS)
        if not readable:
            processes.kill([pid])
            select.select([handle], [], [], _STOP_SECONDS)
    finally:
        os.close(handle)
