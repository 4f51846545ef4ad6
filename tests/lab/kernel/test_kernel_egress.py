"""The way out of a node: what the kubelet's lifecycle hooks are dialled through."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.lab.kernel.client import egress, egress_path

from .kernel_world import NODE_1, POD_1, WEB, World, dial, pod, story, web


async def holder(answers: list[bytes]) -> None:
    """Listens where the agent's holder does; keeps what it was told, answers once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.append(await reader.readline())
        answers.append(await reader.readline())
        writer.write(b"held\n")
        writer.close()

    await asyncio.start_server(serve, NODE_1, 15299)


def test_a_dial_out_of_a_node_comes_from_the_nodes_address(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        reader, writer = await egress(egress_path(tmp_path, "node-1"), "127.17.1.1", 8080)
        writer.write(b"probe\n")
        assert await reader.readline() == f"{POD_1} {NODE_1} probe\n".encode()

    story(tmp_path, tell)


def test_a_redirected_port_reaches_its_target_which_learns_where_the_call_was_going(tmp_path):
    async def tell(world: World) -> None:
        told: list[bytes] = []
        await holder(told)
        await world.client.redirect("node-1", 15299, f"{NODE_1}:15299")
        reader, writer = await egress(egress_path(tmp_path, "node-1"), "127.17.1.1", 15299)
        writer.write(b"GET /gate/web HTTP/1.1\r\n")
        assert await reader.read() == b"held\n"
        proxied = told[0].split()
        assert proxied[:4] == [b"PROXY", b"TCP4", NODE_1.encode(), b"127.17.1.1"]
        assert int(proxied[4]) > 1024
        assert proxied[5:] == [b"15299"]
        assert told[1] == b"GET /gate/web HTTP/1.1\r\n"

    story(tmp_path, tell)


def test_without_the_redirect_the_hooks_port_is_refused(tmp_path):
    async def tell(world: World) -> None:
        await world.client.redirect("node-1", 15299, f"{NODE_1}:15299")
        for node, target in (("node-1", None), ("node-2", f"{NODE_1}:15299")):
            await world.client.redirect(node, 15299, target)
        with pytest.raises(ConnectionRefusedError):
            await egress(egress_path(tmp_path, "node-1"), "127.17.1.1", 15299)

    story(tmp_path, tell)


def test_a_redirect_does_not_touch_what_pods_dial(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await world.client.redirect("node-1", WEB[1], f"{NODE_1}:15299")
        await world.client.commit("node-1", [web(POD_1)])
        assert (await (await dial("127.17.1.7")).ask())[0] == POD_1

    story(tmp_path, tell)


def test_a_redirect_survives_every_commit(tmp_path):
    async def tell(world: World) -> None:
        await world.client.redirect("node-1", 15299, f"{NODE_1}:15299")
        await world.client.commit("node-1", [web(POD_1)])
        assert f'"redirects":[{{"port":15299,"target":"{NODE_1}:15299"}}]' in await world.client.dump("node-1")

    story(tmp_path, tell)


def test_a_holder_that_dies_is_seen_by_the_caller_as_a_reset_or_an_end(tmp_path):
    async def tell(world: World) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.transport.abort()

        await asyncio.start_server(serve, NODE_1, 15299)
        await world.client.redirect("node-1", 15299, f"{NODE_1}:15299")
        reader, _ = await egress(egress_path(tmp_path, "node-1"), "127.17.1.1", 15299)
        with pytest.raises(ConnectionResetError):
            await reader.read()

    story(tmp_path, tell)


def test_a_caller_that_gives_up_closes_the_held_connection(tmp_path):
    async def tell(world: World) -> None:
        ended = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            await reader.read()
            ended.set()
            writer.close()

        await asyncio.start_server(serve, "127.17.1.1", 8080)
        _, writer = await egress(egress_path(tmp_path, "node-1"), "127.17.1.1", 8080)
        writer.write(b"hold me\n")
        await asyncio.sleep(1)
        assert not ended.is_set()
        writer.close()
        async with asyncio.timeout(1):
            await ended.wait()

    story(tmp_path, tell)


def test_a_malformed_request_is_answered_and_the_node_lives_on(tmp_path):
    async def tell(world: World) -> None:
        path = egress_path(tmp_path, "node-1")
        for request in (b"HELLO\n", b"CONNECT nowhere\n", b"CONNECT 1.2.3.4:99999\n"):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(request)
            assert await reader.read() == b"ERR bad request\n"
        await pod(POD_1)
        await egress(path, "127.17.1.1", 8080)

    story(tmp_path, tell)


def test_a_dead_kernel_refuses(tmp_path):
    async def tell(world: World) -> None:
        world.process.signal(9)
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await egress(egress_path(tmp_path, "node-1"), "127.17.1.1", 8080)

    story(tmp_path, tell)
