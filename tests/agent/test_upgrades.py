"""An agent is replaced while it holds: who has the hold sees it through, new ones are its successor's."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.agent.stage import deployment, first, node_of, other_node, play

from tidegate.kube.api import PODS
from tidegate.model.names import SYSTEM_NAMESPACE

FROZEN_SECONDS = 14


async def successor(stage, node, name="next"):
    """The agent that a surge makes beside the one that is there, as a DaemonSet with ``maxSurge: 1`` would."""
    old = await stage.api.get(PODS, f"tidegate-agent-{node}", SYSTEM_NAMESPACE)
    spec = {**old["spec"], "containers": [one for one in old["spec"]["containers"] if one["name"] == "agent"]}
    metadata = {key: old["metadata"][key] for key in ("labels", "annotations")}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, **metadata}}
    await stage.api.create(PODS, {**made, "spec": spec})
    await asyncio.sleep(3)


async def holding(stage):
    """A pod in its agent's hold, until a node's proxy moves again."""
    name = await first(stage)
    node = await node_of(stage, name)
    stage.fault("proxy-freeze", await other_node(stage, name), FROZEN_SECONDS)
    await stage.delete(name)
    await asyncio.sleep(2)
    assert stage.drain_state(name) is not None
    return name, node


def leave(stage, node):
    stage.kill(f"tidegate-agent-{node}/agent", signal.SIGTERM)


def test_a_hold_survives_the_upgrade_of_its_agent():
    async def story(stage):
        name, node = await holding(stage)
        began = stage.now
        await successor(stage, node)
        assert stage.result(name) is None, "the new one does not take the old one for dead"
        leave(stage, node)
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"
        assert stage.now - began > FROZEN_SECONDS - 3, "it was held all the while"
        await asyncio.sleep(5)
        exits = [e["pod"] for e in stage.lab.journal() if e["event"] == "process-exited"]
        assert f"tidegate-agent-{node}" in exits, "and then the old one ended"

    play(story)


def test_new_asks_go_to_the_new_agent_while_the_old_one_holds():
    async def story(stage):
        name, node = await holding(stage)
        await successor(stage, node)
        leave(stage, node)
        others = [pod["metadata"]["name"] for pod in await stage.pods() if pod["spec"]["nodeName"] == node]
        second = next(one for one in others if one != name)
        await stage.delete(second)
        await asyncio.gather(stage.gone(name), stage.gone(second))
        assert [stage.result(one)["result"] for one in (name, second)] == ["verified", "verified"]

    play(story, deployment(replicas=6))


@pytest.mark.parametrize("is_told", [True, False], ids=["told to leave", "not told"])
def test_an_old_agent_that_is_killed_in_its_hold_is_buried_by_the_new_one(is_told):
    async def story(stage):
        name, node = await holding(stage)
        await successor(stage, node)
        if is_told:
            leave(stage, node)
            await asyncio.sleep(1)
        stage.kill(f"tidegate-agent-{node}/agent")
        await stage.gone(name)
        assert stage.result(name)["result"] == "bypassed"

    play(story)


def test_a_new_agent_that_is_killed_beside_an_old_one_costs_the_old_ones_hold_nothing():
    async def story(stage):
        name, node = await holding(stage)
        await successor(stage, node)
        stage.kill("next/agent")
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    play(story)


def test_of_a_pod_with_several_containers_all_holds_survive_or_none_is_called_verified():
    async def story(stage, *, is_killed):
        name, node = await holding(stage)
        await successor(stage, node)
        if is_killed:
            stage.kill(f"tidegate-agent-{node}/agent")
        await stage.gone(name)
        return stage.result(name)["result"]

    for is_killed, result in ((False, "verified"), (True, "bypassed")):
        told = play(lambda stage, k=is_killed: story(stage, is_killed=k), deployment(containers=("echo", "side")))
        assert told == result


def test_no_agent_is_unreachable_for_longer_than_a_question_while_all_of_them_are_replaced():
    async def story(stage):
        for node in ("node-1", "node-2", "node-3"):
            await successor(stage, node, f"next-{node}")
            leave(stage, node)
        await asyncio.sleep(4)
        result, seconds = await stage.end(await first(stage))
        assert result["result"] == "verified" and seconds < 3

    play(story)
