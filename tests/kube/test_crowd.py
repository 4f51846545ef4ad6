"""Who makes room for whom, and what is said of it."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.crowd import Crowd, Guest, Limits
from tidegate.kube.exchange import Request, whole

FEW = Limits(strangers_max=4, known_max=2, request_seconds=5.0)


def crowded(story):
    lines = []

    async def whole_story():
        crowd = Crowd(FEW, lines.append)
        gone = []

        def enter(source):
            guest = Guest(source, lambda: gone.append(guest))
            crowd.enter(guest)
            return guest

        return await story(crowd, enter, gone)

    return vtime.run(whole_story()), lines


def test_the_oldest_of_the_address_with_most_makes_room():
    async def story(crowd, enter, gone):
        flood = [enter("flood") for _ in range(3)]
        coordinator = enter("coordinator")
        flood += [enter("flood") for _ in range(100)]
        assert gone == flood[: len(gone)] and len(gone) == 100
        assert crowd.has(coordinator) and crowd.strangers == 4
        assert crowd.vouch(coordinator) and crowd.strangers == 3
        assert not crowd.vouch(flood[0]), "nobody vouches for one that has gone"
        await asyncio.sleep(60)

    _, lines = crowded(story)
    assert lines == ["turned away 100 connections (100 to make room), the last from flood"]


def test_those_that_are_known_have_places_of_their_own_and_not_for_ever_many():
    async def story(crowd, enter, gone):
        known = [enter("apiserver") for _ in range(3)]
        assert [crowd.vouch(one) for one in known] == [True, True, False]
        assert gone == known[2:]
        crowd.leave(known[0])
        assert crowd.vouch(enter("apiserver")) and crowd.known == 2
        await asyncio.sleep(2)

    _, lines = crowded(story)
    assert "for want of room among those that are known" in lines[0]


def test_a_flood_is_told_of_every_ten_seconds_and_not_more():
    async def story(crowd, enter, gone):
        for _ in range(300):
            enter("flood")
            await asyncio.sleep(0.1)
        await asyncio.sleep(20)

    _, lines = crowded(story)
    assert len(lines) == 4


def test_strangers_bodies_together_have_a_limit_and_small_ones_always_go_through():
    async def story(crowd, enter, gone):
        large, small = enter("flood"), enter("coordinator")
        assert crowd.buffers(large, FEW.buffered_bytes_max + FEW.free_bytes)
        assert not crowd.buffers(large, 1)
        assert crowd.buffers(small, FEW.free_bytes) and not crowd.buffers(small, 1)
        crowd.leave(large)
        assert crowd.buffers(small, 1)

    crowded(story)


def on_a_port(story, limits=FEW):
    lines = []

    async def app(request):
        if request.path == "/slow":
            await asyncio.sleep(30)
        return whole(200, b"x" * (10_000_000 if request.path == "/large" else 1))

    async def played():
        terms = wire.Terms(limits=limits, log=lines.append)
        async with wire.serving(app, "127.16.0.11", 80, terms) as server:
            return await story(server)

    return vtime.run(played(), limit_seconds=300), lines


async def ended_after(data, seconds=60.0):
    """When the server ends a connection on which only ``data`` comes, and what it said."""
    began = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection("127.16.0.11", 80)
    writer.write(data)
    async with asyncio.timeout(seconds):
        try:
            told = await reader.read()
        except ConnectionError:
            told = b""
    return asyncio.get_running_loop().time() - began, told


def test_who_is_slow_large_or_no_http_is_ended_and_who_asks_is_not():
    async def story(server):
        head = b"GET / HTTP/1.1\r\n"
        for data in (b"", head, head + b"host: x\r\n", b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nx"):
            seconds, told = await ended_after(data)
            assert 4.9 < seconds < 5.1 and told == b"", data
        for data in (head + b"x: " + b"y" * 20_000, b"GET /" + b"y" * 20_000, b"\x16\x03\x01\x02\r\n\r\n"):
            assert (await ended_after(data))[1].startswith(b"HTTP/1.1 400")
        seconds, told = await ended_after(b"GET /slow HTTP/1.1\r\nconnection: close\r\n\r\n")
        assert seconds > 30 and told.startswith(b"HTTP/1.1 200"), "the clock stops while it is answered"
        seconds, _ = await ended_after(head + b"\r\n")
        assert 9.9 < seconds < 10.1, "and one that asks nothing more is not kept"
        assert (await wire.fetch(wire.Peer("127.16.0.11", 80), Request("GET", "/")))[0] == 200
        assert server.crowd.strangers == 0

    _, lines = on_a_port(story)
    assert any("too slow" in line for line in lines) and any("too large, or not HTTP" in line for line in lines)


def test_a_large_body_that_comes_in_one_piece_is_no_large_head():
    async def story(server):
        peer = wire.Peer("127.16.0.11", 80)
        for _ in range(3):
            assert (await wire.fetch(peer, Request("POST", "/", body=b"y" * 200_000)))[0] == 200

    on_a_port(story, Limits())
