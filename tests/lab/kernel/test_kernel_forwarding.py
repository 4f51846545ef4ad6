"""What a client sees of a node's kernel."""

from __future__ import annotations

import asyncio
import json

import pytest

from .kernel_world import NODE_1, NODE_2, POD_1, POD_2, WEB, World, dial, pod, story, web


def test_a_connection_reaches_an_endpoint_and_the_pod_sees_the_real_client(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        assert await world.client.commit("node-1", [web(POD_1)]) == 1
        assert await (await dial(NODE_1)).ask() == [POD_1, NODE_1, "hi"]

    story(tmp_path, tell)


def test_a_connection_stays_put_after_a_commit_and_new_ones_go_elsewhere(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await pod(POD_2)
        await world.client.commit("node-1", [web(POD_1)])
        old = await dial()
        assert (await old.ask())[0] == POD_1
        await world.client.commit("node-1", [web(POD_2)])
        assert {(await (await dial()).ask())[0] for _ in range(30)} == {POD_2}
        assert (await old.ask())[0] == POD_1

    story(tmp_path, tell)


def test_each_node_follows_its_own_table(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await pod(POD_2)
        await world.client.commit("node-1", [web(POD_1)])
        await world.client.commit("node-2", [web(POD_2)])
        assert (await (await dial(NODE_1)).ask())[0] == POD_1
        assert (await (await dial(NODE_2)).ask())[0] == POD_2
        assert (await (await dial("127.17.2.9")).ask())[0] == POD_2, "a pod follows its node's table"

    story(tmp_path, tell)


def test_new_connections_are_spread_over_all_endpoints(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await pod(POD_2)
        await world.client.commit("node-1", [web(POD_1, POD_2)])
        reached = [(await (await dial()).ask())[0] for _ in range(40)]
        assert 8 < reached.count(POD_1) < 32

    story(tmp_path, tell)


def test_an_entry_without_endpoints_resets_and_an_unknown_address_refuses(tmp_path):
    async def tell(world: World) -> None:
        with pytest.raises(ConnectionRefusedError):
            await dial()
        await world.client.commit("node-1", [web()])
        with pytest.raises(ConnectionResetError):
            await (await dial()).ask()
        await world.client.commit("node-1", [])
        with pytest.raises(ConnectionRefusedError):
            await dial()

    story(tmp_path, tell)


def test_an_endpoint_that_refuses_resets_the_client(tmp_path):
    async def tell(world: World) -> None:
        await world.client.commit("node-1", [web(POD_1)])
        with pytest.raises(ConnectionResetError):
            await (await dial()).ask()
        assert json.loads(await world.client.dump("node-1"))["conntrack"] == []

    story(tmp_path, tell)


def test_an_endpoint_that_resets_in_mid_connection_resets_the_client(tmp_path):
    async def tell(world: World) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.transport.abort()

        await asyncio.start_server(serve, "127.17.1.1", 8080)
        await world.client.commit("node-1", [web(POD_1)])
        with pytest.raises(ConnectionResetError):
            await (await dial()).ask()

    story(tmp_path, tell)


def test_a_half_closed_connection_still_carries_the_answer(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await world.client.commit("node-1", [web(POD_1)])
        caller = await dial()
        caller.writer.write(b"last\n")
        caller.writer.write_eof()
        assert await caller.reader.read() == f"{POD_1} {NODE_1} last\n".encode()
        await asyncio.sleep(0.01)
        assert json.loads(await world.client.dump("node-1"))["conntrack"] == []

    story(tmp_path, tell)


def test_a_node_port_always_uses_that_nodes_table(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await pod(POD_2)
        await world.client.commit("node-1", [web(POD_1, node_port=30080)])
        await world.client.commit("node-2", [web(POD_2, node_port=30080)])
        assert (await (await dial(NODE_1, (NODE_2, 30080))).ask())[0] == POD_2
        assert (await (await dial("127.0.0.1", (NODE_1, 30080))).ask())[0] == POD_1

    story(tmp_path, tell)


def test_a_client_with_affinity_keeps_its_endpoint_until_it_is_gone(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await pod(POD_2)
        await world.client.commit("node-1", [web(POD_1, POD_2, affinity_seconds=60)])
        first = (await (await dial()).ask())[0]
        assert {(await (await dial()).ask())[0] for _ in range(20)} == {first}
        other = POD_2 if first == POD_1 else POD_1
        await world.client.commit("node-1", [web(other, affinity_seconds=60)])
        assert (await (await dial()).ask())[0] == other

    story(tmp_path, tell)


def test_a_client_that_leaves_while_its_endpoint_is_dialled_leaves_nothing_behind(tmp_path):
    async def tell(world: World) -> None:
        asyncio.get_running_loop().network.blackholes.add("127.17.1.1")
        await world.client.commit("node-1", [web(POD_1)])
        caller = await dial()
        await asyncio.sleep(1)
        (tracked,) = json.loads(await world.client.dump("node-1"))["conntrack"]
        assert tracked["state"] == "SYN_SENT"
        assert tracked["endpoint"] == POD_1
        assert tracked["destination"] == f"{WEB[0]}:{WEB[1]}"
        caller.writer.transport.abort()
        await asyncio.sleep(0.01)
        assert json.loads(await world.client.dump("node-1"))["conntrack"] == []

    story(tmp_path, tell)
