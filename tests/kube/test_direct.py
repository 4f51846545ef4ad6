"""The lean road to an API server, on real sockets: reuse, streams, TLS, and servers that end badly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from tidegate import vtime
from tidegate.kube import certificates, wire
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.kube.direct import DirectTransport, goes
from tidegate.kube.errors import ApiError, Unreachable
from tidegate.kube.exchange import Request, Response, whole
from tidegate.kube.kubeconfig import Cluster
from tidegate.kube.tls import Credentials

pytestmark = pytest.mark.realtime
HOST = "127.0.0.1"
NAME = "api.tidegate"


class App:
    """Tells which connection each request came by."""

    def __init__(self):
        self.told = []

    async def __call__(self, request: Request) -> Response:
        self.told.append((request.method, request.path, dict(request.headers), request.body))
        if request.path == "/base/stream":

            async def chunks():
                for number in range(3):
                    yield f"{number}\n".encode() * 10_000
                    await asyncio.sleep(0.01)

            return Response(200, {"content-type": "text/plain"}, chunks())
        if request.path == "/base/missing":
            return whole(404, b'{"kind":"Status","code":404,"reason":"NotFound","message":"not here"}')
        return whole(200, request.body or b"yes")


@asynccontextmanager
async def asking(app, **cluster):
    server = await wire.serve(app, HOST)
    transport = DirectTransport(Cluster(f"http://{HOST}:{server.port}/base", **cluster))
    try:
        yield transport, server
    finally:
        await transport.close()
        await server.close()


async def got(transport, path, method="GET", body=b""):
    return await (await transport(Request(method, path, (), {}, body))).read()


async def test_one_connection_serves_requests_that_follow_each_other_and_many_at_once_have_one_each():
    app = App()
    async with asking(app, token="secret") as (transport, server):
        assert await got(transport, "/a") == b"yes"
        [connection] = server.connections
        for _ in range(2):
            await asyncio.sleep(0.02)
            assert await got(transport, "/a") == b"yes"
        assert list(server.connections) == [connection]
        assert await asyncio.gather(*[got(transport, "/stream") for _ in range(3)])
        assert len(server.connections) == 3
    assert [path for _, path, _, _ in app.told[:3]] == ["/base/a"] * 3
    assert app.told[0][2]["authorization"] == "Bearer secret"
    assert app.told[0][2]["host"] == f"{HOST}:{server.port}"


async def test_a_body_arrives_and_a_stream_comes_chunk_by_chunk():
    app = App()
    async with asking(app) as (transport, _):
        assert await got(transport, "/b", "POST", b"x" * 300_000) == b"x" * 300_000
        response = await transport(Request("GET", "/stream"))
        chunks = [chunk async for chunk in response.chunks]
    assert len(chunks) > 2
    assert b"".join(chunks) == b"".join(f"{number}\n".encode() * 10_000 for number in range(3))


async def test_a_token_file_is_read_for_each_request(tmp_path):
    app, file = App(), tmp_path / "token"
    async with asking(app, token_file=str(file)) as (transport, _):
        for token in ("first", "second"):
            file.write_text(token)
            await got(transport, "/a")
    assert [headers["authorization"] for _, _, headers, _ in app.told] == ["Bearer first", "Bearer second"]


async def test_an_answer_nobody_reads_to_its_end_takes_its_connection_along():
    async with asking(App()) as (transport, server):
        response = await transport(Request("GET", "/stream"))
        async for _ in response.chunks:
            break
        await response.close()
        assert await got(transport, "/a") == b"yes"
        await asyncio.sleep(0.05)
        assert len(server.connections) == 1
        del response
        await transport(Request("GET", "/stream"))  # dropped unread
        await asyncio.sleep(0.05)
        assert len(server.connections) <= 1


async def test_an_error_is_the_servers_status():
    async with asking(App()) as (transport, _):
        with pytest.raises(ApiError) as raised:
            await KubeClient(transport).request(Request("GET", "/missing"))
    assert (raised.value.code, raised.value.message) == (404, "not here")


@asynccontextmanager
async def answering(*replies):
    """A server whose connections answer with these bytes, one after the other, and end; it counts them."""
    made = []

    async def serve(reader, writer):
        made.append(writer)
        reply = replies[min(len(made), len(replies)) - 1]
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        if b"keep" not in reply:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    transport = DirectTransport(Cluster(f"http://{HOST}:{server.sockets[0].getsockname()[1]}"))
    try:
        yield transport, made
    finally:
        await transport.close()
        server.close()


OK = b"HTTP/1.1 200 OK\r\nx: keep\r\ncontent-length: 2\r\n\r\nok"


async def test_what_reads_is_asked_again_where_the_connection_of_before_is_closed_and_what_writes_is_not():
    async with answering(OK, b"", OK, b"") as (transport, made):
        assert await got(transport, "/") == b"ok"
        assert made[0].is_closing() is False
        line = transport._idle[0]
        made[0].transport.abort()  # not yet heard of here
        assert line.is_open
        with pytest.raises(Unreachable, match="closed the connection without an answer"):
            await got(transport, "/", "POST", b"x")
        assert len(made) == 1
        with pytest.raises(Unreachable, match="closed the connection without an answer"):
            await got(transport, "/")  # a connection of its own, and no answer
        assert len(made) == 2
        assert await got(transport, "/") == b"ok"
        made[2].transport.abort()
        with pytest.raises(Unreachable, match="closed the connection without an answer"):
            await got(transport, "/")  # asked again: on the fourth, which has none either
        assert len(made) == 4


async def test_what_nobody_asked_for_is_not_the_answer_to_the_next_request():
    """A proxy in between says 408 on a connection that has stood idle for too long for it, and closes it."""
    async with answering(OK, OK) as (transport, made):
        assert await got(transport, "/") == b"ok"
        made[0].write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 4\r\n\r\nlate")
        await asyncio.sleep(0.05)
        response = await transport(Request("GET", "/"))
        assert (response.status, await response.read()) == (200, b"ok")
        assert len(made) == 2


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "ended in the middle"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", "ended in the middle"),
        (b"HTTP/1.1 200 OK\r\nconte", "closed the connection|ended in the middle"),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", "not HTTP"),
    ],
)
async def test_an_answer_that_is_none_is_unreachable(reply, why):
    async with answering(reply) as (transport, _):
        with pytest.raises(Unreachable, match=why):
            await got(transport, "/")


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with answering(b"HTTP/1.1 200 OK\r\n\r\nall of it") as (transport, _):
        assert await got(transport, "/") == b"all of it"


async def test_a_head_before_the_head_is_passed_over():
    async with answering(b"HTTP/1.1 100 Continue\r\nlink: a\r\n\r\n" + OK) as (transport, _):
        response = await transport(Request("GET", "/"))
        assert (response.status, "link" in response.headers, await response.read()) == (200, False, b"ok")


async def test_nobody_listening_is_unreachable():
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:1: cannot connect: connection refused"):
        await got(DirectTransport(Cluster("http://127.0.0.1:1")), "/")


async def test_a_server_is_believed_by_its_authority_and_its_name(tmp_path):
    authority = certificates.make_authority("main", vtime.now())
    leaf = certificates.make_leaf(authority, NAME, vtime.now())
    for name, text in (("ca.crt", authority.certificate), ("tls.crt", leaf.certificate), ("tls.key", leaf.key)):
        (tmp_path / name).write_bytes(text)
    server = await wire.serve(App(), HOST, tls=Credentials(str(tmp_path)).server(is_mutual=False))
    url = f"https://{HOST}:{server.port}"
    try:
        good = DirectTransport(Cluster(url, ca=authority.certificate, tls_server_name=NAME))
        assert await got(good, "/a") == b"yes"
        assert await got(good, "/a") == b"yes"
        await good.close()
        other = certificates.make_authority("other", vtime.now())
        for cluster in (
            Cluster(url, ca=other.certificate, tls_server_name=NAME),
            Cluster(url, ca=authority.certificate, tls_server_name="somebody.else"),
        ):
            with pytest.raises(Unreachable, match="its certificate is not trusted"):
                await got(DirectTransport(cluster), "/a")
    finally:
        await server.close()


async def test_it_is_asked_this_way_only_where_it_can_be():
    assert goes(Cluster("https://a"))
    assert not goes(Cluster("https://a", proxy="http://b"))
    assert not goes(Cluster("https://a", plugin=("c", "d")))
    async with asking(App()) as (_, server), open_api(f"http://{HOST}:{server.port}", is_lean=True) as api:
        with pytest.raises(ApiError):
            await api.request(Request("GET", "/base/missing"))


def test_an_agent_has_no_aiohttp_and_no_yaml_in_its_memory():
    """Ten MiB and one, of the 64 that it may take."""
    asked = "import asyncio, sys, tidegate.agent.process, tidegate.observers.linux; "
    asked += "from tidegate.kube.connect import open_api\n"
    asked += "async def main():\n async with open_api('http://127.0.0.1:1', is_lean=True): pass\n"
    asked += "asyncio.run(main()); print([one for one in ('aiohttp', 'yaml') if one in sys.modules])"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.strip() == "[]"
