"""What real packets do under the rules of a lab's node."""

from __future__ import annotations

import pytest

from tidegate.lab.network.ruleset import node_rules
from tidegate.lab.network.seam import IPTABLES_1_36, NFT_1_30, NFT_1_36

from .packets_world import CLIENT, ENDPOINTS, NODE, PLACE, PODS, VIP, entry, flow, world
from .rules_world import needs_root

pytestmark = needs_root()


@pytest.fixture(scope="module")
def places():
    with world() as made:
        yield made


NFT = [NFT_1_36, NFT_1_30]


@pytest.fixture(params=[*NFT, IPTABLES_1_36])
def shape(request):
    return request.param


@pytest.fixture
async def stage(places, shape):
    """The world, freshly answering, and the rules of its node."""
    async with places as answering:
        yield answering, node_rules(shape, answering.node.run, PLACE)


async def test_a_cluster_ip_leads_to_every_endpoint_from_the_node_its_pods_and_outside(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS),))
    for place in (on.node, on.pods[0], on.client):
        assert await on.whos(place) == set(PODS)


async def test_a_pod_reaches_itself_by_its_service(stage):
    on, rules = stage
    await rules.commit((entry(ENDPOINTS[0]),))
    assert await on.whos(on.pods[0], 3) == {PODS[0]}


async def test_client_ip_affinity_sticks_until_the_endpoint_leaves(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS, affinity_seconds=60),))
    (first,) = await on.whos(on.client)
    other = next(pod for pod in PODS if pod != first)
    await rules.commit((entry(*ENDPOINTS, affinity_seconds=60, node_port=30080),))  # a change elsewhere forgets nobody
    assert await on.whos(on.client) == {first}
    await rules.commit((entry(f"{other}:8080", affinity_seconds=60),))
    assert await on.whos(on.client) == {other}


async def test_an_open_connection_survives_the_removal_of_its_endpoint_and_new_ones_go_elsewhere(stage):
    on, rules = stage
    await rules.commit((entry(ENDPOINTS[0]),))
    reader, writer, name = await on.dial(on.client)
    await rules.commit((entry(ENDPOINTS[1]),))
    writer.write(b"still there?\n")
    assert (name, await reader.readline()) == (PODS[0], b"still there?\n")
    assert await on.whos(on.client, 8) == {PODS[1]}
    writer.close()


async def test_udp_flows_move_when_their_endpoint_serves_no_longer(stage):
    on, rules = stage
    await rules.commit((entry(ENDPOINTS[0], port=53, protocol="UDP"),))
    async with flow(on.client) as from_outside, flow(on.pods[1]) as from_pod:
        assert (await from_outside(), await from_pod()) == (PODS[0], PODS[0])
        await rules.commit((entry(ENDPOINTS[1], port=53, protocol="UDP"),))
        assert (await from_outside(), await from_pod()) == (PODS[1], PODS[1])


async def test_udp_flows_stay_with_an_endpoint_that_terminates_and_serves(stage):
    on, rules = stage
    await rules.commit((entry(ENDPOINTS[0], port=53, protocol="UDP"),))
    async with flow(on.client) as ask:
        assert await ask() == PODS[0]
        await rules.commit((entry(ENDPOINTS[1], port=53, protocol="UDP", serving=ENDPOINTS),))
        assert await ask() == PODS[0]
    async with flow(on.client) as ask:
        assert await ask() == PODS[1]


async def test_udp_flows_stay_where_they_are_while_nobody_serves(stage):
    on, rules = stage
    await rules.commit((entry(ENDPOINTS[0], port=53, protocol="UDP"),))
    async with flow(on.client) as ask:
        assert await ask() == PODS[0]
        await rules.commit((entry(port=53, protocol="UDP"),))
        assert await ask() == PODS[0]


async def test_without_endpoints_a_connection_is_refused_at_once(stage):
    on, rules = stage
    await rules.commit((entry(node_port=30080, external_ips=("192.0.2.10",)),))
    for place in (on.node, on.pods[0], on.client):
        with pytest.raises(ConnectionRefusedError):
            await on.who(place)
    for host, port in ((NODE, 30080), ("192.0.2.10", 80)):
        with pytest.raises(ConnectionRefusedError):
            await on.who(on.client, port, host)


async def test_a_local_node_port_without_local_endpoints_drops_strangers_and_serves_its_own_node(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS, node_port=30080, is_external_local=True, local=()),))
    with pytest.raises(TimeoutError):
        await on.who(on.client, 30080, NODE)
    assert await on.whos(on.node, port=30080, host=NODE) == set(PODS)
    assert await on.whos(on.pods[0], port=30080, host=NODE) == set(PODS)


async def test_a_local_node_port_keeps_the_clients_address_and_to_its_own_endpoints(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS, node_port=30080, is_external_local=True, local=ENDPOINTS[:1]),))
    assert await on.whos(on.client, 8, port=30080, host=NODE) == {PODS[0]}
    flows = on.node.call(["conntrack", "-L", "-p", "tcp", "--orig-port-dst", "30080"]).decode()
    assert f"src={PODS[0]} dst={CLIENT}" in flows


@pytest.mark.parametrize("shape", NFT)
async def test_a_node_port_is_the_nodes_address_alone(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS, node_port=30080),))
    assert await on.whos(on.client, port=30080, host=NODE) == set(PODS)
    for host in ("127.0.0.1", PODS[0]):
        with pytest.raises(ConnectionRefusedError):
            await on.who(on.node, 30080, host)


@pytest.mark.parametrize("shape", [IPTABLES_1_36])
async def test_with_iptables_a_node_port_is_every_address_of_the_node_and_127_0_0_1_for_itself_alone(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS, node_port=30080),))
    for place, host in ((on.client, NODE), (on.node, "127.0.0.1")):
        assert await on.whos(place, port=30080, host=host) == set(PODS)


async def test_a_load_balancers_address_takes_its_source_ranges_alone(stage):
    on, rules = stage
    balanced = {"load_balancer_ips": ("192.0.2.10",), "source_ranges": ("10.77.0.0/24",)}
    await rules.commit((entry(*ENDPOINTS, **balanced),))
    assert await on.whos(on.client, host="192.0.2.10") == set(PODS)
    with pytest.raises(TimeoutError):
        await on.who(on.pods[0], host="192.0.2.10")


@pytest.mark.parametrize("shape", NFT)
async def test_another_port_of_a_cluster_ip_is_refused(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS),))
    with pytest.raises(ConnectionRefusedError):
        await on.who(on.client, 81)


async def test_a_service_that_is_gone_is_nobodys(stage):
    on, rules = stage
    await rules.commit((entry(*ENDPOINTS), entry(*ENDPOINTS, name="other", cluster_ip="10.96.1.2")))
    await rules.commit((entry(*ENDPOINTS, name="other", cluster_ip="10.96.1.2"),))
    with pytest.raises(OSError):
        await on.who(on.client, host=VIP)
    assert await on.whos(on.client, host="10.96.1.2") == set(PODS)
