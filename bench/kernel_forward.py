"""What the lab's node kernel costs: new connections and requests through a ClusterIP, beside direct ones.

One run measures both, so the ratio holds on any machine.
The kernel and the pod are processes of their own; the CPU figure is the kernel process's, both sides included.
The targets keep the demo's 400/s of each at about a tenth of a core.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from bench.figures import Figure, below
from bench.ground import cpu_seconds
from tidegate import vtime
from tidegate.lab.kernel import client as kernel_client
from tidegate.lab.kernel.process import main as kernel_main
from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.vtime.dial import dial as vtime_dial

NODE, POD, CLUSTER_IP = "127.216.0.11", ("127.217.1.1", 18080), ("127.218.0.5", 18080)
COUNT = 4_000
CONNECTION_CPU_MS_MAX, REQUEST_CPU_MS_MAX = 0.25, 0.05
REQUEST, ANSWER = b"x" * 120, b"y" * 200


class Pod(asyncio.Protocol):
    """Answers every request; a client's end is its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)  # type: ignore[attr-defined]


def serve_pod() -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Pod, *POD, backlog=4096)
        await server.serve_forever()

    uvloop.run(run())


def serve_kernel(directory: str) -> None:
    env = {"TIDEGATE_KERNEL_DIR": directory, "TIDEGATE_KERNEL_JOURNAL": f"{directory}/kernel.jsonl"}
    uvloop.run(kernel_main(vtime.Program(env=env)))


class Asker(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(None)

    async def ask(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(REQUEST)  # type: ignore[attr-defined]
        await self.answer


async def dial(target: tuple[str, int]) -> Asker:
    _, asker = await vtime_dial(Asker, target, NODE)
    assert isinstance(asker, Asker)
    return asker


async def new_connections(target: tuple[str, int], count: int) -> list[float]:
    """Seconds of each: connect, one request, close."""
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        asker = await dial(target)
        await asker.ask()
        taken.append(time.perf_counter() - begun)
        asker.transport.close()
    return taken


async def requests(target: tuple[str, int], count: int) -> list[float]:
    """Seconds of each request on one kept connection."""
    asker = await dial(target)
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        await asker.ask()
        taken.append(time.perf_counter() - begun)
    asker.transport.close()
    return taken


async def measure(directory: str, kernel_pid: int, count: int) -> list[Figure]:
    kernel = kernel_client.KernelClient(kernel_client.control_path(Path(directory)))
    await kernel.ready()
    await kernel.register("node-1", NODE)
    entry = ServiceEntry("default", "web", "http", "TCP", *CLUSTER_IP, 0, (f"{POD[0]}:{POD[1]}",))
    await kernel.commit("node-1", [entry])
    figures = []
    for name, ask, most in (
        ("new connection", new_connections, CONNECTION_CPU_MS_MAX),
        ("request on a kept connection", requests, REQUEST_CPU_MS_MAX),
    ):
        await ask(CLUSTER_IP, 200)
        direct = statistics.median(await ask(POD, count)) * 1e3
        before = cpu_seconds(kernel_pid)
        through = statistics.median(await ask(CLUSTER_IP, count)) * 1e3
        spent = (cpu_seconds(kernel_pid) - before) / count * 1e3
        note = f"{through / direct:.1f} times the direct one ({direct:.3f} ms), {count} times"
        figures += [
            below(f"{name}: CPU of the kernel process", spent, "ms", most),
            Figure(f"{name}: latency p50", through, "ms", note=note),
        ]
    return figures


def run() -> list[Figure]:
    spawn = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as directory:
        pod = spawn.Process(target=serve_pod, daemon=True)
        kernel = spawn.Process(target=serve_kernel, args=(directory,), daemon=True)
        pod.start()
        kernel.start()
        try:
            return uvloop.run(measure(directory, kernel.pid or 0, COUNT))
        finally:
            kernel.terminate()
            pod.terminate()
            kernel.join()
            pod.join()
