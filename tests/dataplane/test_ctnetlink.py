"""Tracked connections as the kernel tells them: what is asked about is told, and what nobody needs is passed over."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tidegate.dataplane import ctnetlink
from tidegate.dataplane.netlink import attribute, attributes

NESTED = 0x8000
ASSURED, SEEN = 4, 2
STATES = {"SYN_SENT": 1, "SYN_RECV": 2, "ESTABLISHED": 3, "TIME_WAIT": 7, "CLOSE": 8}
CLOSE_INIT = 4


def tuple_of(kind, source, destination, protocol, ports):
    packed = [ip_address(one).packed for one in (source, destination)]
    numbers = (1, 2) if len(packed[0]) == 4 else (3, 4)
    addresses = b"".join(attribute(number, one) for number, one in zip(numbers, packed, strict=True))
    named = attribute(1, bytes([protocol])) + b"".join(
        attribute(number, port.to_bytes(2, "big")) for number, port in zip((2, 3), ports, strict=True)
    )
    return attribute(kind | NESTED, attribute(1 | NESTED, addresses) + attribute(2 | NESTED, named))


def entry(pod="10.244.1.2", protocol=ctnetlink.TCP, state="SYN_SENT", status=0, between=b"", flags=(0, 0), to=""):
    """As ctnetlink_fill_info lays it out: both tuples, then the status. ``flags``: of TCP, each way; ``to``: what was
    dialled, a Service without."""
    client, service = ("10.0.0.9", to or "10.96.0.1") if "." in pod else ("fd00::9", to or "fd00::1")
    dialled_port = 8080 if to == pod else 80
    family = 2 if "." in pod else 10
    body = bytes((family, 0, 0, 0)) + tuple_of(1, client, service, protocol, (4000, dialled_port))
    body += tuple_of(2, pod, client, protocol, (8080, 4000)) + between + attribute(3, status.to_bytes(4, "big"))
    if protocol == ctnetlink.TCP:
        ways = b"".join(attribute(kind, bytes([one, 0])) for kind, one in zip((4, 5), flags, strict=True))
        body += attribute(4 | NESTED, attribute(1 | NESTED, attribute(1, bytes([STATES[state]])) + ways))
    return body + attribute(12, b"\0\0\0\7")


def told(body, *pods):
    return ctnetlink.tracked(body, frozenset(ip_address(one).packed for one in pods) if pods else None)


PODS = ("10.244.1.2", "fd00:244::2")


@pytest.mark.parametrize("pod", PODS)
@pytest.mark.parametrize("state", ["SYN_SENT", "SYN_RECV"])
def test_a_connection_being_opened_is_told(pod, state):
    found = told(entry(pod, state=state, status=SEEN), pod)
    assert found.is_opening and (found.state, found.endpoint.address, found.endpoint.port) == (state, pod, 8080)


@pytest.mark.parametrize("pod", PODS)
def test_one_that_was_reset_takes_the_next_of_its_port_along_unless_somebody_had_closed_before(pod):
    reset = {"state": "CLOSE", "status": SEEN | ASSURED}
    found = told(entry(pod, **reset), pod)
    assert found is not None and found.is_opening and found.state == "CLOSE"
    for flags in ((CLOSE_INIT, 0), (0, CLOSE_INIT)):
        assert told(entry(pod, **reset, flags=flags), pod) is None
    assert told(entry(pod, **reset, to=pod), pod) is None, "whoever dials the pod itself asks no rule"
    assert told(entry(pod, **reset), "10.244.1.3") is None


@pytest.mark.parametrize("pod", PODS)
@pytest.mark.parametrize("state", ["ESTABLISHED", "TIME_WAIT"])
def test_one_of_tcp_that_was_established_both_ways_is_passed_over_for_who_asks_about_its_pod(pod, state):
    body = entry(pod, state=state, status=SEEN | ASSURED)
    assert told(body, pod) is None
    everything = told(body)
    assert (everything is None) == (state == "TIME_WAIT"), (
        "who asks for everything is told what still carries something"
    )


@pytest.mark.parametrize("pod", PODS)
def test_a_flow_of_udp_is_told_however_well_it_is_answered(pod):
    assert told(entry(pod, ctnetlink.UDP, status=SEEN | ASSURED), pod).state == "NONE"


@pytest.mark.parametrize("pod", PODS)
def test_an_entry_that_is_laid_out_otherwise_is_understood_all_the_same(pod):
    """A zone stands between the tuples and the status."""
    zone = attribute(18, b"\0\1")
    assert told(entry(pod, between=zone), pod).state == "SYN_SENT"
    assert told(entry(pod, state="ESTABLISHED", status=ASSURED, between=zone), pod).state == "ESTABLISHED"


def test_a_deletion_names_one_entry_by_its_tuple_its_id_and_its_zone():
    body = entry(protocol=ctnetlink.UDP, between=attribute(18, b"\0\1"))
    named = attributes(ctnetlink.forgetting(body)[4:])
    whole = attributes(body[4:])
    assert named == {kind: whole[kind] for kind in (1, 12, 18)}
    assert ctnetlink.forgetting(body)[0] == 2
