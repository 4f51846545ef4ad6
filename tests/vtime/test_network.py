"""The virtual network answers as a kernel does."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tidegate import vtime

POD = ("127.17.1.2", 8080)


async def _echo(program: vtime.Program) -> int:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"got " + line)
        writer.close()

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await asyncio.start_server(serve, *POD)
    await stop.wait()
    return 7


async def _start() -> vtime.Process:
    process = vtime.Process(_echo, vtime.Program(), "echo")
    await asyncio.sleep(0.001)
    return process


def test_a_port_nobody_listens_on_refuses():
    async def story():
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*POD)

    vtime.run(story())


def test_bytes_keep_their_order_and_the_source_address_is_the_one_bound():
    async def story():
        await _start()
        reader, writer = await asyncio.open_connection(*POD, local_addr=("127.16.0.11", 0))
        for number in range(100):
            writer.write(f"{number}\n".encode())
        lines = [await reader.readline() for _ in range(100)]
        assert lines == [f"got {number}\n".encode() for number in range(100)]
        assert "0B00107F" in vtime.read_text("/proc/net/tcp")

    vtime.run(story())


def test_an_exit_closes_what_the_process_held_and_later_data_is_reset():
    async def story():
        process = await _start()
        reader, writer = await asyncio.open_connection(*POD)
        process.signal(signal.SIGTERM)
        assert await process.wait() == 7
        assert await reader.read() == b""
        writer.write(b"too late\n")
        await asyncio.sleep(0.01)
        writer.write(b"again\n")
        with pytest.raises(ConnectionError):
            await writer.drain()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*POD)

    vtime.run(story())


def test_sigkill_ends_a_process_whatever_it_handles():
    async def story():
        process = await _start()
        process.signal(signal.SIGKILL)
        assert await process.wait() == 137

    vtime.run(story())


def test_a_blackholed_address_neither_refuses_nor_answers():
    async def story():
        asyncio.get_running_loop().network.blackholes.add(POD[0])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.open_connection(*POD)
        return asyncio.get_running_loop().time()

    assert vtime.run(story()) == pytest.approx(5)


def test_the_same_seed_gives_the_same_instants_and_another_seed_others():
    async def story():
        await _start()
        reader, writer = await asyncio.open_connection(*POD)
        for _ in range(20):
            writer.write(b"x\n")
            await reader.readline()
        return asyncio.get_running_loop().now_ns

    assert vtime.run(story(), seed=3) == vtime.run(story(), seed=3)
    assert vtime.run(story(), seed=3) != vtime.run(story(), seed=4)


def test_what_can_never_happen_is_a_deadlock():
    async def story():
        await asyncio.Event().wait()

    with pytest.raises(vtime.Deadlock):
        vtime.run(story())
