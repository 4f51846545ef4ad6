"""nft rule sets: only what a packet can reach is a route, and what is not understood on its way is unreadable."""

from __future__ import annotations

import json

import pytest
from rulesets import (
    DADDR,
    FENCE,
    L4PROTO,
    WEB,
    dnat,
    dnat_to_one_of,
    equal,
    goto,
    jump,
    kube_proxy,
    nft,
    table,
    to_frontend,
)

from tidegate.dataplane.frontends import Asking
from tidegate.dataplane.nft import parse, parse_text
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

POD, OTHER = Endpoint("10.244.1.11", 8080), Endpoint("10.244.1.12", 8080)
EPOCH = Epoch("k3f9", 41)
VIP = ("10.96.1.1", "tcp", 80)
FENCE_IP = ("10.96.0.9", "tcp", 1)
TO_POD = dnat("10.244.1.11", 8080)
TO_OTHER = dnat("10.244.1.12", 8080)
UNKNOWN = {"frobnicate": {"harder": True}}


def web(*rules, extra=None, **more):
    return kube_proxy({WEB: (VIP, list(rules))}, extra, **more)


def fence(*endpoints):
    return kube_proxy({FENCE: (FENCE_IP, [[dnat_to_one_of(*endpoints)]])})


def shown(epoch):
    return epoch.endpoint4().address, epoch.endpoint4().port


def routes(facts):
    return {str(route): [str(endpoint) for endpoint in route.endpoints] for route in facts.routes}


def test_a_chain_that_nothing_leads_to_is_no_route():
    stale = {"endpoint-7FUMELAF-default/web/tcp/http__10.244.1.11/8080": [[TO_POD]]}
    facts = parse(nft(web([TO_OTHER], extra=stale)))
    assert facts.routes_to(POD) == ()
    assert [str(route) for route in facts.routes_to(OTHER)] == ["default/web:http (cluster-ip 10.96.1.1:80/TCP)"]


def test_an_emptied_chain_with_the_pod_in_its_name_is_no_route():
    """kube-proxy flushes the chain of an endpoint that left, and deletes it in a later sync (kernels before 6.2)."""
    emptied = "endpoint-7FUMELAF-default/web/tcp/http__10.244.1.11/8080"
    live = "endpoint-IT6PTZ7B-default/web/tcp/http__10.244.1.12/8080"
    pick = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
    rows = {"set": [[0, goto(emptied)], [1, goto(live)]]}
    facts = parse(nft(web([{"vmap": {"key": pick, "data": rows}}], extra={emptied: [], live: [[TO_OTHER]]})))
    assert routes(facts) == {"default/web:http (cluster-ip 10.96.1.1:80/TCP)": [str(OTHER)]}
    assert facts.unreadable == ()


def test_a_name_that_tells_another_pod_counts_for_nothing():
    lying = "endpoint-IT6PTZ7B-default/web/tcp/http__10.244.1.12/8080"
    facts = parse(nft(web([goto(lying)], extra={lying: [[TO_POD]]})))
    assert facts.routes_to(POD)
    assert not facts.routes_to(OTHER)


def test_a_hook_of_another_table_is_traced_too():
    portmap = table(
        {
            "prerouting": [[equal({"fib": {"result": "type", "flags": "daddr"}}, "local"), jump("hostports")]],
            "hostports": [[*to_frontend("10.77.0.2", "tcp", 8443), TO_POD]],
        },
        name="cni_hostport",
    )
    facts = parse(nft(web([TO_OTHER]), portmap))
    assert routes(facts)["dnat 10.77.0.2:8443/TCP"] == [str(POD)]


def test_an_inet_table_is_traced_for_both_families():
    ip6 = {"payload": {"protocol": "ip6", "field": "daddr"}}
    both = {
        "output": [
            [equal(DADDR, "10.96.1.1"), {"dnat": {"family": "ip", "addr": "10.244.1.11", "port": 8080}}],
            [equal(ip6, "fd00::1"), {"dnat": {"family": "ip6", "addr": "fd01::11", "port": 8080}}],
        ]
    }
    facts = parse(nft(table(both, family="inet", hook=("output",))))
    assert facts.unreadable == ()
    assert facts.routes_to(POD)
    assert facts.routes_to(Endpoint("fd01::11", 8080))


