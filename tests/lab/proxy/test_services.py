"""What Services do for real requests: NodePorts, traffic policies, affinity, headless and hand-written endpoints."""

from __future__ import annotations

import asyncio
import json

from tidegate.kube.api import ENDPOINTSLICES, EVENTS, PODS, SERVICES, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.lab.faults import Fault

from .service_world import NODES, NS, play, pod, request, service

OUTSIDE = "127.0.0.9"
"""A client that is no node and no pod."""


async def two_pods(world):
    await world.pods(pod("p1", "node-1"), pod("p2", "node-2"))


def node_port(made):
    return made["ports"][0]["nodePort"]


def test_a_node_port_answers_on_every_node_for_all_endpoints():
    async def story(world):
        await two_pods(world)
        port = node_port(await world.service(type="NodePort"))
        return [set(await world.ask_often(address, port, OUTSIDE)) for address in NODES.values()]

    assert play(story) == [{"p1", "p2"}] * 3


def test_external_traffic_policy_local_keeps_outsiders_to_the_nodes_own_pods():
    async def story(world):
        await two_pods(world)
        made = await world.service(type="NodePort", externalTrafficPolicy="Local")
        found = {node: set(await world.ask_often(NODES[node], node_port(made), OUTSIDE)) for node in NODES}
        found["by ClusterIP"] = set(await world.ask_often(made["clusterIP"], 8080))
        return found

    assert play(story) == {"node-1": {"p1"}, "node-2": {"p2"}, "node-3": {""}, "by ClusterIP": {"p1", "p2"}}


def test_a_local_node_port_sends_its_own_nodes_clients_anywhere():
    """kube-proxy short-circuits what comes from its own host and its pods, and nobody else's."""

    async def story(world):
        await two_pods(world)
        await world.pods(pod("p3", "node-3", labels={"app": "other"}))
        own_pod = (await world.api.get(PODS, "p3", NS))["status"]["podIP"]
        port = node_port(await world.service(type="NodePort", externalTrafficPolicy="Local"))
        of_node_3 = [set(await world.ask_often(NODES["node-3"], port, source)) for source in ("node-3", own_pod)]
        return of_node_3, set(await world.ask_often(NODES["node-1"], port, own_pod))

    assert play(story) == ([{"p1", "p2"}, {"p1", "p2"}], {"p1"})


def test_internal_traffic_policy_local_refuses_where_there_is_no_pod():
    async def story(world):
        await two_pods(world)
        made = await world.service(internalTrafficPolicy="Local")
        return {node: set(await world.ask_often(made["clusterIP"], 8080, node)) for node in NODES}

    assert play(story) == {"node-1": {"p1"}, "node-2": {"p2"}, "node-3": {""}}


def test_a_health_check_port_tells_load_balancers_which_nodes_have_endpoints():
    async def story(world):
        await two_pods(world)
        port = (await world.service(type="LoadBalancer", externalTrafficPolicy="Local"))["healthCheckNodePort"]
        return [await request(address, port, "/anything", OUTSIDE) for address in NODES.values()]

    (status, headers, body), _, (no_status, no_headers, no_body) = play(story)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert headers["x-load-balancing-endpoint-weight"] == "1"
    assert body == (
        '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n'
        '\t"localEndpoints": 1,\n\t"serviceProxyHealthy": true\n}'
    )
    assert (no_status, no_headers["x-load-balancing-endpoint-weight"]) == (503, "0")
    assert json.loads(no_body)["localEndpoints"] == 0


def test_a_cut_pod_no_longer_counts_in_its_nodes_health_check():
    async def story(world):
        await two_pods(world)
        port = (await world.service(type="LoadBalancer", externalTrafficPolicy="Local"))["healthCheckNodePort"]
        await world.api.patch(PODS, "p1", Patch({"metadata": {"labels": {"app": "cut"}}}), NS)
        await world.settled()
        return [(await request(NODES[node], port, "/", OUTSIDE))[0] for node in ("node-1", "node-2")]

    assert play(story) == [503, 200]


def test_the_proxy_answers_health_checks_and_the_kernel_forwards():
    async def story(world):
        await two_pods(world)
        made = await world.service(type="LoadBalancer", externalTrafficPolicy="Local")
        world.lab.lab.faults.apply(Fault("proxy-kill", "node-1", 0))
        await world.settled()
        dead = (await request(NODES["node-1"], made["healthCheckNodePort"], "/", OUTSIDE))[0]
        forwarded = await world.ask(NODES["node-1"], node_port(made), OUTSIDE)
        world.lab.lab.faults.apply(Fault("proxy-restart", "node-1"))
        await world.settled()
        return dead, forwarded, (await request(NODES["node-1"], made["healthCheckNodePort"], "/", OUTSIDE))[0]

    assert play(story) == (0, "p1", 200)


def test_a_health_check_port_goes_with_its_policy():
    async def story(world):
        await two_pods(world)
        port = (await world.service(type="LoadBalancer", externalTrafficPolicy="Local"))["healthCheckNodePort"]
        await world.api.patch(SERVICES, "web", Patch({"spec": {"externalTrafficPolicy": "Cluster"}}), NS)
        await world.settled()
        return (await request(NODES["node-1"], port, "/", OUTSIDE))[0]

    assert play(story) == 0


