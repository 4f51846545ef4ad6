"""The parent of a whole lab: ``python -m tidegate.lab.runtime.reaper JSON``.

It forks the kernel process (none for network ``kernel``) and the lab process, and ends everything below it when either
ends, when it is told to (SIGTERM), or when the command that wants the lab is gone (its lifeline closes). It is the
subreaper of all its descendants, so nothing escapes by a double fork. Should the reaper itself be killed, its children
die with it (PDEATHSIG), the zygote dies with the lab process, containers die with the zygote, and ``processes.sweep``
finds by its mark in the environment whatever a container left behind.

A lab in the foreground leaves nothing behind, its state included, even when its command was killed.

It must be exec'ed, not forked: the mark is read from /proc/PID/environ, which shows what exec was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tidegate import vtime
from tidegate.lab.config import KERNEL, LabConfig
from tidegate.lab.folder import LabError, LabFolder, LabRecord
from tidegate.lab.runtime import processes
from tidegate.lab.settings import LabSettings

STOP_SECONDS = 3.0
"""How long the lab process may take to end its containers before everything is killed."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command that wants a lab hands the reaper, as JSON on its command line."""

    settings: LabSettings
    ready_fd: int
    """One line of JSON is written here: ``{}`` when the lab is up, ``{"error"}`` when it cannot be."""
    lifeline_fd: int = -1
    """The lab ends when the other end closes; -1: it lives on by itself (``--detach``)."""
    held_fds: tuple[int, ...] = ()
    """The lab's name and its block of addresses, ours for as long as these are open."""


def _fork(work: Callable[[], int]) -> int:
    """Run ``work`` in a child that dies with us; its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        processes.die_with_parent(parent)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run_kernel(folder: LabFolder, seed: int) -> int:
    from tidegate.lab.kernel.process import main

    processes.control(processes.PR_SET_NAME, b"tidegate-kernel")
    env = {
        "TIDEGATE_KERNEL_DIR": str(folder.sockets),
        "TIDEGATE_KERNEL_JOURNAL": str(folder.journal),
        "TIDEGATE_SEED": str(seed),
    }
    program = vtime.Program((), env, lambda line: print(line, file=sys.stderr, flush=True))
    with asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
        return int(runner.run(_awaited(main, program)))


async def _awaited(main: vtime.Entrypoint, program: vtime.Program) -> int:
    return await main(program)


def _run_lab(config: LabConfig, folder: LabFolder, announce: Callable[[dict[str, Any]], None]) -> int:
    from tidegate.lab.process import enter, serve

    processes.control(processes.PR_SET_NAME, b"tidegate-lab")

    def up() -> None:
        announce({})

    try:
        entered = enter(config, has_tls=folder.authority_file.exists()) if config.addressing.network == KERNEL else None
        with asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
            return int(runner.run(serve(config, folder, up, entered)))
    except (LabError, OSError) as error:
        announce({"error": str(error)})
        return 1
    except BaseException as error:
        announce({"error": f"{type(error).__name__}: {error} (the whole story is in {folder.own_log})"})
        raise


class Reaper:
    """Two children, one end."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._config = order.settings.config()
        self._folder = LabFolder(self._config.name)
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._told_to_stop = False
        self._deserted = False

    def run(self) -> int:
        processes.adopt_orphans()
        processes.raise_file_limit()
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        children = {}
        if self._config.addressing.network != KERNEL:
            kernel = _fork(lambda: self._as_child(lambda: _run_kernel(self._folder, self._config.seed)))
            children[kernel] = "kernel"
        lab = _fork(lambda: self._as_child(lambda: _run_lab(self._config, self._folder, self._announce)))
        self._write_record()
        self._close(self._order.ready_fd)  # ours only: the lab process still has it
        ended = self._wait({**children, lab: "lab"})
        if ended != "lab":
            processes.kill([lab], signal.SIGTERM)
            self._wait_for(lab)
        left = processes.end_descendants()
        self._folder.record_file.unlink(missing_ok=True)
        self._folder.remove_sockets()
        if self._deserted:
            self._folder.remove()
        return 0 if self._told_to_stop and not left else 1

    def _as_child(self, work: Callable[[], int]) -> int:
        """In a forked child: forget what is the reaper's."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in (self._wake_r, self._wake_w, self._order.lifeline_fd, *self._order.held_fds):
            self._close(descriptor)
        return work()

    def _announce(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._order.ready_fd, json.dumps(message).encode() + b"\n")
        self._close(self._order.ready_fd)

    def _stop(self, number: int, frame: object) -> None:
        del number, frame
        self._told_to_stop = True

    def _write_record(self) -> None:
        addressing = self._config.addressing
        self._folder.write_record(
            LabRecord(
                name=self._config.name,
                pid=os.getpid(),
                server=addressing.host_server,
                block=addressing.block,
                nodes=self._config.nodes,
                started_at=vtime.now().isoformat(timespec="seconds"),
                network=addressing.network,
            )
        )

    def _wait(self, children: dict[int, str]) -> str:
        """Until something ends the lab: the name of the child that ended, or "" when we were told to stop."""
        watched = [self._wake_r] + ([self._order.lifeline_fd] if self._order.lifeline_fd >= 0 else [])
        while True:
            for pid, code in processes.reap_all():
                if pid in children:
                    if not self._told_to_stop:
                        print(f"the {children[pid]} process ended with {code}", file=sys.stderr, flush=True)
                    return children[pid]
            if self._told_to_stop:
                return ""
            readable, _, _ = select.select(watched, [], [])
            if self._wake_r in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            elif self._order.lifeline_fd in readable and not os.read(self._order.lifeline_fd, 1):
                self._deserted = not self._told_to_stop
                self._told_to_stop = True

    def _wait_for(self, child: int) -> None:
        for _ in range(round(STOP_SECONDS / 0.01)):
            if any(pid == child for pid, _ in processes.reap_all()):
                return
            select.select([], [], [], 0.01)

    @staticmethod
    def _close(descriptor: int) -> None:
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def main() -> NoReturn:
    """Entry of the reaper's process."""
    order = json.loads(sys.argv[1])
    settings = LabSettings(**order.pop("settings"))
    processes.control(processes.PR_SET_NAME, b"tidegate-reaper")
    sys.exit(Reaper(Order(settings, **order)).run())


if __name__ == "__main__":
    main()