@pytest.mark.parametrize(
    "expressions",
    [
        [UNKNOWN, TO_OTHER],
        [equal({"payload": {"protocol": "geneve", "field": "vni"}}, 7), TO_OTHER],
        [{"dnat": {"addr": {"frob": 1}}}],
        [{"dnat": {"addr": "10.244.1.11", "port": 80800}}],
        [{"tproxy": {"port": 5}}],
        [{"queue": {"num": 0}}],
        [{"mangle": {"key": DADDR, "value": "10.244.1.11"}}],
        [equal(DADDR, "@gone"), TO_OTHER],
        [equal(DADDR, "ten.dot.something"), TO_OTHER],
        [jump("nowhere")],
        ["not an object"],
        [{"two": 1, "keys": 2}],
    ],
)
def test_what_is_not_understood_on_a_path_is_unreadable_by_table_chain_and_handle(expressions):
    facts = parse(nft(web(expressions)))
    assert len(facts.unreadable) == 1
    assert facts.unreadable[0].where == f"table ip kube-proxy, chain {WEB}, handle 103"


@pytest.mark.parametrize(
    "extra",
    [
        {"stale": [[UNKNOWN], [jump("nowhere")]]},
        {"filter-input": [[UNKNOWN]]},
        {"services2": [[{"vmap": {"key": DADDR, "data": "@gone"}}]]},
    ],
)
def test_what_is_not_understood_off_every_path_does_not_block(extra):
    facts = parse(nft(web([TO_OTHER], extra=extra)))
    assert facts.unreadable == ()


def test_what_an_earlier_rule_shadows_is_no_path():
    facts = parse(nft(web([TO_OTHER], [TO_POD], [UNKNOWN])))
    assert facts.unreadable == ()
    assert not facts.routes_to(POD)


def test_a_rule_that_only_some_packets_match_shadows_nothing():
    from_pods = equal({"payload": {"protocol": "ip", "field": "saddr"}}, {"prefix": {"addr": "10.244.0.0", "len": 16}})
    facts = parse(nft(web([from_pods, TO_OTHER], [TO_POD])))
    assert facts.routes_to(POD)
    assert facts.routes_to(OTHER)


def test_a_chain_that_returns_goes_on_where_it_was_jumped_from():
    facts = parse(
        nft(
            web(
                [jump("mark")], [TO_POD], extra={"mark": [[{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}]]}
            )
        )
    )
    assert facts.routes_to(POD)


def test_a_goto_gives_nothing_back_when_its_chain_keeps_the_packet():
    extra = {"a": [[goto("b")], [TO_POD]], "b": [[TO_OTHER]]}
    assert not parse(nft(web([jump("a")], [TO_POD], extra=extra))).routes_to(POD)
    extra["b"] = [[{"return": None}]]
    facts = parse(nft(web([jump("a")], [TO_OTHER], extra=extra)))
    assert not facts.routes_to(POD), "a goto skips the rest of its own chain"
    assert facts.routes_to(OTHER), "and comes back to who jumped there"


def test_chains_in_a_circle_are_unreadable():
    facts = parse(nft(web([jump("a")], extra={"a": [[jump("b")]], "b": [[jump("a")]]})))
    assert "too deep" in str(facts.unreadable[0])


def test_a_random_number_below_three_with_a_row_for_two_may_go_on():
    pick = {"numgen": {"mode": "random", "mod": 3, "offset": 0}}
    rows = {"set": [[0, goto("x")], [1, goto("x")]]}
    facts = parse(nft(web([{"vmap": {"key": pick, "data": rows}}], [TO_POD], extra={"x": [[TO_OTHER]]})))
    assert facts.routes_to(POD)
    rows["set"].append([2, goto("x")])
    facts = parse(nft(web([{"vmap": {"key": pick, "data": rows}}], [TO_POD], extra={"x": [[TO_OTHER]]})))
    assert not facts.routes_to(POD)


