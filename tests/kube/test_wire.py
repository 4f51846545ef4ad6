"""HTTP on any loop: requests, streams, errors and hostile input."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, Response, whole

HOST = "127.16.0.1"


async def _app(request: Request) -> Response:
    if request.path == "/stream":

        async def chunks():
            for number in range(3):
                await asyncio.sleep(1)
                yield f"{number}\n".encode()

        return Response(200, {"content-type": "text/plain"}, chunks())
    if request.path == "/bug":
        raise RuntimeError("a bug")
    return whole(200, f"{request.method} {request.path} {request.param('q')} {len(request.body)}".encode())


def _ask(request: Request, timeout: float = 5.0):
    async def story():
        async with wire.serving(_app, HOST, 80):
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            return await wire.fetch(wire.Peer(HOST, 80, "127.16.0.11", timeout), request)

    return vtime.run(story())


def test_a_request_arrives_decoded_and_its_answer_whole():
    status, headers, body = _ask(Request("POST", "/a b", (("q", "x=&y"),), {}, b"12345"))
    assert (status, body) == (200, b"POST /a b x=&y 5")
    assert headers["content-length"] == "16"


def test_a_stream_arrives_chunk_by_chunk():
    assert _ask(Request("GET", "/stream"))[2] == b"0\n1\n2\n"


def test_silence_is_given_up_at_the_timeout():
    with pytest.raises(Unreachable, match="no answer within 2 s"):
        _ask(Request("GET", "/stream"), timeout=2)


def test_a_bug_in_the_server_is_a_500_not_a_hang():
    assert _ask(Request("GET", "/bug"))[0] == 500


def test_nobody_listening_is_unreachable():
    async def story():
        with pytest.raises(Unreachable, match=r"refused|failed"):
            await wire.fetch(wire.Peer(HOST, 81), Request("GET", "/"))

    vtime.run(story())


def test_what_is_not_http_is_answered_400_and_closed():
    async def story():
        async with wire.serving(_app, HOST, 80):
            reader, writer = await asyncio.open_connection(HOST, 80)
            writer.write(b"\x16\x03\x01 hello\r\n\r\n")
            return await reader.read()

    assert vtime.run(story()).startswith(b"HTTP/1.1 400")


def test_a_client_that_leaves_ends_its_stream():
    ended = []

    async def app(request: Request) -> Response:
        async def chunks():
            try:
                while True:
                    await asyncio.sleep(1)
                    yield b"x"
            finally:
                ended.append(True)

        return Response(200, {}, chunks())

    async def story():
        async with wire.serving(app, HOST, 80):
            _, writer = await asyncio.open_connection(HOST, 80)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await asyncio.sleep(2.5)
            writer.close()
            await asyncio.sleep(2)

    vtime.run(story())
    assert ended == [True]


def test_many_requests_share_one_connection_in_order():
    async def story():
        async with wire.serving(_app, HOST, 80):
            reader, writer = await asyncio.open_connection(HOST, 80)
            writer.write(b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % n for n in range(3)))
            await asyncio.sleep(1)
            writer.close()
            return await reader.read()

    answer = vtime.run(story())
    assert answer.index(b"GET /0") < answer.index(b"GET /1") < answer.index(b"GET /2")


def test_a_peer_that_is_gone_before_the_first_byte_is_unreachable():
    """uvloop raises RuntimeError for a write on a transport that has closed; a probe's once ended a whole lab."""

    class Closed:
        def write(self, data):
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

        def close(self):
            pass

    async def dialled(host, port):
        return asyncio.StreamReader(), Closed()

    async def story():
        with pytest.raises(Unreachable, match="reset by peer"):
            await wire.fetch(wire.Peer("127.0.0.1", 1), Request("GET", "/"), dialled)

    vtime.run(story())
