"""Lab boot: `tidegate lab up` process start -> a probe-less pod Ready in the API; memory when idle.

Ten boots of a three-node lab with agents, coordinator and fence. The clock starts with the process of the command
and stops when a client that watches sees the Ready condition; creating the pod and connecting are inside.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass

from bench.figures import Figure, below, percentile
from bench.ground import ROOT, BenchLab, lab, pss_mib, rss_mib
from tidegate import vtime
from tidegate.kube.api import PODS, JsonObject, Selection
from tidegate.kube.connect import open_api
from tidegate.lab import boot
from tidegate.lab.folder import LabFolder
from tidegate.lab.runtime import processes

BOOTS = 10
UP_SECONDS_MAX, RSS_MIB_MAX = 1.5, 120.0
IDLE_SECONDS = 5.0

POD: JsonObject = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "first"},
    "spec": {"containers": [{"name": "echo", "image": "tidegate/echo:1"}]},
}


@dataclass(frozen=True, slots=True)
class Boot:
    """Seconds from the command's start until it had returned, and until the pod was Ready."""

    up_seconds: float
    ready_seconds: float


def is_ready(pod: JsonObject) -> bool:
    """Does the pod carry the Ready condition?"""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def first_pod_ready(server: str) -> None:
    """Create a pod without probes and watch it until it is Ready."""
    async with open_api(server) as api:
        made = await api.create(PODS, POD, "default")
        select = Selection(namespace="default", fields="metadata.name=first")
        async for event in api.watch(PODS, select, made["metadata"]["resourceVersion"]):
            if is_ready(event.object):
                return


def boot_once(name: str, runner: asyncio.Runner) -> Boot:
    command = [sys.executable, "-m", "tidegate", "lab", "up", "--detach", "--lab", name]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=ROOT)
    up = time.perf_counter() - begun
    record = LabFolder(name).record()
    assert record is not None
    runner.run(asyncio.wait_for(first_pod_ready(record.server), 30))
    ready = time.perf_counter() - begun
    boot.stop(name)
    return Boot(up, ready)


def memory(one: BenchLab) -> list[Figure]:
    """RSS of the processes of an idle lab."""
    names = {one.record.pid: "reaper"}
    for child in processes.children(one.record.pid):
        names[child] = "API server, controllers, kubelets, proxies" if child == one.process else "node kernels"
    found = [
        below(f"idle RSS, {name}", rss_mib(pid), "MiB", RSS_MIB_MAX)
        if pid == one.process
        else Figure(f"idle RSS, {name}", rss_mib(pid), "MiB")
        for pid, name in names.items()
    ]
    below_reaper = [one.record.pid, *processes.descendants(one.record.pid)]
    total = sum(pss_mib(pid) for pid in below_reaper)
    return [*found, Figure("idle PSS, whole lab", total, "MiB", note=f"{len(below_reaper)} processes")]


def run() -> list[Figure]:
    with asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
        boots = [boot_once(f"bench-up-{index}", runner) for index in range(BOOTS)]
    ready = [one.ready_seconds for one in boots]
    figures = [
        below("process start -> pod Ready, p50", percentile(ready, 0.5), "s", UP_SECONDS_MAX, f"of {BOOTS}"),
        Figure("process start -> pod Ready, max", max(ready), "s"),
        Figure("process start -> `lab up` has returned, p50", percentile([one.up_seconds for one in boots], 0.5), "s"),
    ]
    with lab("bench-idle") as one:
        time.sleep(IDLE_SECONDS)
        return figures + memory(one)
