"""The gate in a whole virtual cluster: what it waits for, and what it says when it could not."""

from __future__ import annotations

import asyncio

import pytest
from stage import deployment, first, is_ready, node_of, other_node, play

from tidegate.kube.api import NODES, PODS, Patch


def test_a_deleted_pod_is_told_to_stop_about_a_second_later_and_is_verified():
    async def story(stage):
        result, seconds = await stage.end(await first(stage))
        assert result["result"] == "verified"
        assert result["stragglers"] == []
        assert seconds < 1.4

    play(story)


def test_a_frozen_proxy_is_waited_for():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 20)
        result, seconds = await stage.end(name)
        assert result["result"] == "verified"
        assert 19 < seconds < 22

    play(story)


def test_a_frozen_proxy_and_a_grace_of_thirty_end_timed_out_with_the_node_named():
    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        stage.fault("proxy-freeze", straggler, 25)
        result, seconds = await stage.end(name)
        assert result["result"] == "timed-out"
        assert result["stragglers"] == [straggler]
        assert straggler in result["reason"]
        assert 16 < seconds <= 18.5, "the app keeps its ten seconds to stop"

    play(story, deployment(grace=30))


def test_a_second_delete_with_a_shorter_grace_moves_the_deadline():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 100)
        await stage.delete(name)
        await asyncio.sleep(3)
        began = stage.now
        await stage.delete(name, grace=20)
        await stage.gone(name)
        assert stage.result(name)["result"] == "timed-out"
        assert stage.now - began < 12

    play(story)


def test_pods_deleted_together_share_one_epoch():
    async def story(stage):
        names = sorted(pod["metadata"]["name"] for pod in await stage.pods())[:3]
        await asyncio.gather(*(stage.delete(name) for name in names))
        await asyncio.gather(*(stage.gone(name) for name in names))
        results = [stage.result(name) for name in names]
        assert [result["result"] for result in results] == ["verified"] * 3
        assert len({result["epoch"] for result in results}) == 1

    play(story, deployment(replicas=5))


def test_both_containers_of_a_pod_wait_for_the_same_proof():
    async def story(stage):
        result, _ = await stage.end(await first(stage))
        assert result["result"] == "verified"
        stopped = [e["at"] for e in stage.lab.journal() if e["event"] == "signal-sent"]
        assert len(stopped) == 2 and max(stopped) - min(stopped) < 0.1

    play(story, deployment(containers=("echo", "side")))


def test_the_last_endpoint_waits_for_its_replacement():
    async def story(stage):
        result, seconds = await stage.end(await first(stage))
        assert result["result"] == "verified"
        assert seconds > 1

    play(story, deployment(replicas=1))


def test_the_last_endpoint_of_a_workload_scaled_to_zero_is_let_go_at_once():
    async def story(stage):
        name = await first(stage)
        await stage.scale(0)
        await stage.gone(name)
        result = stage.result(name)
        assert result["result"] == "bypassed"
        assert "scaled to zero" in result["reason"]

    play(story, deployment(replicas=1))


