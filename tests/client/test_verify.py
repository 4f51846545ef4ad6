"""``verify``: no route proven, a route named, or not known; and what the probe of every address says."""

from __future__ import annotations

import asyncio

import pytest
from stage import NS, deployment, first, node_of, other_node, play

from tidegate.client.verify import VerifyOptions, verify_pod
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES, Patch
from tidegate.kube.errors import ApiError

UNGATED = deployment(gate=False)
QUICK = VerifyOptions(timeout_seconds=10, seed=0)


async def labelled(stage, name, **labels):
    await stage.api.patch(PODS, name, Patch({"metadata": {"labels": labels}}), NS)


async def verified(stage, name, **chosen):
    options = {"timeout_seconds": 10, "seed": 0} | chosen
    return (await verify_pod(stage.client, NS, name, VerifyOptions(**options))).document


def test_a_pod_in_traffic_is_routed_and_slice_service_and_nodes_are_named():
    async def story(stage):
        name = await first(stage)
        began = stage.now
        found = await verified(stage, name)
        assert found["result"] == "routed"
        [entry] = found["listed"]
        assert (entry["service"], entry["routed"]) == ("demo/echo", True)
        assert found["reasons"][0].startswith(f"EndpointSlice {entry['slice']} of demo/echo lists")
        assert [one["verdict"] for one in found["nodes"]] == ["route"] * 3
        assert "demo/echo:http (cluster-ip" in found["nodes"][0]["routes"][0]
        assert stage.now - began < 3, "what the slices say is not waited away"

    play(story, UNGATED)


def test_after_a_cut_no_route_is_proven_on_every_node_and_the_pod_is_not_touched():
    async def story(stage):
        name = await first(stage)
        await labelled(stage, name, app="test-offline")
        await asyncio.sleep(1)
        before = await stage.api.get(PODS, name, NS)
        found = await verified(stage, name)
        assert (found["result"], found["reasons"]) == ("unrouted", [])
        assert [one["verdict"] for one in found["nodes"]] == ["no-route"] * 3
        assert all(one["evidence"] and one["at"].startswith("20") for one in found["nodes"])
        assert found["epoch"] >= 1
        assert await stage.api.get(PODS, name, NS) == before

    play(story, UNGATED)


def test_the_coordinator_forgets_the_question():
    async def story(stage):
        name = await first(stage)
        await labelled(stage, name, app="test-offline")
        await verified(stage, name)
        from tidegate.observers.proxied import ProxiedCoordinator

        assert (await ProxiedCoordinator(stage.client).status())["drains"] == []

    play(story, UNGATED)


def test_a_frozen_proxy_is_a_route_and_its_node_is_named():
    async def story(stage):
        name = await first(stage)
        frozen = await other_node(stage, name)
        stage.fault("proxy-freeze", frozen, 60)
        await labelled(stage, name, app="test-offline")
        began = stage.now
        found = await verified(stage, name)
        assert found["result"] == "routed"
        assert {one["node"]: one["verdict"] for one in found["nodes"]}[frozen] == "route"
        assert [reason.partition(":")[0] for reason in found["reasons"]] == [frozen]
        assert 9 < stage.now - began < 12, "until the timeout, for it may let go"

    play(story, UNGATED)


def test_a_node_whose_agent_is_gone_makes_it_unknown_and_is_named():
    async def story(stage):
        name = await first(stage)
        silent = await other_node(stage, name)
        await labelled(stage, name, app="test-offline")
        await stage.api.delete(PODS, f"tidegate-agent-{silent}", "tidegate-system")
        await asyncio.sleep(35)
        began = stage.now
        found = await verified(stage, name, timeout_seconds=30)
        assert found["result"] == "unknown"
        assert [reason.partition(":")[0] for reason in found["reasons"]] == [silent]
        assert stage.now - began < 10, "who is silent is not waited for as long as who is behind"

    play(story, UNGATED)


def test_a_pod_cut_long_ago_is_verified_though_no_slice_was_ever_seen_with_it():
    from tidegate.client import VerbOptions
    from tidegate.client.cut import cut_pod

    async def story(stage):
        name = await first(stage)
        await cut_pod(stage.client, NS, name, VerbOptions(seed=0))
        await asyncio.sleep(200)
        assert (await verified(stage, name))["result"] == "unrouted"

    play(story, UNGATED)


def test_one_service_can_be_asked_about_while_another_still_sends():
    other = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "also", "namespace": NS},
        "spec": {"selector": {"tier": "web"}, "ports": [{"name": "http", "port": 81, "targetPort": 8080}]},
    }  # fmt: skip

    async def story(stage):
        await stage.api.create(SERVICES, other)
        name = await first(stage)
        await labelled(stage, name, tier="web")
        await asyncio.sleep(2)
        await labelled(stage, name, app="test-offline")
        assert (await verified(stage, name, service="echo"))["result"] == "unrouted"
        also = await verified(stage, name, service="also")
        assert also["result"] == "routed"
        assert also["services"] == ["demo/also"]
        assert (await verified(stage, name))["result"] == "routed"

    play(story, UNGATED)