def test_a_health_check_port_that_is_taken_gets_an_event():
    async def story(world):
        await two_pods(world)

        async def nobody(reader, writer):
            writer.close()

        await asyncio.start_server(nobody, NODES["node-2"], 32001)
        await world.service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=32001)
        events = (await world.api.list(EVENTS, Selection(NS))).items
        return [(one["reason"], one["message"]) for one in events if one["involvedObject"]["kind"] == "Service"]

    ((reason, message),) = play(story)
    assert reason == "FailedToStartServiceHealthcheck"
    assert message.startswith('node node-2 failed to start healthcheck "default/web" on port 32001: ')


def test_client_ip_affinity_sends_a_client_to_one_pod_until_it_has_been_silent():
    async def story(world):
        await two_pods(world)
        timeout = {"clientIP": {"timeoutSeconds": 30}}
        made = await world.service(sessionAffinity="ClientIP", sessionAffinityConfig=timeout, type="NodePort")

        by_client = [set(await world.ask_often(made["clusterIP"], 8080, f"127.0.1.{index}")) for index in range(12)]
        returns = set()
        for _ in range(20):
            await asyncio.sleep(31)
            returns.add(await world.ask(made["clusterIP"], 8080, "127.0.1.1"))
        return by_client, returns

    by_client, returns = play(story, limit=2000)
    assert {len(pods) for pods in by_client} == {1}
    assert set().union(*by_client) == {"p1", "p2"}
    assert returns == {"p1", "p2"}


def test_affinity_ends_with_its_pod():
    async def story(world):
        await two_pods(world)
        made = await world.service(sessionAffinity="ClientIP")
        mine = await world.ask(made["clusterIP"], 8080)
        await world.api.patch(PODS, mine, Patch({"metadata": {"labels": {"app": "cut"}}}), NS)
        await world.settled()
        return mine, await world.ask(made["clusterIP"], 8080)

    mine, then = play(story)
    assert {mine, then} == {"p1", "p2"}


def test_a_headless_service_has_slices_and_nothing_in_a_kernel():
    async def story(world):
        await two_pods(world)
        made = await world.service(clusterIP="None")
        (one,) = (await world.api.list(ENDPOINTSLICES, Selection(NS, "kubernetes.io/service-name=web"))).items
        dump = json.loads(await world.lab.lab.kernel.dump("node-1"))
        addresses = [endpoint["addresses"][0] for endpoint in one["endpoints"]]
        answers = sorted([await world.ask(address, 8080) for address in addresses])
        return made["clusterIP"], one["metadata"]["labels"], answers, [e["name"] for e in dump["services"]]

    cluster_ip, labels, answers, known = play(story)
    assert cluster_ip == "None"
    assert labels["service.kubernetes.io/headless"] == ""
    assert answers == ["p1", "p2"]
    assert "web" not in known


def hand_written(address, **changes):
    return {
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], **changes}],
    }


def test_a_service_without_a_selector_sends_where_its_hand_written_slice_says():
    async def story(world):
        await two_pods(world)
        address = (await world.api.get(PODS, "p2", NS))["status"]["podIP"]
        await world.api.create(ENDPOINTSLICES, hand_written(address), NS)
        made = await world.service(selector=None)
        first = set(await world.ask_often(made["clusterIP"], 8080))
        unready = hand_written(address, conditions={"ready": False})
        await world.api.patch(ENDPOINTSLICES, "by-hand", Patch({"endpoints": unready["endpoints"]}), NS)
        await world.settled()
        slices = (await world.api.list(ENDPOINTSLICES, Selection(NS, "kubernetes.io/service-name=web"))).items
        return first, set(await world.ask_often(made["clusterIP"], 8080)), len(slices)

    assert play(story) == ({"p2"}, {""}, 1)


def test_a_service_without_a_selector_gets_its_event_below_port_1024_too(monkeypatch):
    from .test_unbound_services import refuse_low_ports, told

    refuse_low_ports(monkeypatch)

    async def story(world):
        await world.service(selector=None, ports=[{"port": 80}])
        return [(reason, name) for _, reason, name, _ in await told(world.api)]

    assert play(story) == [("CannotListen", "web")]


def test_publishing_addresses_that_are_not_ready_sends_requests_there():
    async def story(world):
        await world.pods(pod("p1", "node-1"), pod("sick", "node-2", is_ready=False))
        made = await world.service()
        before = set(await world.ask_often(made["clusterIP"], 8080))
        await world.api.patch(SERVICES, "web", Patch({"spec": {"publishNotReadyAddresses": True}}), NS)
        await world.settled()
        return before, set(await world.ask_often(made["clusterIP"], 8080))

    assert play(story) == ({"p1"}, {"p1", "sick"})


def test_a_node_port_is_refused_outside_its_range():
    async def story(world):
        try:
            await world.api.create(SERVICES, service(type="NodePort", ports=[{"port": 8080, "nodePort": 80}]), NS)
        except ApiError as error:
            return error.message

    assert "The range of valid ports is 30000-32767" in play(story)
