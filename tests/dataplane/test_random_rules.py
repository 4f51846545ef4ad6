"""Random rule sets, and every small damage to real ones, against the second interpreter: nothing routed is missed."""

from __future__ import annotations

import functools
import json
import os
from ipaddress import ip_address, ip_network

import golden_dumps as dumps
import pytest
import simple_walk as simple
from hypothesis import given, settings
from hypothesis import strategies as st
from rulesets import DADDR, DPORT, L4PROTO, dnat, dnat_to_one_of, equal, iptables, nft, table

from tidegate.dataplane import iptables as iptables_parser
from tidegate.dataplane import nft as nft_parser
from tidegate.dataplane.frontends import Asking
from tidegate.model.endpoint import Endpoint

EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "300"))
ADDRESSES = ["10.96.1.1", "10.96.1.2", "10.77.0.2"]
PORTS = [80, 443, 30080]
ENDPOINTS = [(f"10.244.1.{last}", 8080) for last in (11, 12, 13)]
PACKETS = [
    simple.Packet(address, protocol, port)
    for address in [*ADDRESSES, "10.9.9.9"]
    for protocol in ("tcp", "udp")
    for port in [*PORTS, 53]
]
CHAINS = ["T-0", "T-1", "T-2", "T-3"]


def is_for(route, packet):
    is_near = not route.address or ip_address(packet.address) in ip_network(route.address)
    return is_near and route.port in (0, packet.port) and route.protocol == packet.protocol.upper()


def ends_of(facts, packet):
    """Where the facts say a packet may go; an endpoint of any port takes it on its own."""
    return {
        str(endpoint) if endpoint.port else f"{endpoint.address}:{packet.port}"
        for route in facts.routes
        if is_for(route, packet)
        for endpoint in route.endpoints
    }


def missed(facts, dump, through, packets=PACKETS):
    """What the simple interpreter reaches and the facts do not show."""
    found = []
    for packet in packets:
        found += [(packet, end) for end in through(dump, packet) - ends_of(facts, packet)]
    return found


def invented(facts, dump, through):
    """What the facts show for one exact packet and the simple interpreter does not reach."""
    return [
        (route, endpoint)
        for route in facts.routes
        if route.address and "/" not in route.address and route.port
        for endpoint in route.endpoints
        if str(endpoint) not in through(dump, simple.Packet(route.address, route.protocol.lower(), route.port))
    ]


def of_chains(rule):
    """Rules for the hooks and four chains; jumps lead on, never back."""
    hooks = {hook: st.lists(rule(0), max_size=4) for hook in ("PREROUTING", "OUTPUT")}
    return st.fixed_dictionaries(
        {**hooks, **{name: st.lists(rule(at + 1), max_size=4) for at, name in enumerate(CHAINS)}}
    )


def iptables_rule(depth):
    later = CHAINS[depth:]
    matches = st.tuples(
        st.sampled_from(["", "", "-s 10.244.0.0/16"]),
        st.sampled_from(
            ["", "", *(f"-d {address}/32" for address in ADDRESSES), "-d 10.96.0.0/16", "! -d 10.96.1.1/32"]
        ),
        st.sampled_from(
            [
                "",
                "-p tcp",
                *(f"-p {one} -m {one} --dport {port}" for one in ("tcp", "udp") for port in PORTS),
                "-p tcp -m tcp ! --dport 80",
                "-p tcp -m tcp --dport 80:443",
                "-p tcp -m multiport --dports 80,443",
            ]
        ),
        st.sampled_from(["", "", "-m statistic --mode random --probability 0.5", "-m addrtype --dst-type LOCAL"]),
    )
    targets = st.sampled_from(
        [f"-j DNAT --to-destination {address}:{port}" for address, port in ENDPOINTS] * 2
        + [f"{verb} {chain}" for chain in later for verb in ("-j", "-j", "-g")]
        + ["-j RETURN", "-j ACCEPT", "-j MARK --set-xmark 0x4000/0x4000", "-j DNAT --to-destination 10.244.1.14"]
    )
    return st.tuples(matches, targets).map(lambda both: " ".join([*filter(None, both[0]), both[1]]))


