"""Start and end a real lab from a command: one reaper process, told what to run, watched until it is up."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

from tidegate.lab.config import Addressing
from tidegate.lab.folder import LabError, LabFolder, LabRecord, known_labs
from tidegate.lab.runtime import processes
from tidegate.lab.settings import LabSettings

BOOT_SECONDS = 30.0
"""A lab is up in about a second; one that is not by now never will be."""

_BLOCKS = range(16, 124, 4)
_STOP_SECONDS = 8.0


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
            raise LabError(f'lab "{self.folder.name}" ended; its log is {self.folder.own_log}')
        return record

    def wait(self) -> int:
        """Until it ends."""
        return self.process.wait()

    def close(self) -> None:
        """End it, and everything of it."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        processes.sweep(self.folder.name)


def start(settings: LabSettings, *, detach: bool = False) -> RunningLab:
    """Boot a lab and return when it is up. Raises ``AlreadyUp`` or ``LabError``; then nothing is left running.

    ``settings.block`` 0 takes the first block of loopback addresses on which the port is free.
    """
    folder = LabFolder(settings.name)
    lock = folder.lock()
    if lock is None:
        raise AlreadyUp(f'lab "{settings.name}" is up already; `tidegate lab down --lab {settings.name}` takes it down')
    with lock:
        processes.sweep(settings.name)
        settings = _with_block(settings)
        folder.prepare()
        folder.write_kubeconfig(Addressing(settings.block, settings.port).server)
        ready, ready_there = os.pipe()
        lifeline_there, lifeline = (-1, -1) if detach else os.pipe()
        passed = [fd for fd in (ready_there, lifeline_there, lock.fileno()) if fd >= 0]
        order = {
            "settings": asdict(settings),
            "ready_fd": ready_there,
            "lifeline_fd": lifeline_there,
            "lock_fd": lock.fileno(),
        }
        command = [sys.executable, "-m", "tidegate.lab.runtime.reaper", json.dumps(order)]
        environment = {**os.environ, processes.MARK: settings.name}
        with folder.own_log.open("ab") as log:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=passed, cwd="/"
            )
        os.close(ready_there)
        if lifeline_there >= 0:
            os.close(lifeline_there)
    lab = RunningLab(folder, process, lifeline)
    try:
        _wait_until_up(lab, ready)
    except BaseException:
        lab.close()
        raise
    finally:
        os.close(ready)
    return lab


def _wait_until_up(lab: RunningLab, ready: int) -> None:
    readable, _, _ = select.select([ready], [], [], BOOT_SECONDS)
    if not readable:
        raise LabError(f"the lab was not up after {BOOT_SECONDS:.0f} s; its log is {lab.folder.own_log}")
    line = os.read(ready, 65_536)
    if not line:
        raise LabError(f"the lab ended while it booted; its log is {lab.folder.own_log}")
    message = json.loads(line)
    if "error" in message:
        raise LabError(message["error"])


def stop(name: str) -> bool:
    """End a lab of this name and delete its state. Returns whether anything of it was there."""
    folder = LabFolder(name)
    record = folder.running()
    found = folder.path.exists()
    if record is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
        _wait_gone(record.pid)
    swept = processes.sweep(name)
    folder.remove()
    return found or bool(swept)


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


def _with_block(settings: LabSettings) -> LabSettings:
    """The settings with a block of addresses whose API port is free. Raises ``LabError``."""
    if settings.block:
        error = _bind_error(Addressing(settings.block, settings.port))
        if error:
            raise LabError(f"{error}; choose another with --port, or another block of addresses with --block")
        return settings
    taken = set(_blocks_in_use())
    for block in _BLOCKS:
        if block not in taken and not _bind_error(Addressing(block, settings.port)):
            return replace(settings, block=block)
    raise LabError(f"port {settings.port} is taken on every block of loopback addresses; choose another with --port")


def _blocks_in_use() -> Iterator[int]:
    for name in known_labs():
        record = LabFolder(name).running()
        if record is not None:
            yield record.block


def _bind_error(addressing: Addressing) -> str:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((addressing.api_host, addressing.api_port))
            probe.listen(1)
        except OSError as error:
            return f"{addressing.api_host}:{addressing.api_port}: {(error.strerror or str(error)).lower()}"
    return ""
