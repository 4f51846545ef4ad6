"""Dumps of real kube-proxies (1.36 nftables and iptables, 1.30 nftables) say what the slices of their moment say."""

from __future__ import annotations

import golden_dumps as dumps
import pytest
import simple_walk as simple

from tidegate.dataplane import conntrack, iptables, nft
from tidegate.dataplane.dumps import format_of, read
from tidegate.dataplane.frontends import Asking
from tidegate.model.endpoint import Endpoint

NFT = [name for name in dumps.names("nft-json") if "nftables" in name]
NFT_TEXT = [name for name in dumps.names("nft") if "nftables" in name]
IPTABLES = dumps.names("iptables-save")


@pytest.mark.parametrize("name", NFT)
def test_nft_json_routes_what_the_slices_say(name):
    facts = nft.parse(dumps.text(name), "n1")
    assert facts.unreadable == ()
    assert dumps.shown(facts.routes) == dumps.truth(name, "nft-json")


@pytest.mark.parametrize("name", NFT_TEXT)
def test_nft_text_routes_what_the_slices_say(name):
    facts = nft.parse_text(dumps.text(name), "n1")
    assert facts.unreadable == ()
    assert dumps.shown(facts.routes) == dumps.truth(name, "nft")


@pytest.mark.parametrize("name", NFT_TEXT)
def test_nft_text_and_json_are_the_same(name):
    assert nft.parse_text(dumps.text(name)).routes == nft.parse(dumps.text(f"{name}-json")).routes


@pytest.mark.parametrize("name", IPTABLES)
def test_iptables_save_routes_what_the_slices_say(name):
    facts = iptables.parse(dumps.text(name), "n1")
    assert facts.unreadable == ()
    assert dumps.shown(facts.routes) == dumps.truth(name, "iptables-save")


@pytest.mark.parametrize("name", [*NFT, *IPTABLES])
def test_asked_about_one_endpoint_it_says_what_the_whole_says(name):
    parse = nft.parse if name in NFT else iptables.parse
    whole = parse(dumps.text(name))
    for last in (11, 12, 13, 21, 22):
        for protocol in ("TCP", "UDP"):
            endpoint = Endpoint(f"10.244.1.{last}", 8080, protocol)
            asked = parse(dumps.text(name), asking=Asking(endpoints=(endpoint,)))
            expected = [str(route) for route in whole.routes_to(endpoint)]
            assert [str(route) for route in asked.routes] == expected
            assert all(route.endpoints == (endpoint,) for route in asked.routes)


@pytest.mark.parametrize("name", [*NFT, *IPTABLES])
def test_the_simple_interpreter_agrees_packet_by_packet(name):
    dump = dumps.text(name)
    through, facts = (
        (simple.through_nft, nft.parse(dump)) if name in NFT else (simple.through_iptables, iptables.parse(dump))
    )
    routes = dumps.shown(facts.routes)
    for address in ("10.96.0.1", "10.96.1.1", "10.96.1.2", "10.96.1.3", "10.96.1.4", "192.0.2.10", "10.244.1.11"):
        for port in (53, 80, 443, 8080):
            for protocol in ("TCP", "UDP"):
                packet = simple.Packet(address, protocol.lower(), port)
                assert through(dump, packet) == routes.get((address, port, protocol), set()), packet
    for port in (30080, 30081):
        packet = simple.Packet("10.77.0.2", "tcp", port)
        assert through(dump, packet) == routes.get(("node-port", port, "TCP"), set())


def test_the_ip6_half_of_a_node_without_ipv6_services_routes_nothing():
    facts = iptables.parse(dumps.text("v1.36.2-iptables-f-nodeport-sessionaffinity-ip6tables-save"))
    assert (facts.dump, facts.routes, facts.unreadable) == ("iptables-save IPv6", (), ())


@pytest.mark.parametrize("name", [name for name in dumps.names("nft-json") if "iptables" in name])
def test_rules_of_iptables_as_nft_prints_them_are_unreadable_by_chain_and_handle(name):
    facts = nft.parse(dumps.text(name))
    assert facts.routes == ()
    assert "table ip nat, chain KUBE-SEP-" in str(facts.unreadable[0])
    assert "iptables target DNAT, which nft does not print: read iptables-save" in str(facts.unreadable[0])


def test_rules_of_iptables_as_nft_prints_them_without_json_are_unreadable_too():
    """nft 1.0.6 prints their DNAT as nothing at all."""
    facts = nft.parse_text(dumps.text("v1.36.2-iptables-f-nodeport-sessionaffinity-nft"))
    assert facts.routes == ()
    assert "an iptables expression that nft does not print" in str(facts.unreadable[0])


def test_tables_that_iptables_save_was_asked_for_are_left_to_it():
    dump = dumps.text("v1.36.2-iptables-a-3ready-nft-json")
    facts = nft.parse(dump, asking=Asking(elsewhere=frozenset({"ip nat", "ip6 nat"})))
    assert (facts.routes, facts.unreadable) == ((), ())


def test_udp_flows_are_bound_to_their_pod_and_tcp_is_counted_by_state():
    facts = conntrack.parse(dumps.text("v1.36.2-nftables-g-udp-conntrack"), "n1")
    assert facts.unreadable == ()
    flows = [one for one in facts.tracked if one.protocol == "UDP"]
    assert sorted({str(one.endpoint) for one in flows}) == ["10.244.1.21:8080", "10.244.1.22:8080"]
    assert {str(one.destination) for one in flows} == {"10.96.1.3:53"}
    assert all(one.is_opening for one in flows)
    assert {one.state for one in facts.tracked if one.protocol == "TCP"} == {"ESTABLISHED"}


def test_after_dns_1_left_no_flow_of_it_is_left():
    facts = conntrack.parse(dumps.text("v1.36.2-nftables-g2-udp-1left-conntrack"))
    assert facts.opening_to(Endpoint("10.244.1.21", 8080, "UDP")) == ()
    assert len(facts.opening_to(Endpoint("10.244.1.22", 8080, "UDP"))) == 2


@pytest.mark.parametrize("kind", ["nft-json", "nft", "iptables-save", "ip6tables-save", "conntrack"])
def test_the_format_is_told_by_how_a_dump_begins(kind):
    for name in dumps.names(kind):
        expected = "iptables-save" if kind == "ip6tables-save" else kind
        assert format_of(dumps.text(name)) == expected
        assert read(dumps.text(name)) == read(dumps.text(name), expected)
