"""Which endpoints of which Services a node's kernel is given (kube-proxy v1.36 pkg/proxy)."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.lab.kernel.tables import Table
from tidegate.lab.proxy import rules
from tidegate.lab.proxy.rules import Categories, Endpoint, Place, Policy, categorize, entries

from .proxy_world import endpoint, endpoint_slice, service

NODE = Place("node-1")
CLUSTER = Policy()


def targets(*slices, **spec) -> tuple[str, ...]:
    """Endpoints of default/web's one entry."""
    (entry,) = entries([service(**spec)], slices, NODE)
    return entry.endpoints


def test_ready_endpoints_of_all_slices_are_used_in_one_order():
    slices = [
        endpoint_slice(endpoint("127.17.2.1"), name="web-b"),
        endpoint_slice(endpoint("127.17.1.1"), endpoint("127.17.1.2", ready=False), name="web-a"),
    ]
    assert targets(*slices) == targets(*reversed(slices)) == ("127.17.1.1:8080", "127.17.2.1:8080")


def test_a_terminating_endpoint_is_not_used_while_another_is_ready():
    assert targets(endpoint_slice(endpoint("1.1.1.1", terminating=True), endpoint("1.1.1.2"))) == ("1.1.1.2:8080",)


def test_when_none_is_ready_those_terminating_and_still_serving_are_used():
    slices = endpoint_slice(
        endpoint("1.1.1.1", terminating=True),
        endpoint("1.1.1.2", terminating=True, serving=False),
        endpoint("1.1.1.3", ready=False, serving=False),
    )
    assert targets(slices) == ("1.1.1.1:8080",)


def test_an_endpoint_without_conditions_is_ready():
    bare = endpoint_slice({"addresses": ["1.1.1.1"], "conditions": {}})
    assert targets(bare) == ("1.1.1.1:8080",)


def test_a_service_without_endpoints_still_has_an_entry():
    assert targets() == ()


def test_a_service_without_selector_is_proxied_like_any_other():
    fence = service("fence", "127.18.0.9")
    (entry,) = entries([fence], [endpoint_slice(endpoint("198.18.0.7"), of="fence", port=7001)], NODE)
    assert entry.endpoints == ("198.18.0.7:7001",)


def test_ports_are_matched_by_name_not_by_number():
    two = service(ports=[{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}])
    found = entries([two], [endpoint_slice(endpoint("1.1.1.1"))], NODE)
    assert [(one.port_name, one.port, one.endpoints) for one in found] == [
        ("http", 80, ("1.1.1.1:8080",)),
        ("metrics", 9090, ()),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"clusterIP": "None"}},
        {"spec": {"type": "ExternalName"}},
        {"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "mine"}}},
        {"metadata": {"labels": {"service.kubernetes.io/headless": ""}}},
    ],
)
def test_headless_external_and_foreign_services_are_left_alone(change):
    one = service()
    for part, fields in change.items():
        one[part].update(fields)
    assert entries([one], [endpoint_slice(endpoint("1.1.1.1"))], NODE) == ()


def test_udp_ports_are_left_out():
    assert entries([service(ports=[{"name": "dns", "port": 53, "protocol": "UDP"}])], [], NODE) == ()


def test_internal_policy_local_uses_only_this_nodes_endpoints():
    slices = endpoint_slice(endpoint("1.1.1.1", "node-1"), endpoint("1.1.1.2", "node-2"))
    assert targets(slices, internalTrafficPolicy="Local") == ("1.1.1.1:8080",)


def test_local_policy_falls_back_to_a_terminating_endpoint_though_another_node_has_a_ready_one():
    slices = endpoint_slice(endpoint("1.1.1.1", "node-1", terminating=True), endpoint("1.1.1.2", "node-2"))
    assert targets(slices, internalTrafficPolicy="Local") == ("1.1.1.1:8080",)