def test_the_fence_is_read_from_its_route():
    facts = parse(nft(fence(shown(EPOCH))))
    assert facts.fence == (EPOCH,)


@pytest.mark.parametrize("asked", [None, (OTHER,)])
@pytest.mark.parametrize("endpoints", [[shown(EPOCH), shown(EPOCH.next())], [shown(EPOCH), ("10.244.1.11", 8080)]])
def test_a_fence_with_two_endpoints_is_unreadable(endpoints, asked):
    facts = parse(nft(fence(*endpoints)), asking=Asking(endpoints=asked))
    assert facts.fence == ()
    assert "the fence of k3f9" in str(facts.unreadable[0])


def test_a_fence_that_leads_to_a_pod_shows_no_epoch():
    facts = parse(nft(fence(("10.244.1.11", 8080))))
    assert facts.fence == ()
    assert "shows no epoch" in str(facts.unreadable[0])
    assert parse(nft(fence(("10.244.1.11", 8080))), asking=Asking(endpoints=(OTHER,))).fence == ()


def test_a_fence_whose_name_is_not_told_is_known_by_its_address():
    plain = table({"prerouting": [[*to_frontend(*FENCE_IP), dnat(*shown(EPOCH))]]}, name="other")
    assert parse(nft(plain)).fence == ()
    assert parse(nft(plain), asking=Asking(fences={"10.96.0.9": "k3f9"})).fence == (EPOCH,)


def test_the_fence_of_a_stale_table_holds_back_the_younger_one():
    stale = table({"prerouting": [[*to_frontend(*FENCE_IP), dnat(*shown(Epoch("k3f9", 7)))]]}, name="other")
    facts = parse(nft(fence(shown(EPOCH)), stale), asking=Asking(fences={"10.96.0.9": "k3f9"}))
    assert facts.fence == ()
    assert "it must have one endpoint" in str(facts.unreadable[0])


def test_asked_about_a_pod_only_its_routes_and_the_fence_are_told():
    both = kube_proxy(
        {
            WEB: (VIP, [[TO_POD]]),
            "service-BBBBBBBB-default/api/tcp/": (("10.96.1.2", "tcp", 80), [[TO_OTHER]]),
            FENCE: (FENCE_IP, [[dnat_to_one_of(shown(EPOCH))]]),
        }
    )
    facts = parse(nft(both), asking=Asking(endpoints=(POD,)))
    assert [route.service for route in facts.routes] == [
        "default/web:http",
        "tidegate-system/tidegate-fence-k3f9:fence",
    ]
    assert facts.fence == (EPOCH,)
    assert parse(nft(both), asking=Asking(endpoints=(OTHER,))).routes[0].service == "default/api"


def test_asked_about_one_pod_another_paths_problem_still_counts():
    facts = parse(nft(web([UNKNOWN])), asking=Asking(endpoints=(POD,)))
    assert facts.unreadable


@pytest.mark.parametrize("more", [0, 1])
def test_a_rule_that_is_skipped_for_leading_elsewhere_still_keeps_its_packets(more):
    """Asked about a pod, rules like this one are known by their text; with a gap in its map some packets pass it."""
    rule = dnat_to_one_of(("10.244.1.12", 8080), ("10.244.1.13", 8080))
    rule["dnat"]["addr"]["map"]["key"]["numgen"]["mod"] += more
    facts = parse(nft(web([equal(L4PROTO, "tcp"), rule], [TO_POD])), asking=Asking(endpoints=(POD,)))
    assert bool(facts.routes_to(POD)) == bool(more)
    near = parse(nft(web([equal(L4PROTO, "tcp"), rule])), asking=Asking(endpoints=(Endpoint("10.244.1.1", 8080),)))
    assert near.routes == (), "10.244.1.1 is no beginning of 10.244.1.12"


