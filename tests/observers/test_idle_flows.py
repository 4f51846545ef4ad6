"""UDP flows that nobody translates here: told for as long as datagrams come by them."""

from __future__ import annotations

from tidegate.dataplane.facts import Tracked
from tidegate.model.endpoint import Endpoint
from tidegate.observers.linux import idleflows
from tidegate.observers.linux.idleflows import QUIET_SECONDS, IdleFlows

POD = Endpoint("10.244.1.2", 5300, "UDP")


def flow(dialled=POD, protocol="UDP"):
    return Tracked(protocol, "NONE", Endpoint("10.244.2.9", 4000, protocol), dialled, POD)


def looked(idle, one, *looks):
    """(instant, seconds until the entry ends) -> whether it is idle."""
    return [idle.is_idle(one, left, at) for at, left in looks]


def test_a_flow_is_idle_once_its_end_has_not_been_put_off_for_a_while():
    looks = ((100.0, 120), (102.0, 118), (104.9, 115), (100.0 + QUIET_SECONDS, 115), (110.0, 110))
    assert looked(IdleFlows(), flow(), *looks) == [False, False, False, True, True]


def test_a_datagram_begins_the_wait_anew():
    looks = ((100.0, 120), (106.0, 114), (108.0, 120), (112.0, 116), (113.0, 115))
    assert looked(IdleFlows(), flow(), *looks) == [False, True, False, False, True]


def test_a_flow_that_is_used_now_and_then_is_never_idle():
    looks = [(100.0 + second, 120 - second % 2) for second in range(60)]
    assert not any(looked(IdleFlows(), flow(), *looks))


def test_a_clock_that_is_set_and_a_flow_not_seen_for_long_begin_anew():
    assert looked(IdleFlows(), flow(), (100.0, 120), (200.0, 118), (204.0, 114)) == [False, False, False]
    assert looked(IdleFlows(), flow(), (100.0, 120), (90.0, 120), (94.0, 116)) == [False, False, False]
    assert looked(IdleFlows(), flow(), (100.0, 120), (130.0, 90)) == [False, False]


def test_what_is_translated_here_is_never_idle_nor_is_anything_but_udp():
    looks = ((100.0, 120), (110.0, 110))
    assert looked(IdleFlows(), flow(Endpoint("10.96.0.9", 53, "UDP")), *looks) == [False, False]
    assert looked(IdleFlows(), flow(protocol="SCTP"), *looks) == [False, False]


def test_more_flows_than_are_kept_wait_anew(monkeypatch):
    monkeypatch.setattr(idleflows, "FLOWS_MAX", 1)
    idle = IdleFlows()
    other = Tracked("UDP", "NONE", Endpoint("10.244.2.9", 4001, "UDP"), POD, POD)
    assert looked(idle, flow(), (100.0, 120)) + looked(idle, other, (101.0, 120)) == [False, False]
    assert looked(idle, flow(), (110.0, 110)) == [False]
