"""The gate asked without a deletion behind it (a node shuts down, its kubelet evicts), or by who is no kubelet."""

from __future__ import annotations

import asyncio

import pytest
from tests.agent.stage import NS, first, other_node, play

from tidegate.kube.api import PODS


async def asked(stage, name, request):
    """What the holder of the pod's node answers to a call that its kernel says was for the pod; after how long."""
    pod = await stage.api.get(PODS, name, NS)
    node, ip = pod["status"]["hostIP"], pod["status"]["podIP"]
    reader, writer = await asyncio.open_connection(node, 15299)
    began = stage.now
    writer.write(f"PROXY TCP4 {node} {ip} 40000 15299\r\n{request}\r\n\r\n".encode())
    told = await reader.read()
    return told.decode(), stage.now - began


def test_a_node_that_shuts_down_asks_without_a_deletion_and_is_answered_at_once():
    async def story(stage):
        name = await first(stage)
        told, seconds = await asked(stage, name, "GET /gate/echo HTTP/1.1")
        assert told.startswith("HTTP/1.1 200") and "bypassed" in told and seconds < 1
        assert stage.result(name) is None and stage.drain_state(name) is None, "nothing is claimed of it"
        result, _ = await stage.end(name)
        assert result["result"] == "verified", "and a later deletion is held as any"

    play(story)


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /gate/echo/../other HTTP/1.1",
        "GET /gate/ECHO HTTP/1.1",
        "GET http://other/gate/echo HTTP/1.1",
        "POST /gate/echo HTTP/1.1",
        "GET / HTTP/1.1",
    ],
)
def test_a_path_that_is_not_the_gates_is_held_for_nobody(request_line):
    async def story(stage):
        told, seconds = await asked(stage, await first(stage), request_line)
        assert told.startswith("HTTP/1.1 404") and seconds < 1

    play(story)


def test_a_forged_host_names_no_other_pod():
    async def story(stage):
        name = await first(stage)
        other = next(one["metadata"]["name"] for one in await stage.pods() if one["metadata"]["name"] != name)
        ip = (await stage.api.get(PODS, other, NS))["status"]["podIP"]
        stage.fault("proxy-freeze", await other_node(stage, name), 6)
        await stage.delete(other)
        await asyncio.sleep(1)
        told, seconds = await asked(stage, name, f"GET /gate/echo HTTP/1.1\r\nHost: {ip}:15299")
        assert "bypassed" in told and seconds < 1, "it is the caller's own pod that is asked about"
        await stage.gone(other)
        assert stage.result(other)["result"] == "verified"

    play(story)