def test_a_redirect_leads_to_this_node():
    own = table(
        {
            "output": [
                [
                    equal(DADDR, {"prefix": {"addr": "10.244.0.0", "len": 16}}),
                    equal({"payload": {"protocol": "tcp", "field": "dport"}}, 15299),
                    {"redirect": {"port": 15299}},
                ]
            ]
        },
        name="tidegate",
        hook=("output",),
    )
    facts = parse(nft(own), asking=Asking(node_addresses=("10.77.0.2",)))
    assert routes(facts) == {"redirect 10.244.0.0/16:15299/TCP": ["127.0.0.1:15299", "10.77.0.2:15299"]}


def test_a_translation_without_a_port_keeps_the_packets_own():
    facts = parse(
        nft(table({"prerouting": [[*to_frontend("10.77.0.2", "udp", 53), {"dnat": {"addr": "10.244.1.11"}}]]}))
    )
    assert facts.routes[0].endpoints == (Endpoint("10.244.1.11", 53, "UDP"),)
    facts = parse(nft(table({"prerouting": [[equal(DADDR, "10.77.0.2"), {"dnat": {"addr": "10.244.1.11"}}]]})))
    assert facts.routes_to(POD), "any port of any protocol"


def test_a_translation_to_a_range_reaches_each_of_it():
    span = {"dnat": {"addr": {"range": ["10.244.1.10", "10.244.1.12"]}, "port": {"range": [8000, 9000]}}}
    facts = parse(nft(web([span])))
    assert facts.routes_to(POD)
    assert facts.routes_to(OTHER)
    assert not facts.routes_to(Endpoint("10.244.1.13", 8080))
    wide = parse(nft(web([{"dnat": {"addr": {"range": ["10.244.0.0", "10.244.255.255"]}}}])))
    assert wide.unreadable


def test_a_map_of_addresses_is_looked_up_by_frontend():
    """systemd-networkd, nft's own idiom: ``dnat to ip daddr . tcp dport map @m``."""
    rows = [
        [{"concat": ["10.77.0.2", 80]}, {"concat": ["10.244.1.11", 8080]}],
        [{"concat": ["10.77.0.3", 80]}, "10.244.1.12"],
    ]
    key = {"concat": [DADDR, {"payload": {"protocol": "tcp", "field": "dport"}}]}
    rule = [{"dnat": {"addr": {"map": {"key": key, "data": "@m"}}}}]
    facts = parse(nft(table({"prerouting": [rule]}, [("map", "m", rows)])))
    assert routes(facts) == {"dnat 10.77.0.2:80/TCP": ["10.244.1.11:8080"], "dnat 10.77.0.3:80/TCP": ["10.244.1.12:80"]}


def test_a_packet_rewritten_outside_of_nat_is_unreadable():
    raw = table({"pre": [[{"mangle": {"key": DADDR, "value": "10.244.1.11"}}]]}, name="stateless", hook=())
    raw[1]["chain"].update(type="filter", hook="prerouting", prio=-300)
    assert "rewrites packets without tracking them" in str(parse(nft(web([TO_OTHER]), raw)).unreadable[0])


GOOD = nft(web([TO_POD]))


@pytest.mark.parametrize(
    "dump",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"nftables": []}',
        '{"nftables": [{}]}',
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD.replace('json_schema_version": 1', 'json_schema_version": 2'),
        GOOD.replace('{"table": {', '{"tabel": {'),
        GOOD.replace('"nftables"', '"nftable"'),
        "\x00" * 50,
        "table ip x {",
    ],
)
def test_garbage_is_unreadable(dump):
    facts = parse(dump)
    assert facts.unreadable
    assert facts.routes == ()


def test_a_part_of_a_table_is_unreadable_but_for_who_vouches_for_the_rest():
    objects = [one for one in json.loads(GOOD)["nftables"] if "table" not in one]
    dump = json.dumps({"nftables": objects})
    assert "only a part of it is in the dump" in str(parse(dump).unreadable[0])
    assert parse(dump, asking=Asking(services=frozenset({"default/web"}))).routes_to(POD)


