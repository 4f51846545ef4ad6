"""The preloaded parent of the lab's containers: ``python -m tidegate.lab.runtime.zygote FD MODULE...``.

Forking from a process that has imported everything costs a few milliseconds where a fresh interpreter costs
200. It runs no event loop and no thread, so forking is safe. It adopts orphans below it, ends what a dead
container leaves behind, and ends everything when the lab process is gone (its end of the socket closes).

One datagram per message on a SEQPACKET socket, JSON. Asked: ``{"op": "spawn", "id", "argv", "entrypoint", "env",
"cwd", "name", "network"}`` with descriptors (stdout, stderr) or (stdin, stdout, stderr), and where ``network`` is true
one of the network namespace to be born in; ``{"op": "signal", "id", "number"}``.
Told: ``{"id", "pid"}``, ``{"id", "error"}``, ``{"id", "exit"}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import termios
from typing import Any, NoReturn

from tidegate import vtime
from tidegate.lab.network.namespaces import enter
from tidegate.lab.runtime import processes

MESSAGE_BYTES_MAX = 128 * 1024
CONTAINER_MARK = "TIDEGATE_CONTAINER"
"""Which attempt a process belongs to, so that daemons it left can be told from other containers' ones."""

try:
    import uvloop

    _new_loop: Any = uvloop.new_event_loop
except ImportError:  # the loop of the standard library does
    _new_loop = None


def run_entrypoint(request: dict[str, Any]) -> int:
    """Be a container of ours: run its entry point to the end, in this process. Returns the exit code."""
    main = vtime.entrypoint(request["entrypoint"])
    program = vtime.Program(tuple(request["argv"]), dict(request["env"]), _write_line)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return int(runner.run(_main(main, program)))


async def _main(main: vtime.Entrypoint, program: vtime.Program) -> int:
    return await main(program)


def _write_line(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, line.encode() + b"\n")


class Zygote:
    """Forks, reaps and reports until its socket closes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._containers: dict[int, str] = {}
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Answer until the lab process is gone; then leave nothing behind."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a Ctrl-C is the lab process's to handle
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            for descriptor, _events in poll.poll():
                if descriptor == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                    self._reap()
                elif not self._receive():
                    processes.end_descendants()
                    return

    def _receive(self) -> bool:
        data, descriptors, _flags, _address = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, 4)
        if not data:
            return False
        request = json.loads(data)
        if request["op"] == "spawn":
            self._spawn(request, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        elif request["op"] == "signal" and request["id"] in self._ids:
            processes.kill([self._ids[request["id"]]], request["number"])
        return True

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(message).encode())

    def _spawn(self, request: dict[str, Any], descriptors: list[int]) -> None:
        if not request.get("entrypoint"):
            program = request["argv"][0]
            path = shutil.which(program, path=request["env"].get("PATH"))
            if path is None:
                found = "no such file or directory" if "/" in program else "executable file not found in $PATH"
                self._tell({"id": request["id"], "error": f'exec: "{program}": {found}'})
                return
            request["path"] = path
        if request.get("cwd") and not os.path.isdir(request["cwd"]):
            self._tell({"id": request["id"], "error": f'chdir "{request["cwd"]}": no such file or directory'})
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_child(request, descriptors, parent)
        self._pids[pid] = request["id"]
        self._ids[request["id"]] = pid
        self._containers[pid] = request["env"].get(CONTAINER_MARK, "")
        self._tell({"id": request["id"], "pid": pid})

    def _be_child(self, request: dict[str, Any], descriptors: list[int], parent: int) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            processes.die_with_parent(parent)
            os.setsid()
            if request.get("network"):
                enter(descriptors.pop())
            _take_streams(descriptors)
            if os.isatty(0):
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            os.closerange(3, 256)  # the control socket, other containers' pipes
            processes.control(processes.PR_SET_NAME, request["name"].encode()[:15])
            if request.get("cwd"):
                os.chdir(request["cwd"])
            if not request.get("entrypoint"):
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, a shell's pipes rely on it
                os.execve(request["path"], request["argv"], request["env"])
            os.environ.clear()
            os.environ.update(request["env"])
            code = run_entrypoint(request)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for pid, code in processes.reap_all():
            number = self._pids.pop(pid, None)
            if number is None:
                continue  # an orphan that we adopted
            self._ids.pop(number, None)
            self._end_leftovers(pid, self._containers.pop(pid))
            self._tell({"id": number, "exit": code})

    def _end_leftovers(self, pid: int, container: str) -> None:
        """What the kernel does when a PID namespace loses its first process: nothing of the container survives."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if not container:
            return
        for _round in range(20):
            children = processes.children(os.getpid())
            strays = [child for child in children if child not in self._pids and _belongs(child, container)]
            if not strays:
                return
            for stray in strays:
                processes.kill([stray, *processes.descendants(stray)])


def _belongs(pid: int, container: str) -> bool:
    return processes.environment(pid).get(CONTAINER_MARK) == container


def _take_streams(descriptors: list[int]) -> None:
    """Make the descriptors received (stdout, stderr) or (stdin, stdout, stderr) ours."""
    if len(descriptors) == 2:
        null = os.open(os.devnull, os.O_RDONLY)
        descriptors = [null, *descriptors]
    high = [os.dup(descriptor) for descriptor in descriptors]
    for target, descriptor in enumerate(high):
        os.dup2(descriptor, target)


def main(arguments: list[str]) -> None:
    """Load the modules named, then serve the socket."""
    control = socket.socket(fileno=int(arguments[0]))
    os.set_inheritable(control.fileno(), False)
    processes.adopt_orphans()
    for module in arguments[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # collected memory stays shared with the children
    with control:
        Zygote(control).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
