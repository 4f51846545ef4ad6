"""conntrack: what is bound to an endpoint though no rule leads there any more."""

from __future__ import annotations

import pytest

from tidegate.dataplane.conntrack import parse
from tidegate.model.endpoint import Endpoint

POD = Endpoint("10.244.1.11", 8080)


def entry(state="SYN_SENT", more="", reply="src=10.244.1.11 dst=10.244.1.1 sport=8080 dport=41000"):
    return f"tcp      6 110 {state} src=10.244.1.1 dst=10.96.1.1 sport=41000 dport=80 {more}{reply} mark=0 use=1\n"


@pytest.mark.parametrize(
    ("state", "reads", "is_opening"),
    [
        ("SYN_SENT", "SYN_SENT", True),
        ("SYN_SENT2", "SYN_SENT", True),
        ("SYN_RECV", "SYN_RECV", True),
        ("NONE", "SYN_SENT", True),
        ("ESTABLISHED", "ESTABLISHED", False),
        ("FIN_WAIT", "CLOSING", False),
        ("CLOSE_WAIT", "CLOSING", False),
        ("LAST_ACK", "CLOSING", False),
    ],
)
def test_states_of_tcp(state, reads, is_opening):
    (one,) = parse(entry(state)).tracked
    assert str(one) == f"{reads} 10.244.1.1:41000 -> 10.96.1.1:80 -> 10.244.1.11:8080"
    assert one.is_opening == is_opening


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE"])
def test_what_has_ended_is_no_connection(state):
    assert parse(entry(state)).tracked == ()


def test_a_handshake_that_nobody_answered_is_bound_all_the_same():
    assert parse(entry(more="[UNREPLIED] ")).opening_to(POD)


def test_every_udp_flow_is_bound_to_who_answers():
    line = (
        "udp      17 29 src=10.244.1.1 dst=10.96.1.3 sport=42776 dport=53 [UNREPLIED] "
        "src=10.244.1.21 dst=10.244.1.1 sport=8080 dport=42776 mark=0 use=1"
    )
    assert parse(line).opening_to(Endpoint("10.244.1.21", 8080, "UDP"))


def test_a_hostports_translation_counts_like_a_services():
    line = entry().replace("dst=10.96.1.1 sport=41000 dport=80", "dst=10.77.0.2 sport=41000 dport=8443")
    assert parse(line).opening_to(POD)


@pytest.mark.parametrize(
    "line",
    [
        "ipv4     2 tcp      6 110 SYN_SENT src=10.244.1.1 dst=10.96.1.1 sport=41000 dport=80 "
        "[UNREPLIED] src=10.244.1.11 "
        "dst=10.244.1.1 sport=8080 dport=41000 mark=0 zone=0 use=2",
        "tcp      6 110 SYN_SENT src=10.244.1.1 dst=10.96.1.1 sport=41000 dport=80 packets=1 bytes=60 [UNREPLIED] "
        "src=10.244.1.11 dst=10.244.1.1 sport=8080 dport=41000 packets=0 bytes=0 mark=0 delta-time=3 use=1 id=77",
        "tcp      6 110 SYN_SENT src=10.244.1.1 dst=10.96.1.1 sport=41000 dport=80 zone-orig=3 src=10.244.1.11 "
        "dst=10.244.1.1 sport=8080 dport=41000 mark=0 secctx=null use=1",
    ],
)
def test_every_spelling_of_an_entry_is_read(line):
    assert parse(line).opening_to(POD)


def test_an_entry_in_a_flow_table_tells_no_state_and_is_established():
    line = (
        "ipv4     2 tcp      6 src=10.244.1.1 dst=10.96.1.1 sport=41000 dport=80 src=10.244.1.11 dst=10.244.1.1 "
        "sport=8080 dport=41000 [OFFLOAD] mark=0 zone=0 use=3"
    )
    assert parse(line).tracked[0].state == "ESTABLISHED"


def test_ip6_in_both_spellings():
    long = (
        "ipv6     10 tcp      6 9 SYN_RECV src=fd00:0010:0000:0000:0000:0000:0000:0001 "
        "dst=fd00:0096:0000:0000:0000:0000:0000:0001 sport=4 dport=80 src=fd00:0010:0000:0000:0000:0000:0000:0011 "
        "dst=fd00:0010:0000:0000:0000:0000:0000:0001 sport=8080 dport=4 mark=0 zone=0 use=2"
    )
    short = (
        "tcp 6 9 SYN_RECV src=fd00:10::1 dst=fd00:96::1 sport=4 dport=80 "
        "src=fd00:10::11 dst=fd00:10::1 sport=8080 dport=4 use=2"
    )
    assert parse(long).tracked == parse(short).tracked
    assert parse(long).opening_to(Endpoint("fd00:10::11", 8080))


def test_other_protocols_are_passed_over():
    icmp = "icmp     1 29 src=10.244.1.1 dst=10.96.1.1 type=8 code=0 id=7 src=10.244.1.11 "
    "dst=10.244.1.1 type=0 code=0 id=7 mark=0 use=1\n"
    unknown = "unknown  2 559 src=10.0.0.1 dst=224.0.0.22 [UNREPLIED] src=224.0.0.22 dst=10.0.0.1 mark=0 use=1\n"
    facts = parse(icmp + unknown)
    assert (facts.tracked, facts.unreadable) == ((), ())


def test_an_empty_table_is_empty():
    assert parse("").unreadable == ()


@pytest.mark.parametrize(
    "dump",
    [
        entry("FROZEN"),
        entry()[:70],
        entry().replace("sport=8080 ", ""),
        entry().replace("dport=80 ", "dport=80000 "),
        entry() + "conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.\n",
        "<conntrack><flow/></conntrack>",
        "Operation failed: sorry, you must be root\n",
        entry().replace("10.244.1.11", "pod"),
        "tcp      6 110 src=10.244.1.1 dst=10.96.1.1 sport=41000 dport=80 src=10.244.1.11 "
        "dst=10.244.1.1 sport=8080 dport=41000 use=1",
    ],
)
def test_garbage_is_unreadable(dump):
    facts = parse(dump)
    assert facts.unreadable
    assert facts.tracked == ()


def test_a_list_that_says_its_own_length_must_have_it():
    whole = entry() + entry("TIME_WAIT") + "conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.\n"
    assert parse(whole).unreadable == ()
