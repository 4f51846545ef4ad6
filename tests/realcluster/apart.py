"""Run a command on a machine of its own: network, mounts, processes and cgroups that end with it, however it ends.

``python apart.py COMMAND...`` (root, standard library only). Three processes: this one makes the cgroups and takes them
away again; ``unshare`` is killed with it; inside, we are process 1, whose death is the death of all the others, and
with them go the mounts and the network. Ends early when its standard input does: so its caller may be killed too.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ADDRESS = "192.0.2.1"
"""The node's address: TEST-NET-1 (RFC 5737) on a veth pair that leads nowhere, so nothing can leave."""
CGROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
PREFIX = "tidegate-apart-"
"""And the launcher's process id."""
FRESH = ("/run", "/var/lib", "/var/log", "/etc/cni")
"""Folders that containerd and the kubelet write to by name (shim sockets: /run/containerd/s)."""
TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet sets on the whole machine (pkg/kubelet/cm/container_manager_linux.go setupKernelTunables): it finds
files that say so already, and leaves the machine's own alone."""
NETWORK = f"""
link set lo up
link add node0 type veth peer name node1
link set node0 up
link set node1 up
address add {ADDRESS}/24 dev node0
route add default dev node0
"""


def missing() -> str:
    """Why no such machine can be made here, or ""."""
    if os.geteuid():
        return "only root makes machines of its own"
    absent = [name for name in HIERARCHIES if not (CGROUPS / name).is_dir()]
    return f"no cgroup v1 hierarchy {', '.join(absent)} (cgroup v2 alone is not tried yet)" if absent else ""


def _homes(name: str) -> list[Path]:
    """Our cgroup of every hierarchy, below the one we are in."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    ours = {part: path for _, parts, path in lines for part in parts.split(",")}
    return [CGROUPS / one / ours[one].lstrip("/") / name for one in HIERARCHIES]


def _make(homes: list[Path]) -> None:
    for home in homes:
        home.mkdir()
        if home.parts[4] == "cpuset":
            for file in ("cpuset.cpus", "cpuset.mems"):
                (home / file).write_text((home.parent / file).read_text())
            (home / "cgroup.clone_children").write_text("1")


def _join(homes: list[Path]) -> None:
    for home in homes:
        (home / "cgroup.procs").write_text("0")


def _remove(homes: list[Path]) -> None:
    """The innermost first; the last process's exit may take a moment to be seen."""
    deadline = time.monotonic() + 10
    for home in homes:
        while home.exists() and time.monotonic() < deadline:
            for path, _, _ in os.walk(home, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            time.sleep(0.02 if home.exists() else 0)  # realtime: the kernel's own cleaning up


def sweep() -> None:
    """Take away what launchers left that were killed themselves: empty cgroups and a folder each."""
    folders = Path(tempfile.gettempdir())
    for parent in {home.parent: None for home in _homes("any")} | {folders: None}:
        for found in parent.glob(f"{PREFIX}*"):
            if Path("/proc", found.name.removeprefix(PREFIX).partition("-")[0]).exists():
                continue
            if parent == folders:
                shutil.rmtree(found, ignore_errors=True)
            else:
                _remove([found])


def outside(command: list[str]) -> int:
    """Make the machine, wait for the command's end or our caller's, take all of it away."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        homes = _homes(Path(folder).name)
        try:
            _make(homes)
            apart = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--cgroup", "--fork"]
            apart += ["--kill-child=KILL", "--mount-proc", sys.executable, __file__, "--inside", folder, *command]
            child = subprocess.Popen(apart, stdin=subprocess.DEVNULL, preexec_fn=lambda: _join(homes))
            try:
                end = os.pidfd_open(child.pid)
                select.select([end, sys.stdin], [], [])
                os.close(end)
            finally:
                if child.poll() is None:
                    child.kill()
                code = child.wait()
        finally:
            _remove(homes)
    return code


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def inside(folder: Path, command: list[str]) -> int:
    """Process 1: furnish the machine, run the command, bury the orphans."""
    for name in FRESH:
        if Path(name).is_dir():
            _mount("-t", "tmpfs", "tmpfs", name)
    subprocess.run(["umount", "--recursive", "--lazy", str(CGROUPS)], check=True)  # else their roots are outside ours
    _mount("-t", "tmpfs", "tmpfs", str(CGROUPS))
    for name in HIERARCHIES:
        (CGROUPS / name).mkdir()
        _mount("-t", "cgroup", "-o", name, "cgroup", str(CGROUPS / name))
    for number, (name, value) in enumerate(TUNABLES.items()):
        (folder / f"tunable-{number}").write_text(value + "\n")
        _mount("--bind", str(folder / f"tunable-{number}"), f"/proc/sys/{name}")
    subprocess.run(["ip", "-batch", "-"], input=NETWORK, text=True, check=True)
    child = subprocess.Popen(command).pid
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        sys.exit(inside(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(outside(sys.argv[1:]))