def test_a_liveness_restart_is_answered_at_once_and_leaves_no_record():
    manifest = deployment(replicas=2)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["livenessProbe"] = {"httpGet": {"path": "/nope", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2}

    async def story(stage):
        for _ in range(200):
            pods = await stage.pods()
            if any(pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("never restarted")
        journal = stage.lab.journal()
        began = next(e for e in journal if e["event"] == "hook-started")
        ended = next(e for e in journal if e["event"] == "hook-ended" and e["uid"] == began["uid"])
        assert ended["at"] - began["at"] < 0.2
        assert all(stage.result(pod["metadata"]["name"]) is None for pod in pods)

    play(story, manifest)


def test_a_connection_in_flight_is_waited_for():
    async def story(stage):
        name = await first(stage)
        pod = await stage.api.get(PODS, name, "demo")
        reader, writer = await asyncio.open_connection(pod["status"]["podIP"], 8080)
        writer.write(b"GET /sleep?ms=9000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(0.1)
        result, seconds = await stage.end(name)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert result["result"] == "verified"
        assert 8.8 < seconds < 9.8

    play(story)


def test_a_connection_that_never_ends_is_named_at_the_deadline():
    async def story(stage):
        name = await first(stage)
        pod = await stage.api.get(PODS, name, "demo")
        _, writer = await asyncio.open_connection(pod["status"]["podIP"], 8080, local_addr=("127.99.1.1", 0))
        result, _ = await stage.end(name)
        writer.close()
        assert result["result"] == "timed-out"
        assert "127.99.1.1" in result["reason"]
        assert result["stragglers"] == []

    play(story, deployment(grace=20))


def test_a_node_without_an_agent_is_a_straggler_and_never_clean():
    async def story(stage):
        name = await first(stage)
        node = await other_node(stage, name)
        await stage.api.delete(PODS, f"tidegate-agent-{node}", "tidegate-system")
        await asyncio.sleep(3)
        result, _ = await stage.end(name)
        assert result["result"] == "timed-out"
        assert result["stragglers"] == [node]

    play(story, deployment(grace=20))


async def lost(stage, node):
    """Its kubelet says no more, and the node controller has noticed."""
    [task] = [one for one in asyncio.all_tasks() if one.get_name() == f"kubelet {node}"]
    task.cancel()
    conditions = (await stage.api.get(NODES, node))["status"]["conditions"]
    told = [{**one, "status": "Unknown"} if one["type"] == "Ready" else one for one in conditions]
    await stage.api.patch(NODES, node, Patch({"status": {"conditions": told}}, subresource="status"))


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_node_that_is_tainted_out_of_service_is_excepted_by_name_and_only_while_it_is_silent(is_silent):
    async def story(stage):
        name = await first(stage)
        node = await other_node(stage, name)
        stage.fault("proxy-freeze", node, 300)
        if is_silent:
            await stage.api.delete(PODS, f"tidegate-agent-{node}", "tidegate-system")
            await asyncio.sleep(3)
            await lost(stage, node)
        await stage.delete(name)
        await asyncio.sleep(5)
        assert stage.result(name) is None
        body = {"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}}
        await stage.api.patch(NODES, node, Patch(body))
        await stage.gone(name)
        result = stage.result(name)
        assert (result["result"], result["stragglers"]) == ("verified-except" if is_silent else "timed-out", [node])
        assert ("tainted node.kubernetes.io/out-of-service" in result["reason"]) is is_silent

    play(story, deployment(grace=30))


def test_a_node_that_joins_in_the_middle_has_a_say():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 4)
        await stage.delete(name)
        await asyncio.sleep(2)
        status = {"addresses": [{"type": "InternalIP", "address": "127.16.0.77"}]}
        await stage.api.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "new"}, "status": status}
        )
        await stage.gone(name)
        assert stage.result(name)["result"] == "timed-out"
        assert stage.result(name)["stragglers"] == ["new"]

    play(story, deployment(grace=30))


@pytest.mark.parametrize("seed", range(3))
def test_a_proxy_that_restarts_in_the_middle_is_waited_for(seed):
    async def story(stage):
        name = await first(stage)
        node = await other_node(stage, name)
        stage.fault("proxy-lag", node, 4)
        await stage.delete(name)
        await asyncio.sleep(1.0 + seed)
        stage.fault("proxy-kill", node, 3)
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    play(story, seed=seed)


def test_a_pod_that_a_lagging_node_has_not_seen_yet_is_not_taken_for_gone():
    """The trap of rule absence: the node shows no route, because the addition is still on its way."""

    async def story(stage):
        node = "node-3"
        stage.fault("proxy-lag", node, 8)
        before = {pod["metadata"]["name"] for pod in await stage.pods()}
        await stage.scale(4)
        while not (
            fresh := [pod for pod in await stage.pods() if pod["metadata"]["name"] not in before and is_ready(pod)]
        ):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        result, seconds = await stage.end(fresh[0]["metadata"]["name"])
        assert result["result"] == "verified"
        assert seconds > 7
        await asyncio.sleep(10)

    play(story)


def test_the_node_that_holds_the_pod_may_be_the_straggler_itself():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await node_of(stage, name), 6)
        result, seconds = await stage.end(name)
        assert result["result"] == "verified"
        assert seconds > 5.5

    play(story)


def test_the_same_seed_gives_the_same_story():
    async def story(stage):
        result, seconds = await stage.end(await first(stage))
        return result, seconds, len(stage.lab.journal())

    assert play(story, seed=5) == play(story, seed=5)