@settings(max_examples=EXAMPLES)
@given(of_chains(iptables_rule))
def test_random_iptables_rules_route_what_the_simple_interpreter_reaches(chains):
    dump = iptables(chains)
    facts = iptables_parser.parse(dump)
    assert facts.unreadable == ()
    assert missed(facts, dump, simple.through_iptables) == []
    assert invented(facts, dump, simple.through_iptables) == []


def nft_rule(depth):
    later = CHAINS[depth:]
    ends = [{"accept": None}, {"return": None}, {"drop": None}]
    verdict = st.sampled_from([*ends, *({verb: {"target": chain}} for chain in later for verb in ("jump", "goto"))])
    tcp = {"payload": {"protocol": "tcp", "field": "dport"}}
    match = st.one_of(
        st.builds(
            equal,
            st.just(DADDR),
            st.sampled_from(
                [*ADDRESSES, {"prefix": {"addr": "10.96.0.0", "len": 16}}, {"set": ADDRESSES[:2]}, "@some"]
            ),
            st.sampled_from(["==", "==", "!="]),
        ),
        st.builds(equal, st.just(L4PROTO), st.sampled_from(["tcp", "udp"])),
        st.builds(equal, st.sampled_from([DPORT, tcp]), st.sampled_from(PORTS), st.sampled_from(["==", "!="])),
        st.just(equal({"payload": {"protocol": "ip", "field": "saddr"}}, "10.244.1.1")),
        st.just(equal({"fib": {"result": "type", "flags": "daddr"}}, "local")),
    )
    key = {"concat": [DADDR, L4PROTO, DPORT]}
    row_key = st.tuples(st.sampled_from(ADDRESSES), st.sampled_from(["tcp", "udp"]), st.sampled_from(PORTS))

    def by_frontend(rows):
        return {"vmap": {"key": key, "data": {"set": [[{"concat": list(one)}, end] for one, end in rows.items()]}}}

    def by_chance(given):
        more, ends = given
        pick = {"numgen": {"mode": "random", "mod": len(ends) + more, "offset": 0}}
        return {"vmap": {"key": pick, "data": {"set": [[number, end] for number, end in enumerate(ends)]}}}

    end = st.one_of(
        verdict,
        st.builds(lambda to: dnat(*to), st.sampled_from(ENDPOINTS)),
        st.lists(st.sampled_from(ENDPOINTS), min_size=1, max_size=3, unique=True).map(
            lambda some: dnat_to_one_of(*some)
        ),
        st.dictionaries(row_key, verdict, min_size=1, max_size=4).map(by_frontend),
        st.tuples(st.sampled_from([0, 0, 1]), st.lists(verdict, min_size=1, max_size=3)).map(by_chance),
        st.just({"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}),
    )
    return st.tuples(st.lists(match, max_size=3), end).map(lambda both: [*both[0], both[1]])


@settings(max_examples=EXAMPLES)
@given(of_chains(nft_rule), of_chains(nft_rule))
def test_random_nft_rules_of_two_tables_route_what_the_simple_interpreter_reaches(one, other):
    hooks = ("PREROUTING", "OUTPUT")
    some = [("set", "some", ADDRESSES[:2])]
    objects = [table(one, some, hook=hooks), table(other, some, name="other", hook=hooks)]
    for chain in (each["chain"] for each in objects[0] + objects[1] if "hook" in each.get("chain", {})):
        chain["hook"] = chain["hook"].lower()
    dump = nft(*objects)
    facts = nft_parser.parse(dump)
    assert facts.unreadable == ()
    assert missed(facts, dump, simple.through_nft) == []
    assert invented(facts, dump, simple.through_nft) == []
    for endpoint in (Endpoint(*end) for end in ENDPOINTS):
        asked = nft_parser.parse(dump, asking=Asking(endpoints=(endpoint,)))
        assert bool(asked.routes_to(endpoint)) == bool(facts.routes_to(endpoint))


REAL_PACKETS = [
    simple.Packet("10.96.1.1", "tcp", 80),
    simple.Packet("10.96.1.2", "tcp", 80),
    simple.Packet("10.96.1.3", "udp", 53),
    simple.Packet("10.96.1.4", "tcp", 80),
    simple.Packet("192.0.2.10", "tcp", 80),
    simple.Packet("10.77.0.2", "tcp", 30080),
    simple.Packet("10.77.0.2", "tcp", 30081),
]
WORTH = ["f-nodeport-sessionaffinity", "h-loadbalancer-local"]


def lies(parse, through, dump):
    """Whether a dump reads as clean though a packet gets somewhere that the facts do not show."""
    facts = parse(dump)
    if facts.unreadable:
        return []
    return missed(facts, dump, through, REAL_PACKETS)


@pytest.mark.parametrize("case", WORTH)
def test_a_real_iptables_dump_without_any_one_line_is_no_lie(case):
    lines = dumps.text(f"v1.36.2-iptables-{case}-iptables-save").splitlines()
    for at in range(len(lines)):
        dump = "\n".join(lines[:at] + lines[at + 1 :]) + "\n"
        assert lies(iptables_parser.parse, simple.through_iptables, dump) == [], lines[at]


@pytest.mark.parametrize(
    "name", [f"{version}-nftables-{case}-nft-json" for case in WORTH for version in ("v1.30.5", "v1.36.2")]
)
def test_a_real_nft_dump_without_any_one_object_is_no_lie(name):
    objects = json.loads(dumps.text(name))["nftables"]
    for at in range(len(objects)):
        dump = json.dumps({"nftables": objects[:at] + objects[at + 1 :]})
        assert lies(nft_parser.parse, simple.through_nft, dump) == [], objects[at]


@functools.cache
def original(name):
    """A real dump, and what each packet can reach by it."""
    dump = dumps.text(name)
    parse = (
        iptables_parser.parse
        if name.endswith("save")
        else nft_parser.parse_text
        if name.endswith("nft")
        else nft_parser.parse
    )
    return dump, parse, parse(dump)


DAMAGED = [
    *(f"v1.36.2-iptables-{case}-iptables-save" for case in WORTH),
    *(f"{version}-nftables-{case}-nft-json" for case in WORTH for version in ("v1.30.5", "v1.36.2")),
]


@settings(max_examples=2 * EXAMPLES)
@given(st.sampled_from(DAMAGED), st.integers(0, 10**6), st.sampled_from('x#-0 \n"{:j'), st.booleans())
def test_a_real_dump_with_one_character_changed_is_no_lie(name, at, character, is_inserted):
    dump, parse, before = original(name)
    at %= len(dump)
    damaged = dump[:at] + character + dump[at + (not is_inserted) :]
    facts = parse(damaged)
    if facts.unreadable:
        return
    through = simple.through_iptables if name.endswith("save") else simple.through_nft
    for packet in REAL_PACKETS:
        shown, was = ends_of(facts, packet), ends_of(before, packet)
        try:
            reached = through(damaged, packet)
        except (ValueError, LookupError, TypeError, AttributeError):
            reached = {None}
        assert (was if None in reached else reached) <= shown, (damaged[max(0, at - 60) : at + 60], packet)


TEXTS = [f"{version}-nftables-{case}-nft" for case in WORTH for version in ("v1.30.5", "v1.36.2")]


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(TEXTS), st.integers(0, 10**6), st.sampled_from('x#-0 \n"{:j'), st.booleans())
def test_a_real_nft_text_with_one_character_changed_reads_as_its_own_json_or_not_at_all(
    name, at, character, is_inserted
):
    """The simple interpreter reads no text: what still reads as clean must show each pod that a rule still names."""
    dump, parse, before = original(name)
    at %= len(dump)
    damaged = dump[:at] + character + dump[at + (not is_inserted) :]
    facts = parse(damaged)
    if facts.unreadable:
        return
    for packet in REAL_PACKETS:
        shown, was = ends_of(facts, packet), ends_of(before, packet)
        gone = was - shown
        # One character can change one number, an endpoint's or a frontend's, or a protocol: then it is gone indeed.
        assert len(gone) <= 1 or is_number_or_frontend(dump, at), (damaged[max(0, at - 80) : at + 80], packet)


def is_number_or_frontend(dump, at):
    """Whether the line is one that names frontends."""
    line = dump[dump.rfind("\n", 0, at) + 1 : dump.find("\n", at)]
    return " : goto " in line or "daddr" in line or "th dport" in line or "elements" in line
