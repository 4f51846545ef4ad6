"""Zones: nodes are labelled, slices hinted, and each node's proxy keeps to its own while somebody is there."""

from __future__ import annotations

from tidegate.kube.api import ENDPOINTSLICES, NODES, PODS, SERVICES, Deletion, Patch, Selection

from .service_world import NS, play, pod

ZONE = "topology.kubernetes.io/zone"


async def three_pods(world):
    await world.pods(*(pod(f"p{index}", f"node-{index}") for index in (1, 2, 3)))


def test_nodes_are_dealt_out_to_zones_in_turn():
    async def story(world):
        nodes = (await world.api.list(NODES)).items
        return {one["metadata"]["name"]: one["metadata"]["labels"].get(ZONE) for one in nodes}

    zones = {"node-1": "zone-1", "node-2": "zone-2", "node-3": "zone-1", "node-4": "zone-2"}
    assert play(story, nodes=4, zones=2) == zones
    assert set(play(story, nodes=2).values()) == {None}


def test_a_scheduled_pod_carries_its_nodes_zone():
    async def story(world):
        one = pod("loose", "")
        del one["spec"]["nodeName"]
        await world.pods(one, pod("p2", "node-2"))
        found = (await world.api.list(PODS, Selection(NS))).items
        return {one["metadata"]["labels"][ZONE][-1] == one["spec"]["nodeName"][-1] for one in found}

    assert play(story, zones=3) == {True}


def test_prefer_close_keeps_to_the_zone_and_leaves_it_when_nobody_is_ready_there():
    async def story(world):
        await three_pods(world)
        spec = await world.service(trafficDistribution="PreferClose")
        near = {node: set(await world.ask_often(spec["clusterIP"], 8080, node)) for node in ("node-1", "node-2")}
        await world.api.delete(PODS, "p1", NS, Deletion(grace_seconds=1))
        await world.settled()
        return near, set(await world.ask_often(spec["clusterIP"], 8080, "node-1"))

    near, orphaned = play(story, zones=3)
    assert near == {"node-1": {"p1"}, "node-2": {"p2"}}
    assert orphaned == {"p2", "p3"}


def test_same_node_is_nearer_than_same_zone():
    async def story(world):
        await three_pods(world)
        spec = await world.service(trafficDistribution="PreferSameNode")
        return set(await world.ask_often(spec["clusterIP"], 8080, "node-3"))

    assert play(story, zones=1) == {"p3"}


def test_a_node_that_moves_to_another_zone_sends_there():
    async def story(world):
        await three_pods(world)
        spec = await world.service(trafficDistribution="PreferSameZone")
        await world.api.patch(NODES, "node-1", Patch({"metadata": {"labels": {ZONE: "zone-2"}}}))
        await world.settled()
        return set(await world.ask_often(spec["clusterIP"], 8080, "node-1"))

    assert play(story, zones=3) == {"p2"}


def test_without_zones_there_are_no_hints_and_everyone_is_asked():
    async def story(world):
        await three_pods(world)
        spec = await world.service(trafficDistribution="PreferClose")
        (one,) = (await world.api.list(ENDPOINTSLICES, Selection(NS, "kubernetes.io/service-name=web"))).items
        return [e.get("hints") for e in one["endpoints"]], set(await world.ask_often(spec["clusterIP"], 8080))

    assert play(story) == ([None, None, None], {"p1", "p2", "p3"})


def test_taking_the_field_away_takes_the_hints_away():
    async def story(world):
        await three_pods(world)
        spec = await world.service(trafficDistribution="PreferClose")
        await world.api.patch(SERVICES, "web", Patch({"spec": {"trafficDistribution": None}}), NS)
        await world.settled()
        return set(await world.ask_often(spec["clusterIP"], 8080))

    assert play(story, zones=3) == {"p1", "p2", "p3"}
