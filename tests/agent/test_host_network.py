"""The gate of pods on their node's network: told apart by a token, for their address is the node's."""

from __future__ import annotations

import asyncio

import pytest
from tests.agent.stage import NS, deployment, first, node_of, other_node, play

from tidegate.drain.gating import GATE_TOKEN, gate_patch
from tidegate.kube.api import DEPLOYMENTS, PODS, Patch

TOKEN = "0123456789abcdef" * 2


def on_host(token=TOKEN, replicas=3, **options):
    """An echo on each node, gated as ``tidegate install --gate`` prints it."""
    made = deployment(replicas=replicas, gate=False, **options)
    template = made["spec"]["template"]
    template["spec"]["hostNetwork"] = True
    patch = gate_patch(made, token).patch["spec"]["template"]
    template["metadata"]["annotations"] = patch["metadata"]["annotations"]
    for container, patched in zip(template["spec"]["containers"], patch["spec"]["containers"], strict=True):
        container["lifecycle"] = patched["lifecycle"]
    return made


def test_a_pod_on_its_nodes_network_is_held_until_nobody_routes_to_it():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 6)
        result, seconds = await stage.end(name)
        assert result["result"] == "verified" and 4 < seconds < 10, (result, seconds)

    play(story, on_host())


def test_the_form_for_other_pods_fails_open_there_as_on_a_real_kubelet():
    async def story(stage):
        result, seconds = await stage.end(await first(stage))
        assert result is None and seconds < 1

    made = on_host()
    for one in made["spec"]["template"]["spec"]["containers"]:
        one["lifecycle"]["preStop"]["httpGet"].pop("host")
    play(story, made)


@pytest.mark.parametrize("header", ["f" * 32, "../../etc", ""], ids=["of nobody", "not one of ours", "none"])
def test_a_forged_token_holds_nobody_and_costs_nobody_their_hold(header):
    async def story(stage):
        name = await first(stage)
        node = await node_of(stage, name)
        address = (await stage.api.get(PODS, name, NS))["status"]["hostIP"]
        stage.fault("proxy-freeze", await other_node(stage, name), 6)
        await stage.delete(name)
        await asyncio.sleep(1)
        began = stage.now
        reader, writer = await asyncio.open_connection(address, 15299)
        writer.write(f"GET /gate/echo HTTP/1.1\r\nhost: x\r\nx-tidegate-gate: {header}\r\n\r\n".encode())
        told = await reader.read()
        assert stage.now - began < 1 and b"verified" not in told, told
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified", node

    play(story, on_host())


def test_of_two_that_leave_a_node_with_one_token_none_is_called_verified():
    async def story(stage):
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"paused": True}}), NS)
        name = await first(stage)
        twin = await stage.api.get(PODS, name, NS)
        spec = {
            **twin["spec"],
            "containers": [
                {**one, "env": [{"name": "PORT", "value": "8099"}], "ports": [{"containerPort": 8099}]}
                for one in twin["spec"]["containers"]
            ],
        }
        for one in spec["containers"]:
            one.pop("readinessProbe", None)
        metadata = {"name": "twin", "namespace": NS, "annotations": {GATE_TOKEN: TOKEN}}
        await stage.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        await asyncio.sleep(3)
        await asyncio.gather(stage.delete(name), stage.delete("twin"))
        await asyncio.gather(stage.gone(name), stage.gone("twin"))
        assert [(stage.result(one) or {}).get("result") for one in (name, "twin")].count("verified") == 0

    play(story, on_host())
