"""What a real kernel's rules are told of Services (kube-proxy v1.36 pkg/proxy/serviceport.go, topology.go)."""

from __future__ import annotations

import pytest

from tidegate.lab.proxy.rules import Place, entries, proxied_part, routed

from .proxy_world import endpoint, endpoint_slice, service

HERE, THERE, BOTH = "10.0.1.1:8080", "10.0.2.1:8080", ("10.0.1.1:8080", "10.0.2.1:8080")
NODE = Place("node-1")


def web(*endpoints, status=None, **spec):
    """The one entry of default/web, which has one endpoint on this node and one on another."""
    listed = endpoints or (endpoint("10.0.1.1"), endpoint("10.0.2.1", "node-2"))
    whole = service(**spec) | ({"status": status} if status else {})
    (entry,) = routed([whole], [endpoint_slice(*listed)], NODE)
    return entry


def balanced(**ingress):
    return {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", **ingress}]}}


def test_a_service_port_is_one_entry_whatever_its_policies():
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    entry = web(ports=ports, externalTrafficPolicy="Local", type="NodePort")
    assert (entry.cluster_ip, entry.node_port, entry.endpoints) == ("127.18.0.5", 30080, BOTH)
    routing = entry.routing
    assert (routing.cluster, routing.local, routing.here) == (BOTH, (HERE,), (HERE,))
    assert routing.is_external_local and not routing.is_internal_local and routing.is_reachable


def test_an_internal_policy_local_is_for_the_cluster_ip():
    entry = web(internalTrafficPolicy="Local")
    assert (entry.endpoints, entry.routing.cluster, entry.routing.local) == ((HERE,), (), (HERE,))


def test_local_without_an_endpoint_here_is_reachable_all_the_same():
    entry = web(endpoint("10.0.2.1", "node-2"), internalTrafficPolicy="Local")
    assert (entry.endpoints, entry.routing.is_reachable) == ((), True)


def test_an_external_policy_without_a_way_in_from_outside_is_none():
    assert not web(externalTrafficPolicy="Local").routing.is_external_local


def test_udp_is_for_a_real_kernel_alone():
    dns = service(ports=[{"name": "dns", "port": 53, "protocol": "UDP"}])
    slices = [endpoint_slice(endpoint("10.0.1.1"))]
    slices[0]["ports"] = [{"name": "dns", "port": 5353, "protocol": "UDP"}]
    (entry,) = routed([dns], slices, NODE)
    assert (entry.protocol, entry.endpoints) == ("UDP", ("10.0.1.1:5353",))
    assert entries([dns], slices, NODE) == ()


def test_serving_counts_what_terminates_and_not_what_is_gone():
    gone = endpoint("10.0.3.1", terminating=True, serving=False)
    entry = web(endpoint("10.0.1.1"), endpoint("10.0.2.1", terminating=True, ready=False), gone)
    assert (entry.endpoints, entry.routing.serving) == ((HERE,), BOTH)


def test_without_any_endpoint_it_is_unreachable():
    assert not web(endpoint("10.0.1.1", ready=False, serving=False)).routing.is_reachable


@pytest.mark.parametrize(
    "status, found",
    [
        (balanced(), ("192.0.2.1",)),
        (balanced(ipMode="VIP"), ("192.0.2.1",)),
        (balanced(ipMode="Proxy"), ()),
        (balanced(ip="2001:db8::1"), ()),
        ({"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}, ()),
    ],
)
def test_a_load_balancers_address_counts_where_packets_keep_it(status, found):
    assert web(status=status).routing.load_balancer_ips == found


def test_source_ranges_that_let_everybody_in_are_none():
    assert web(loadBalancerSourceRanges=[" 10.0.0.0/8 "]).routing.source_ranges == ("10.0.0.0/8",)
    assert web(loadBalancerSourceRanges=["10.0.0.0/8", "0.0.0.0/0"]).routing.source_ranges == ()


def test_a_load_balancers_address_makes_a_sync_and_any_other_status_does_not():
    plain = service()
    assert proxied_part(plain | {"status": {"conditions": [1]}}) == proxied_part(plain)
    assert proxied_part(plain | {"status": balanced()}) != proxied_part(plain)


def test_entries_of_a_relay_have_no_routing():
    (entry,) = entries([service()], [endpoint_slice(endpoint("10.0.1.1"))], NODE)
    assert not entry.routing
