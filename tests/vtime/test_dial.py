"""Dialling on an ordinary loop: who gives up half-way leaves no connection, and no protocol that waits for its end."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

from tidegate import vtime
from tidegate.vtime.dial import dial

pytestmark = pytest.mark.realtime
TURNS = 10
"""Of the loop, at most, until a connection on loopback is made."""


class Seen(asyncio.Protocol):
    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._seen.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.append("lost")


@pytest.mark.parametrize("loop_factory", [vtime.new_event_loop, asyncio.new_event_loop])
def test_a_connection_that_is_made_is_lost_wherever_its_dialling_is_cancelled(loop_factory):
    async def cancelled_after(turns: int, port: int) -> list[str]:
        seen: list[str] = []
        dialling = asyncio.create_task(dial(lambda: Seen(seen), ("127.0.0.1", port), "127.0.0.1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        dialling.cancel()
        try:
            transport, _ = await dialling
        except asyncio.CancelledError:
            async with asyncio.timeout(5):
                while seen == ["made"]:
                    await asyncio.sleep(0.001)
        else:
            transport.abort()
            return ["too late"]
        return seen

    async def story() -> list[list[str]]:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = [await cancelled_after(turns, port) for turns in range(TURNS)]
        server.close()
        return found

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        found = runner.run(story())
    assert all(seen in ([], ["made", "lost"], ["too late"]) for seen in found), found
    assert (found[0], found[-1]) == ([], ["too late"])


@pytest.mark.parametrize("loop_factory", [vtime.new_event_loop, asyncio.new_event_loop])
def test_a_connection_that_ends_as_it_is_made_closes_its_own_descriptor_and_no_other(loop_factory):
    """uvloop 0.23 closed it twice: the second time it was another connection's, and libuv aborted the process."""

    class Ended(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.abort()

    async def story() -> list[int]:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for _ in range(20):
            made = await dial(Ended, ("127.0.0.1", port), "127.0.0.1")
            others = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
            del made
            await asyncio.sleep(0.001)
            gc.collect()
            for descriptor in others:
                os.fstat(descriptor)
                os.close(descriptor)
        server.close()
        return others

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(story())