def test_external_policy_local_splits_the_node_port_from_the_cluster_ip():
    spec = {"type": "NodePort", "externalTrafficPolicy": "Local"}
    one = service(ports=[{"name": "http", "port": 80, "nodePort": 30080}], **spec)
    slices = [endpoint_slice(endpoint("1.1.1.1", "node-1"), endpoint("1.1.1.2", "node-2"))]
    inner, outer = entries([one], slices, NODE)
    assert (inner.cluster_ip, inner.node_port) == ("127.18.0.5", 0)
    assert inner.endpoints == ("1.1.1.1:8080", "1.1.1.2:8080")
    assert (outer.cluster_ip, outer.node_port, outer.endpoints) == ("", 30080, ("1.1.1.1:8080",))
    Table([inner, outer])


def test_client_ip_affinity_lasts_three_hours_unless_said_otherwise():
    (default,) = entries([service(sessionAffinity="ClientIP")], [], NODE)
    config = {"clientIP": {"timeoutSeconds": 60}}
    (minute,) = entries([service(sessionAffinity="ClientIP", sessionAffinityConfig=config)], [], NODE)
    assert (default.affinity_seconds, minute.affinity_seconds) == (10_800, 60)


def test_an_endpoint_in_two_slices_counts_once():
    slices = [endpoint_slice(endpoint("1.1.1.1"), name=name) for name in ("web-a", "web-b")]
    assert targets(*slices) == ("1.1.1.1:8080",)


def hinted(address: str, node: str = "", zone: str = "", ready: bool = True) -> Endpoint:
    nodes, zones = frozenset({node} if node else ()), frozenset({zone} if zone else ())
    return Endpoint(address, ready, True, not ready, False, nodes, zones)


@pytest.mark.parametrize(
    ("known", "used"),
    [
        ((hinted("a", "node-1"), hinted("b", "node-2")), ("a",)),
        ((hinted("a", "node-3"), hinted("b", "node-2")), ("a", "b")),
        ((hinted("a", "node-1"), hinted("b")), ("a", "b")),
        ((hinted("a", zone="z1"), hinted("b", zone="z2")), ("a",)),
        ((hinted("a", "node-1", ready=False), hinted("b", "node-2")), ("b",)),
        ((hinted("a", "node-1", ready=False),), ("a",)),
    ],
)
def test_hints_are_heeded_only_when_every_ready_endpoint_has_one_and_one_is_for_here(known, used):
    assert categorize(known, CLUSTER, Place("node-1", "z1")).cluster == used


endpoint_lists = st.lists(
    st.builds(
        Endpoint,
        address=st.sampled_from("abcdef"),
        is_ready=st.booleans(),
        is_serving=st.booleans(),
        is_terminating=st.booleans(),
        is_local=st.booleans(),
    ),
    unique_by=lambda one: one.address,
).map(tuple)
policies = st.builds(
    Policy,
    is_internal_local=st.booleans(),
    is_external_local=st.booleans(),
    is_externally_accessible=st.booleans(),
)


@given(endpoint_lists, policies)
def test_a_terminating_endpoint_is_used_only_where_nothing_is_ready(known, policy):
    found = categorize(known, policy, NODE)
    by_address = {one.address: one for one in known}
    for used, pool in ((found.cluster, known), (found.local, [one for one in known if one.is_local])):
        ready = [one.address for one in pool if one.is_ready]
        assert not used or list(used) == ready or not ready
        assert all(by_address[address].is_ready or by_address[address].is_lame_duck for address in used)
    assert policy.uses_cluster or found.cluster == ()
    assert policy.uses_local or found.local == ()
    assert policy.uses_cluster or policy.uses_local or found == Categories()


def test_what_a_sync_does_not_depend_on_is_not_part_of_it():
    one = endpoint_slice(endpoint("1.1.1.1"))
    other = copy.deepcopy(one)
    other["metadata"]["annotations"] = {"endpoints.kubernetes.io/last-change-trigger-time": "now"}
    assert rules.proxied_part(one) == rules.proxied_part(other)
    other["endpoints"][0]["conditions"]["ready"] = False
    assert rules.proxied_part(one) != rules.proxied_part(other)
