"""hostNetwork pods: the node's own address, probes, Services, and one of them per node and port."""

from __future__ import annotations

from tidegate.kube.api import DEPLOYMENTS, PODS, Deletion, Selection

from .service_world import NODES, NS, play, pod, request


def host_pod(name, node, is_ready=True):
    return pod(name, node, is_ready, hostNetwork=True)


def test_a_host_network_pod_listens_on_its_nodes_address():
    async def story(world):
        await world.pods(host_pod("h", "node-2"))
        status = (await world.api.get(PODS, "h", NS))["status"]
        answer = await request(NODES["node-2"], 8080)
        return status["podIP"], status["hostIP"], status["podIPs"], answer[0]

    address = NODES["node-2"]
    assert play(story) == (address, address, [{"ip": address}], 200)


def test_its_probes_decide_whether_a_service_sends_to_it():
    async def story(world):
        await world.pods(host_pod("well", "node-1"), host_pod("sick", "node-2", is_ready=False), pod("other", "node-3"))
        made = await world.service(type="NodePort")
        by_cluster_ip = set(await world.ask_often(made["clusterIP"], 8080, "node-3"))
        return by_cluster_ip, set(await world.ask_often(NODES["node-2"], made["ports"][0]["nodePort"], "node-3"))

    assert play(story) == ({"well", "other"}, {"well", "other"})


def test_a_second_one_with_the_same_port_waits_for_a_node_of_its_own():
    async def story(world):
        template = host_pod("x", "")
        template = {"metadata": template["metadata"], "spec": {**template["spec"]}}
        del template["spec"]["nodeName"]
        selector = {"matchLabels": {"app": "web"}}
        spec = {"replicas": 3, "selector": selector, "template": template}
        await world.api.create(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec}, NS)
        await world.settled()
        pods = (await world.api.list(PODS, Selection(NS))).items
        (waiting,) = [one for one in pods if not one["spec"].get("nodeName")]
        (condition,) = waiting["status"]["conditions"]
        placed = next(one for one in pods if one["spec"].get("nodeName"))
        await world.api.delete(PODS, placed["metadata"]["name"], NS, Deletion(grace_seconds=0))
        await world.settled()
        left = (await world.api.list(PODS, Selection(NS))).items
        nodes = sorted(one["spec"].get("nodeName", "") for one in left)
        return condition["message"].partition(". ")[0], nodes

    message, nodes = play(story, nodes=2)
    assert message == "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports"
    assert nodes == ["", "node-1", "node-2"]