def test_chains_left_out_on_purpose_are_those_of_services_not_asked_for():
    absent = "service-BBBBBBBB-default/api/tcp/"
    objects = kube_proxy({WEB: (VIP, [[TO_POD]]), absent: (("10.96.1.2", "tcp", 80), [[TO_OTHER]])})
    partly = nft(
        [one for one in objects if absent not in (one.get("chain", {}).get("name"), one.get("rule", {}).get("chain"))]
    )
    assert f"leads to chain {absent}, which the dump does not show" in str(parse(partly).unreadable[0])
    assert parse(partly, asking=Asking(services=frozenset({"default/web"}))).unreadable == ()
    assert parse(partly, asking=Asking(services=frozenset({"default/api"}))).unreadable


TEXT = """table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.1.1 . tcp . 80 : goto service-SUSTUHLJ-default/web/tcp/http }
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr . meta l4proto . th dport vmap @service-ips
	}

	chain service-SUSTUHLJ-default/web/tcp/http {
		RULE
	}
}
"""


@pytest.mark.parametrize(
    ("rule", "endpoints"),
    [
        ("meta l4proto tcp dnat to 10.244.1.11:8080", ["10.244.1.11:8080"]),
        (
            "dnat ip to numgen random mod 2 map { 0 : 10.244.1.11 . 8080, 1 : 10.244.1.12 . 8080 }",
            ["10.244.1.11:8080", "10.244.1.12:8080"],
        ),
        (
            'ip saddr 10.0.0.0/8 counter packets 3 bytes 180 dnat to 10.244.1.11:8080 comment "a rule" # handle 7',
            ["10.244.1.11:8080"],
        ),
        ("tcp dport { 80, 443 } dnat to 10.244.1.11", ["10.244.1.11:80"]),
        ("tcp dport != 80 dnat to 10.244.1.11:8080", []),
        ("udp dport 80 dnat to 10.244.1.11:8080", []),
        ("ip daddr @gone dnat to 10.244.1.11:8080", None),
        ("frobnicate 7 dnat to 10.244.1.11:8080", None),
        ("meta l4proto tcp   counter packets 0 bytes 0 ", None),
        ("counter packets 0 bytes 0", None),
        ('xt target "DNAT"', None),
        ("goto service-XXXXXXXX-default/other/tcp/http", None),
    ],
)
def test_a_line_of_text_reads_as_its_json_would(rule, endpoints):
    facts = parse_text(TEXT.replace("RULE", rule))
    if endpoints is None:
        assert facts.unreadable
    else:
        assert facts.unreadable == ()
        assert [str(to) for route in facts.routes for to in route.endpoints] == endpoints


def test_text_cut_short_anywhere_inside_of_a_table_is_unreadable():
    whole = TEXT.replace("RULE", "dnat to 10.244.1.11:8080")
    assert parse_text(whole).routes_to(POD)
    for end in range(len(whole) - 2):
        assert parse_text(whole[:end]).unreadable, whole[:end]


LEARNT = """table ip t {
	map learnt {
		type ipv4_addr : verdict
FLAGS		elements = { 10.96.0.1 : goto last }
	}

	chain last {
		tcp dport 80 dnat to 10.244.1.9:8080
	}

	chain pre {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr vmap @learnt
	}
}
"""


@pytest.mark.parametrize("flags", ["\t\tflags dynamic\n", "\t\tflags timeout\n", ""])
def test_a_map_that_packets_change_is_unreadable_where_it_says_what_comes_next(flags):
    """A dump tells what was: since then a packet may have led another way."""
    facts = parse_text(LEARNT.replace("FLAGS", flags))
    assert bool(facts.unreadable) == bool(flags)
    if flags:
        assert str(facts.unreadable[0]).endswith("packets change @learnt: a dump tells only what was")


def test_a_map_that_packets_change_is_unreadable_in_json_too():
    vmap = [{"vmap": {"key": DADDR, "data": "@learnt"}}]
    objects = table({"prerouting": [vmap]}, maps=[("map", "learnt", [["10.96.0.1", goto("last")]])])
    objects += [{"chain": {"family": "ip", "table": "kube-proxy", "name": "last", "handle": 9}}]
    [learnt] = [one["map"] for one in objects if "map" in one]
    assert not parse(nft(objects)).unreadable
    learnt["flags"] = ["dynamic"]
    assert parse(nft(objects)).unreadable
