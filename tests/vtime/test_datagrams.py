"""UDP of the virtual loop: whole datagrams, late, refused where nobody listens, gone with their process."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime


class Ear(asyncio.DatagramProtocol):
    """Keeps what it hears; answers each datagram with itself, twice."""

    def __init__(self, answers=False):
        self.heard, self.errors, self.answers = [], [], answers

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.heard.append((data, addr))
        if self.answers:
            self.transport.sendto(data * 2, addr)

    def error_received(self, exc):
        self.errors.append(exc)


async def connected(to):
    return (await asyncio.get_running_loop().create_datagram_endpoint(Ear, remote_addr=to))[1]


async def listening(at=("127.16.1.1", 53)):
    loop = asyncio.get_running_loop()
    return (await loop.create_datagram_endpoint(lambda: Ear(True), local_addr=at))[1]


def test_a_datagram_arrives_whole_and_its_answer_comes_back():
    async def story():
        await listening()
        ear = await connected(("127.16.1.1", 53))
        ear.transport.sendto(b"abc")
        assert ear.heard == []
        await asyncio.sleep(0.001)
        return ear.heard

    assert vtime.run(story()) == [(b"abcabc", ("127.16.1.1", 53))]


def test_a_port_where_nobody_listens_refuses_and_a_blackhole_says_nothing():
    async def story():
        asyncio.get_running_loop().network.blackholes.add("127.16.1.9")
        refused, silent = await connected(("127.16.1.1", 53)), await connected(("127.16.1.9", 53))
        refused.transport.sendto(b"x")
        silent.transport.sendto(b"x")
        await asyncio.sleep(1)
        return [type(one) for one in refused.errors], silent.errors

    assert vtime.run(story()) == ([ConnectionRefusedError], [])


def test_a_socket_is_gone_with_its_process_and_its_address_is_free_again():
    async def story():
        async def server(program):
            await listening()
            await asyncio.get_running_loop().create_future()

        process = vtime.Process(server, vtime.Program(), "dns")
        await asyncio.sleep(0.001)
        with pytest.raises(OSError):
            await listening()
        process.end(0)
        await asyncio.sleep(0.001)
        await listening()

    vtime.run(story())
