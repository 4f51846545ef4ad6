"""What proxies and agents get from the kernels' control socket."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from tidegate.lab.journal import read
from tidegate.lab.kernel.client import KernelError, UnboundError
from tidegate.lab.kernel.tables import ServiceEntry

from .kernel_world import NODE_1, POD_1, POD_2, WEB, World, dial, pod, story, web


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_a_dump_is_the_last_commit_and_the_connections_of_that_node(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await world.client.commit("node-1", [web(POD_1, POD_2, node_port=30080)])
        await world.client.commit("node-2", [web(POD_1)])
        caller = await dial("127.16.0.12")
        await caller.ask()
        first = json.loads(await world.client.dump("node-1"))
        assert first["at"] == pytest.approx(1_767_225_600, abs=1)
        assert {**first, "at": 0} == {
            "kernel": "tidegate-lab/1",
            "node": "node-1",
            "generation": 1,
            "at": 0,
            "services": [
                {
                    "namespace": "default",
                    "name": "web",
                    "port_name": "http",
                    "protocol": "TCP",
                    "cluster_ip": "127.18.0.5",
                    "port": 80,
                    "node_port": 30080,
                    "endpoints": [POD_1, POD_2],
                    "affinity_seconds": 0,
                }
            ],
            "redirects": [],
            "conntrack": [],
        }
        (tracked,) = json.loads(await world.client.dump("node-2"))["conntrack"]
        source = caller.writer.get_extra_info("sockname")
        assert tracked == {
            "protocol": "tcp",
            "state": "ESTABLISHED",
            "source": f"{source[0]}:{source[1]}",
            "destination": f"{WEB[0]}:{WEB[1]}",
            "endpoint": POD_1,
        }

    story(tmp_path, tell)


def test_a_connection_is_closing_from_its_first_fin(tmp_path):
    async def tell(world: World) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            await asyncio.sleep(5)
            writer.close()

        await asyncio.start_server(serve, "127.17.1.1", 8080)
        await world.client.commit("node-1", [web(POD_1)])
        caller = await dial()
        await asyncio.sleep(0.1)
        caller.writer.write_eof()
        await asyncio.sleep(1)
        assert [one["state"] for one in json.loads(await world.client.dump("node-1"))["conntrack"]] == ["CLOSING"]
        await asyncio.sleep(5)
        assert json.loads(await world.client.dump("node-1"))["conntrack"] == []

    story(tmp_path, tell)


def test_waiting_ends_at_the_next_commit_or_after_its_time(tmp_path):
    async def tell(world: World) -> None:
        begun = _now()
        same = json.loads(await world.client.wait("node-1", 0, 2.0))
        assert same["generation"] == 0
        assert _now() - begun == pytest.approx(2.0, abs=0.01)
        begun = _now()
        waiting = asyncio.create_task(world.client.wait("node-1", 0, 30))
        await asyncio.sleep(3)
        await world.client.commit("node-1", [web(POD_1)])
        assert json.loads(await waiting)["generation"] == 1
        assert _now() - begun == pytest.approx(3.0, abs=0.01)
        assert json.loads(await world.client.wait("node-1", 0, 30))["generation"] == 1, "already newer: at once"

    story(tmp_path, tell)


def test_a_node_is_registered_once_and_keeps_its_state(tmp_path):
    async def tell(world: World) -> None:
        await world.client.commit("node-1", [web(POD_1)])
        await world.client.register("node-1", NODE_1)
        assert json.loads(await world.client.dump("node-1"))["generation"] == 1
        with pytest.raises(KernelError, match=r"node node-1 has address 127\.16\.0\.11, not 127\.16\.0\.99"):
            await world.client.register("node-1", "127.16.0.99")

    story(tmp_path, tell)


def test_what_cannot_be_committed_changes_nothing_and_says_why(tmp_path):
    async def tell(world: World) -> None:
        await world.client.commit("node-1", [web(POD_1)])
        before = json.loads(await world.client.dump("node-1"))
        for services, why in (
            ([web(POD_1), web(POD_2, name="other")], r"default/other:80 and default/web:80 both claim"),
            ([web("127.17.1.1")], r"'127.17.1.1' is not ip:port"),
            ([web(POD_1, protocol="UDP")], r"protocol UDP is not forwarded"),
        ):
            with pytest.raises(KernelError, match=why):
                await world.client.commit("node-1", services)
        with pytest.raises(KernelError, match=r"unknown node 'node-9'; known: node-1, node-2"):
            await world.client.commit("node-9", [])
        assert {**json.loads(await world.client.dump("node-1")), "at": 0} == {**before, "at": 0}

    story(tmp_path, tell)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"not json", "malformed"),
        (b'{"op": "explode"}', "unknown op 'explode'; known: node, commit, dump, wait, redirect"),
        (b'{"op": "dump"}', "missing field 'node'"),
        (b'{"op": "commit", "node": "node-1", "services": [{}]}', "services"),
        (b'{"op": "redirect", "node": "node-1", "port": 1, "target": "x"}', "is not ip:port"),
        (b'{"op": "wait", "node": "node-1", "generation": null, "seconds": 1}', ""),
    ],
)
def test_a_bad_request_is_answered_with_an_error(tmp_path, line, why):
    async def tell(world: World) -> None:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "kernel.sock"))
        writer.write(line + b"\n")
        assert why in json.loads(await reader.readline())["error"]
        writer.write(b'{"op": "dump", "node": "node-1"}\n')
        assert json.loads(await reader.readline())["node"] == "node-1", "the conversation goes on"

    story(tmp_path, tell)


def test_an_address_that_cannot_be_listened_on_is_named_and_the_rest_is_in_force(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await asyncio.start_server(lambda reader, writer: None, "127.18.0.6", 80)
        services = [web(POD_1), web(POD_1, name="other", cluster_ip="127.18.0.6")]
        with pytest.raises(UnboundError, match=r"127\.18\.0\.6:80: .*in use") as raised:
            await world.client.commit("node-1", services)
        assert raised.value.generation == 1
        assert (await (await dial()).ask())[0] == POD_1

    story(tmp_path, tell)


def test_a_listener_stays_as_long_as_any_node_has_its_address(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await world.client.commit("node-1", [web(POD_1)])
        await world.client.commit("node-2", [web(POD_1)])
        await world.client.commit("node-1", [])
        with pytest.raises(ConnectionResetError):
            await (await dial(NODE_1)).ask()
        assert (await (await dial("127.16.0.12")).ask())[0] == POD_1

    story(tmp_path, tell)


def test_the_journal_has_every_commit_and_every_closed_connection(tmp_path):
    async def tell(world: World) -> None:
        await pod(POD_1)
        await world.client.commit("node-1", [web(POD_1)])
        caller = await dial()
        await caller.ask()
        caller.writer.close()
        await asyncio.sleep(1)
        committed, closed = read(tmp_path / "kernel.jsonl")
        assert committed["event"] == "table-committed"
        assert (committed["node"], committed["generation"]) == ("node-1", 1)
        assert committed["services"] == {"default/web:80": [POD_1]}
        assert closed.pop("source").startswith(f"{NODE_1}:")
        opened, pod_closed = closed.pop("opened"), closed.pop("pod_closed")
        assert committed["at"] < opened < pod_closed <= closed["at"]
        assert {**closed, "at": 0} == {"at": 0, "event": "connection-closed", "node": "node-1", "endpoint": POD_1}

    story(tmp_path, tell)


def test_the_kernel_says_when_it_is_ready_and_ends_on_sigterm_without_leftovers(tmp_path):
    async def tell(world: World) -> None:
        assert world.lines == ["kernel: ready"]
        world.process.signal(15)
        assert await world.process.wait() == 0
        assert [path.name for path in tmp_path.iterdir()] == ["kernel.jsonl"]

    story(tmp_path, tell)


@pytest.mark.parametrize("seed", range(6))
def test_generations_only_grow_and_a_dump_is_always_the_last_commit(tmp_path, seed):
    async def tell(world: World) -> None:
        rng = random.Random(seed)
        pods = [f"127.17.1.{number}:8080" for number in range(1, 6)]
        for address in pods:
            await pod(address)
        last: dict[str, tuple[int, tuple[str, ...]]] = {"node-1": (0, ()), "node-2": (0, ())}
        for _ in range(40):
            node = rng.choice(sorted(last))
            generation, listed = last[node]
            if rng.random() < 0.5:
                listed = tuple(rng.sample(pods, rng.randint(1, 5)))
                committed = await world.client.commit(node, [web(*listed)])
                assert committed == generation + 1
                last[node] = (committed, listed)
            dump = json.loads(await world.client.dump(node))
            generation, listed = last[node]
            assert dump["generation"] == generation
            assert [tuple(one["endpoints"]) for one in dump["services"]] == ([listed] if generation else [])
            if generation:
                source = {"node-1": NODE_1, "node-2": "127.16.0.12"}[node]
                assert (await (await dial(source)).ask())[0] in listed, "no new connection leaves the table"

    story(tmp_path, tell, seed)


def test_an_entry_says_its_name_as_the_journal_does():
    assert ServiceEntry("ns", "web", "http", "TCP", "1.2.3.4", 80, 0, ()).key == "ns/web:80"