def test_without_agents_it_is_assumed_at_best_and_says_what_to_install():
    async def story(stage):
        name = await first(stage)
        assert (await verified(stage, name))["result"] == "routed", "the slices list it"
        await labelled(stage, name, app="test-offline")
        await asyncio.sleep(1)
        found = await verified(stage, name, probes=10)
        assert found["result"] == "assumed"
        assert "install the node agents" in found["reasons"][0]
        assert "nothing was probed" in found["reasons"][1]

    play(story, UNGATED, addons=())


def test_an_unknown_pod_or_service_is_an_error():
    async def story(stage):
        for name, service in (("nope", ""), (await first(stage), "nope")):
            with pytest.raises(ApiError) as caught:
                await verified(stage, name, service=service)
            assert caught.value.is_not_found

    play(story, UNGATED)


# --- probes ---


def test_0_of_1000_from_every_node_reach_a_pod_that_was_cut():
    async def story(stage):
        name = await first(stage)
        await labelled(stage, name, app="test-offline")
        began = stage.now
        found = await verified(stage, name, probes=1000, service="echo")
        assert found["result"] == "unrouted"
        assert [one["node"] for one in found["probes"]] == ["node-1", "node-2", "node-3"]
        for one in found["probes"]:
            assert (one["probes"], one["opened"], one["reached"], one["unmatched"]) == (1000, 1000, 0, 0)
        assert stage.now - began < 10

    play(story, UNGATED)


def test_a_third_of_the_probes_reach_one_of_three_pods():
    async def story(stage):
        found = await verified(stage, await first(stage), probes=300)
        assert found["result"] == "routed"
        for one in found["probes"]:
            assert 60 < one["reached"] < 140, one
        assert sum("connections through" in reason for reason in found["reasons"]) == 3

    play(story, UNGATED)


def test_a_frozen_nodes_probes_reach_the_pod_and_its_node_is_named():
    async def story(stage):
        name = await first(stage)
        frozen = await other_node(stage, name)
        stage.fault("proxy-freeze", frozen, 60)
        await labelled(stage, name, app="test-offline")
        found = await verified(stage, name, probes=90, service="echo")
        reached = {one["node"]: one["reached"] for one in found["probes"]}
        assert found["result"] == "routed"
        assert reached == {node: reached[node] if node == frozen else 0 for node in reached}
        assert reached[frozen] > 10

    play(story, UNGATED)


def test_a_get_on_each_connection_shows_what_was_answered():
    async def story(stage):
        found = await verified(stage, await first(stage), probes=20, path="/healthz")
        assert all(one["statuses"] == {"200": 20} for one in found["probes"])
        missing = await verified(stage, await first(stage), path="/nope")
        assert all(one["statuses"] == {"404": 1} for one in missing["probes"])

    play(story, UNGATED)


def test_a_probe_through_nothing_is_not_called_a_proof():
    async def story(stage):
        name = await first(stage)
        await labelled(stage, name, app="test-offline")
        found = await verified(stage, name, probes=5)
        assert found["result"] == "unknown"
        assert found["reasons"][0].startswith("nothing was probed: no Service")

    play(story, UNGATED)


def test_every_node_port_is_tried_too():
    async def story(stage):
        spec = {"spec": {"type": "NodePort", "ports": [{"name": "http", "port": 8080, "nodePort": 30080}]}}
        await stage.api.patch(SERVICES, "echo", Patch(spec), NS)
        await asyncio.sleep(3)
        found = await verified(stage, await first(stage), probes=30)
        ways = {(one["via"], one["node"]) for one in found["probes"]}
        assert len(ways) == 6
        assert all(one["opened"] == 30 for one in found["probes"])

    play(story, UNGATED)


def test_a_service_without_endpoints_refuses_and_that_is_no_route():
    async def story(stage):
        name = await first(stage)
        await labelled(stage, name, app="test-offline")
        await stage.scale(0)
        for pod in await stage.pods():
            if pod["metadata"]["name"] != name:
                await stage.gone(pod["metadata"]["name"])
        await asyncio.sleep(3)
        found = await verified(stage, name, probes=50, service="echo")
        assert found["result"] == "unrouted"
        assert all((one["refused"], one["unmatched"]) == (50, 0) for one in found["probes"])

    play(story, UNGATED)


def test_the_probes_leave_no_connection_behind():
    async def story(stage):
        name = await first(stage)
        await verified(stage, name, probes=100)
        await asyncio.sleep(0.5)
        for node in ("node-1", "node-2", "node-3"):
            assert '"conntrack":[]' in (await stage.lab.lab.kernel.dump(node)).replace(" ", "")

    play(story, UNGATED)


def test_a_rollout_may_be_verified_while_it_runs_and_the_answer_is_never_a_false_no():
    """A pod that is being deleted stays listed as terminating: once every node has let go, that is no route."""

    async def story(stage):
        name = await first(stage)
        frozen = await node_of(stage, name)
        stage.fault("proxy-freeze", frozen, 12)
        await stage.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"replicas": 4}}), NS)
        await asyncio.sleep(3)
        await stage.delete(name)
        behind = await verified(stage, name, timeout_seconds=3)
        assert behind["result"] == "routed"
        assert {one["verdict"] for one in behind["nodes"] if one["node"] == frozen} == {"route"}
        await stage.gone(name)

    play(story, deployment(replicas=3))
