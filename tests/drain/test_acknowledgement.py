"""What one observer's dump says, and what all of them say together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drain_stage import ENDPOINT, answer, epoch, facts
from hypothesis import given
from hypothesis import strategies as st

from tidegate.dataplane import Route, Tracked
from tidegate.drain import Verdict, acknowledge, assumed, quorum, stragglers, unreachable
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch

NAMES = ("node-1", "node-2", "node-3")


def excepted(node):
    return replace(unreachable(node, epoch(7), "ann@desk vouched", 0), verdict=Verdict.EXCEPTED)


@pytest.mark.parametrize(
    ("says", "verdict", "entry"),
    [
        ({}, Verdict.CONFIRMED, "fence 7 and no route"),
        ({"fence": 9}, Verdict.CONFIRMED, "fence 9 and no route"),
        ({"fence": 6}, Verdict.PENDING, "shows fence 6, 7 is needed"),
        ({"fence": 6, "routed": True}, Verdict.PENDING, "shows fence 6, 7 is needed"),
        ({"fence": None}, Verdict.PENDING, "has never shown the fence"),
        (
            {"routed": True},
            Verdict.REFUTED,
            "at fence 7 demo/echo:http (cluster-ip 10.96.1.1:80/TCP) still leads to 10.244.1.11:8080",
        ),
        (
            {"opening": True},
            Verdict.PENDING,
            "a connection is being opened: SYN_SENT 10.244.2.9:41000 -> 10.96.1.1:80 -> 10.244.1.11:8080",
        ),
        ({"bad": "unknown chain"}, Verdict.UNREADABLE, "unknown chain"),
    ],
)
def test_one_dump_decides_and_names_the_entry_that_did(says, verdict, entry):
    given_answer = answer(7, **says)
    assert (given_answer.verdict, given_answer.evidence.entry) == (verdict, entry)


def test_an_established_connection_is_no_route():
    dump = replace(
        facts(), tracked=(Tracked("TCP", "ESTABLISHED", Endpoint("10.0.0.1", 5), Endpoint("10.96.1.1", 80), ENDPOINT),)
    )
    assert acknowledge(dump, (ENDPOINT,), epoch(7)).verdict is Verdict.CONFIRMED


def test_a_udp_flow_to_the_pod_is_on_its_way():
    flow = Tracked("UDP", "NONE", Endpoint("10.0.0.1", 5), Endpoint("10.96.1.3", 53), ENDPOINT)
    assert acknowledge(replace(facts(), tracked=(flow,)), (Endpoint(ENDPOINT.address),), epoch(7)).verdict is (
        Verdict.PENDING
    )


def test_a_route_to_any_port_of_the_pods_address_is_a_route_to_the_pod():
    other_port = Route("node-port", "", 30080, "TCP", (Endpoint(ENDPOINT.address, 9090),))
    dump = replace(facts(), routes=(other_port,))
    assert acknowledge(dump, (Endpoint(ENDPOINT.address),), epoch(7)).verdict is Verdict.REFUTED
    assert acknowledge(dump, (ENDPOINT,), epoch(7)).verdict is Verdict.CONFIRMED


def test_a_fence_of_another_install_says_nothing():
    dump = replace(facts(), fence=(Epoch("older", 99),))
    assert acknowledge(dump, (ENDPOINT,), epoch(7)).verdict is Verdict.PENDING


def test_another_installation_beside_ours_keeps_nobody_waiting():
    dump = replace(facts(), fence=(Epoch("older", 99), epoch(7)))
    assert acknowledge(dump, (ENDPOINT,), epoch(7)).verdict is Verdict.CONFIRMED


def test_the_address_family_that_lags_counts():
    dump = replace(facts(), fence=(epoch(8), epoch(6)))
    assert acknowledge(dump, (ENDPOINT,), epoch(7)).evidence.entry == "shows fence 6, 7 is needed"


def test_all_confirmed_is_confirmed():
    answers = {name: answer(7, name) for name in NAMES}
    assert quorum(NAMES, answers, epoch(7)) is Verdict.CONFIRMED
    assert stragglers(NAMES, answers, epoch(7)) == ()


@pytest.mark.parametrize(
    ("odd", "verdict"),
    [
        (None, Verdict.PENDING),
        (answer(7, "node-2", fence=6), Verdict.PENDING),
        (answer(7, "node-2", routed=True), Verdict.REFUTED),
        (answer(7, "node-2", bad="garbage"), Verdict.PENDING),
        (unreachable("node-2", epoch(7), "connection refused", 0), Verdict.PENDING),
        (assumed("node-2", epoch(7), "no agent, settled 15 s", 0), Verdict.ASSUMED),
        (excepted("node-2"), Verdict.EXCEPTED),
        (answer(6, "node-2"), Verdict.PENDING),
    ],
)
def test_the_weakest_observer_decides_for_all(odd, verdict):
    answers = {name: answer(7, name) for name in NAMES if name != "node-2"}
    if odd is not None:
        answers["node-2"] = odd
    assert quorum(NAMES, answers, epoch(7)) is verdict
    assert stragglers(NAMES, answers, epoch(7)) == (
        () if verdict in (Verdict.ASSUMED, Verdict.EXCEPTED) else ("node-2",)
    )


def test_an_assumption_is_weaker_than_a_word():
    answers = {
        "node-1": answer(7, "node-1"),
        "node-2": excepted("node-2"),
        "node-3": assumed("node-3", epoch(7), "", 0),
    }
    assert quorum(NAMES, answers, epoch(7)) is Verdict.ASSUMED


def test_nobody_asked_is_not_everybody_confirmed():
    assert quorum((), {}, epoch(7)) is Verdict.PENDING


@given(
    st.integers(0, 20),
    st.integers(0, 20) | st.none(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "garbage"]),
)
def test_confirmed_means_fence_and_no_route_and_no_handshake_in_a_readable_dump(asked, shown, routed, opening, bad):
    verdict = answer(asked, fence=shown, routed=routed, opening=opening, bad=bad).verdict
    is_clean = shown is not None and shown >= asked and not routed and not opening and not bad
    assert (verdict is Verdict.CONFIRMED) == is_clean
