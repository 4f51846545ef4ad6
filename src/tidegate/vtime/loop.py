"""The virtual world on one loop: virtual time, an in-memory network, modelled processes and their signals."""

from __future__ import annotations

import asyncio
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tidegate.vtime import process as processes
from tidegate.vtime.datagrams import DatagramNetwork
from tidegate.vtime.network import Network
from tidegate.vtime.timers import TimerLoop

T = TypeVar("T")


class VirtualLoop(TimerLoop):
    """A ``TimerLoop`` with sockets and signals. ``seed`` decides latencies and, with ``shuffle``, tie-breaks."""

    def __init__(self, seed: int = 0, *, shuffle: bool = False, limit_seconds: float | None = None) -> None:
        super().__init__(seed, shuffle=shuffle, limit_seconds=limit_seconds)
        self.network = Network(self, random.Random(f"{seed}/network"))
        self.datagrams = DatagramNetwork(self, random.Random(f"{seed}/datagrams"), self.network.blackholes)
        self.hosted: dict[str, Any] = {}
        self.set_task_factory(_adopting_task)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self.network.connect(protocol_factory, (str(host), int(port)), options.get("local_addr"))

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        address = (str(host or "0.0.0.0"), int(port or 0))
        return self.network.listen(protocol_factory, address, is_shared=bool(options.get("reuse_port")))

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        del options
        return self.datagrams.open(protocol_factory, local_addr, remote_addr)

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **options: Any) -> Any:
        del options
        return await self.network.connect(protocol_factory, str(path), None)

    async def create_unix_server(self, protocol_factory: Any, path: Any = None, **options: Any) -> Any:
        del options
        return self.network.listen(protocol_factory, str(path))

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        process = processes.current()
        if process is not None:
            process.set_signal_handler(int(sig), callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        process = processes.current()
        return process.remove_signal_handler(int(sig)) if process is not None else False


def _adopting_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    process = processes.current()
    if process is not None:
        process.adopt_task(task)
    return task


def run(coro: Coroutine[Any, Any, T], seed: int = 0, *, shuffle: bool = False, limit_seconds: float | None = None) -> T:
    """Run ``coro`` to its end on a fresh ``VirtualLoop``. Raises ``Deadlock`` when it can never end."""
    loop = VirtualLoop(seed, shuffle=shuffle, limit_seconds=limit_seconds)
    before = events._get_running_loop()
    try:
        events._set_running_loop(None)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(coro)
    finally:
        events._set_running_loop(before)
