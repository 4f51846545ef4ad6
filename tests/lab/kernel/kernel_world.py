"""A kernel process, pods that answer their name, and clients, for the stories of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tidegate import vtime
from tidegate.lab.kernel import client as kernel_client
from tidegate.lab.kernel.client import KernelClient
from tidegate.lab.kernel.process import main
from tidegate.lab.kernel.tables import ServiceEntry

NODE_1, NODE_2 = "127.16.0.11", "127.16.0.12"
WEB = ("127.18.0.5", 80)
POD_1, POD_2 = "127.17.1.1:8080", "127.17.2.1:8080"


def web(*endpoints: str, **changes: object) -> ServiceEntry:
    """The Service default/web of the stories, with these endpoints."""
    fields = {
        "namespace": "default",
        "name": "web",
        "port_name": "http",
        "protocol": "TCP",
        "cluster_ip": WEB[0],
        "port": WEB[1],
        "node_port": 0,
        "endpoints": endpoints,
        "affinity_seconds": 0,
    }
    return ServiceEntry(**{**fields, **changes})


class World:
    """Two registered nodes under one kernel process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client = KernelClient(kernel_client.control_path(directory))
        self.lines: list[str] = []
        env = {
            "TIDEGATE_KERNEL_DIR": str(directory),
            "TIDEGATE_KERNEL_JOURNAL": str(directory / "kernel.jsonl"),
            "TIDEGATE_SEED": "7",
        }
        self.process = vtime.Process(main, vtime.Program(env=env, log=self.lines.append), name="kernel")

    async def ready(self) -> None:
        await self.client.ready()
        await self.client.register("node-1", NODE_1, "127.17.1.")
        await self.client.register("node-2", NODE_2, "127.17.2.")


async def pod(address: str) -> asyncio.AbstractServer:
    """A pod that greets every connection with its own address and the peer's, then echoes lines."""
    host, port = address.split(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        try:
            while line := await reader.readline():
                writer.write(f"{address} {peer} ".encode() + line)
            writer.close()
        except ConnectionError:
            pass

    return await asyncio.start_server(serve, host, int(port))


class Caller:
    """One client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, text: str = "hi") -> list[str]:
        """Send a line; the answer's words: pod, client as the pod saw it, text. Empty at EOF."""
        self.writer.write(f"{text}\n".encode())
        return (await self.reader.readline()).decode().split()


async def dial(source: str = NODE_1, target: tuple[str, int] = WEB) -> Caller:
    return Caller(*await asyncio.open_connection(*target, local_addr=(source, 0)))


def story(directory: Path, tell: Callable[[World], Awaitable[None]], seed: int = 0) -> None:
    """Run a story in virtual time."""

    async def run() -> None:
        world = World(directory)
        await world.ready()
        await tell(world)

    vtime.run(run(), seed=seed, limit_seconds=1_000)
