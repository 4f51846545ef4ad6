"""Whatever process of a lab is killed, however: afterwards, and after ``lab down``, nothing of the lab is left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tidegate.kube.api import PODS
from tidegate.kube.connect import open_api
from tidegate.lab import boot
from tidegate.lab.runtime import processes
from tidegate.lab.settings import LabSettings

pytestmark = pytest.mark.realtime

DAEMON = (
    "import os; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
    'os.execve("/bin/sleep", ["sleep", "987"], {})'
)
"""A double-forked daemon that has cleared its environment: no mark, no parent, no session to find it by."""


def names(pids: list[int]) -> dict[int, str]:
    found = {}
    for pid in pids:
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
    return found


async def pod_with_daemons(server: str) -> None:
    script = f"{sys.executable} -c '{DAEMON}'; sleep 985 & exec sleep 986"
    spec = {"nodeName": "node-1", "containers": [{"name": "app", "image": "x", "command": ["sh", "-c", script]}]}
    async with open_api(server) as api:
        pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
        await api.create(PODS, pod, "default")


async def settled(reaper: int) -> dict[int, str]:
    """Everything of the lab, once the pod has all it starts."""
    async with asyncio.timeout(10):
        while True:
            found = names(processes.descendants(reaper))
            if all(any(name == f"sleep {number}" for name in found.values()) for number in (985, 986, 987)):
                return found
            await asyncio.sleep(0.02)


def victim(role: str, reaper: int, below: dict[int, str]) -> int:
    if role == "reaper":
        return reaper
    if role == "container":
        return next(pid for pid, name in below.items() if name == "sleep 986")
    zygote = next(pid for pid, name in below.items() if "runtime.zygote" in name)
    lab = processes.parents()[zygote]
    kernel = next(pid for pid in processes.children(reaper) if pid != lab)
    return {"zygote": zygote, "lab": lab, "kernel": kernel}[role]


@pytest.mark.parametrize("role", ["reaper", "lab", "kernel", "zygote", "container"])
def test_nothing_of_a_lab_outlives_a_killed_part_and_lab_down(role, tmp_path, monkeypatch):
    monkeypatch.setenv("TIDEGATE_STATE", str(tmp_path))
    name = f"orphans-{os.getpid()}-{role}"
    lab = boot.start(LabSettings(name=name, nodes=1, block=0), detach=True)
    try:
        reaper = lab.record.pid
        asyncio.run(pod_with_daemons(lab.record.server))
        below = asyncio.run(settled(reaper))
        os.kill(victim(role, reaper, below), signal.SIGKILL)
        lab.process.poll()
    finally:
        boot.stop(name)
        lab.process.wait(5)
    assert processes.marked(name) == []
    left = {pid: name for pid, name in names(sorted(below)).items() if name == below[pid]}
    assert left == {}
