"""Operator: ten thousand Releases at rest, then a thousand changes, on one core beside an API server of its own.

The operator is the process that users run, over HTTP; the API server, with a Deployment controller of a few lines, has
the other core.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.figures import Figure, below
from bench.ground import ROOT, bound, cpu_seconds, rss_mib

RELEASES, SPACES = 10_000, 100
BURST, STEP = 1_000, 7
IDLE_SECONDS = 60.0
SYNC_SECONDS = 60.0
RSS_MIB_MAX, IDLE_PERCENT_MAX, BURST_SECONDS_MAX = 1024.0, 5.0, 30.0
HEALTH_PORT = 18481


def run() -> list[Figure]:
    """Memory and processor time at rest, then the burst."""
    with _world() as world, _operator(_ask(world)) as operator:
        synced = _synced(operator)
        time.sleep(5)
        before, began = cpu_seconds(operator.pid), time.monotonic()
        time.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(operator.pid) - before) / (time.monotonic() - began) * 100
        rss = rss_mib(operator.pid)
        used, servers, began = cpu_seconds(operator.pid), cpu_seconds(world.pid), time.monotonic()
        _ask(world, f"change {BURST} {STEP}")
        asked = time.monotonic() - began
        while left := int(_ask(world, f"left {BURST} {STEP}")):
            if time.monotonic() - began > 10 * BURST_SECONDS_MAX:
                break
            time.sleep(0.5)
        seconds = time.monotonic() - began
        used, servers = cpu_seconds(operator.pid) - used, cpu_seconds(world.pid) - servers
        peak = rss_mib(operator.pid)
    note = f"{used:.1f} s CPU, the API server's {servers:.1f} s, asked for within {asked:.1f} s" + (
        f"; {left} are NOT done" if left else ""
    )
    return [
        Figure(f"{RELEASES:,} Releases listed", synced, "s"),
        below(f"{RELEASES:,} Releases at rest: RSS", rss, "MiB", RSS_MIB_MAX),
        below(f"{RELEASES:,} Releases at rest: of a core", idle, "%", IDLE_PERCENT_MAX, f"over {IDLE_SECONDS:.0f} s"),
        below(f"{BURST:,} changes rolled out", seconds if not left else float("inf"), "s", BURST_SECONDS_MAX, note),
        below("RSS after the burst", peak, "MiB", RSS_MIB_MAX),
    ]


def _ask(world: subprocess.Popen[str], line: str = "") -> str:
    assert world.stdin is not None and world.stdout is not None
    if line:
        world.stdin.write(line + "\n")
        world.stdin.flush()
    return world.stdout.readline().strip()


@contextlib.contextmanager
def _world() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.operator_world", str(RELEASES), str(SPACES)]
    with _running(command, {}, 0) as one:
        yield one


@contextlib.contextmanager
def _operator(port: str) -> Iterator[subprocess.Popen[str]]:
    env = {
        "TIDEGATE_SERVER": f"http://127.0.0.1:{port}",
        "TIDEGATE_POD": "bench",
        "TIDEGATE_HOST": "127.0.0.1",
        "TIDEGATE_HEALTH_PORT": str(HEALTH_PORT),
        "TIDEGATE_METRICS_PORT": str(HEALTH_PORT),
    }
    with _running([sys.executable, "-m", "tidegate", "operator"], env, 1) as one:
        yield one


@contextlib.contextmanager
def _running(command: list[str], env: dict[str, str], core: int) -> Iterator[subprocess.Popen[str]]:
    """A process on one core of its own, ended on leaving."""
    cores = sorted(os.sched_getaffinity(0))
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=bound(),
    )  # fmt: skip
    os.sched_setaffinity(process.pid, {cores[core % len(cores)]})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _synced(operator: subprocess.Popen[str]) -> float:
    """Seconds until /readyz says yes."""
    import urllib.error
    import urllib.request

    began = time.monotonic()
    while time.monotonic() - began < SYNC_SECONDS:
        with contextlib.suppress(urllib.error.URLError, OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH_PORT}/readyz", timeout=2):
                return time.monotonic() - began
        if operator.poll() is not None:
            raise RuntimeError("the operator ended")
        time.sleep(0.05)
    raise TimeoutError("the operator did not become ready")
