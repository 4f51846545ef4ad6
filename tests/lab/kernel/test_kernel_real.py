"""The kernel on real sockets: what virtual ones cannot show, resets above all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tidegate.lab.journal import Journal
from tidegate.lab.kernel import client as kernel_client
from tidegate.lab.kernel.client import KernelClient
from tidegate.lab.kernel.control import Control
from tidegate.lab.kernel.splice import reset
from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.vtime.dial import dial

pytestmark = pytest.mark.realtime

NODE = "127.216.0.11"
PORT = 20_000 + os.getpid() % 20_000
POD, CLUSTER_IP = ("127.217.1.1", PORT), ("127.218.0.5", PORT)


def story(directory: Path, tell: Callable[[KernelClient], Awaitable[None]], runner: Callable[..., None]) -> None:
    async def run() -> None:
        control = Control(directory, 0, Journal())
        await control.serve()
        kernel = KernelClient(kernel_client.control_path(directory))
        await kernel.register("node-1", NODE)
        entry = ServiceEntry("default", "web", "http", "TCP", *CLUSTER_IP, 0, (f"{POD[0]}:{POD[1]}",))
        await kernel.commit("node-1", [entry])
        try:
            async with asyncio.timeout(5):
                await tell(kernel)
        finally:
            control.close()

    runner(run())


@pytest.fixture(params=[uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def runner(request):
    return request.param


async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*CLUSTER_IP, local_addr=(NODE, 0))


def test_a_refused_endpoint_is_a_reset_and_an_unknown_address_a_refusal(tmp_path, runner):
    async def tell(kernel: KernelClient) -> None:
        reader, writer = await connect()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await kernel.commit("node-1", [])
        with pytest.raises(ConnectionRefusedError):
            await connect()

    story(tmp_path, tell, runner)


def test_an_endpoint_that_resets_resets_the_client(tmp_path, runner):
    async def tell(kernel: KernelClient) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            reset(writer.transport)

        async with await asyncio.start_server(serve, *POD):
            reader, writer = await connect()
            writer.write(b"die\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()

    story(tmp_path, tell, runner)


def test_a_client_that_resets_resets_the_endpoint(tmp_path, runner):
    async def tell(kernel: KernelClient) -> None:
        seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"y" * 1_000)
            try:
                await reader.read()
                seen.set_result("end")
            except ConnectionResetError:
                seen.set_result("reset")

        async with await asyncio.start_server(serve, *POD):
            _, writer = await connect()
            writer.transport.pause_reading()
            await asyncio.sleep(0.05)
            writer.transport.abort()  # unread bytes: the machine sends RST
            assert await seen == "reset"

    story(tmp_path, tell, runner)


def test_megabytes_pass_both_ways_through_a_slow_reader_and_a_half_close(tmp_path, runner):
    size = 8 * 1024 * 1024

    async def tell(kernel: KernelClient) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            body = await reader.read(-1)
            writer.write(body[::-1])
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, *POD):
            reader, writer = await connect()
            body = bytes(range(256)) * (size // 256)
            writer.write(body)
            writer.write_eof()
            await asyncio.sleep(0.05)  # the answer fills every buffer on its way
            assert await reader.read(-1) == body[::-1]
        await asyncio.sleep(0.02)
        assert '"conntrack":[]' in await kernel.dump("node-1")

    story(tmp_path, tell, runner)


def test_dialling_tells_refused_unroutable_and_connected_apart(runner):
    async def tell() -> None:
        with pytest.raises(ConnectionRefusedError):
            await dial(asyncio.Protocol, POD, NODE)
        with pytest.raises(OSError, match=r"Invalid argument|unreachable"):
            await dial(asyncio.Protocol, ("198.18.0.1", 80), NODE)
        async with await asyncio.get_running_loop().create_server(asyncio.Protocol, *POD):
            transport, _ = await dial(asyncio.Protocol, POD, NODE)
            assert transport.get_extra_info("sockname")[0] == NODE
            transport.close()

    runner(tell())
