"""How long a pod was exposed: unknown is never zero, and a hook's own word is believed as far as it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tidegate.traffic.exposure import AGENT, SLICE, Exposure, LetGo, Sigterm, judge, sigterm_of

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return T0 + timedelta(seconds=seconds)


def exposure(*observers, sigterm=0.0, ended=100.0, **more):
    told = Sigterm(at(sigterm), "Event Killing") if sigterm is not None else Sigterm(gap="no Event")
    return Exposure("demo", "echo-1", "u1", "node-1", T0, at(ended), told, observers, **more)


def node(name, seconds, **more):
    return LetGo(name, AGENT, None if seconds is None else at(seconds), **more)


def test_the_longest_after_sigterm_counts_and_is_named():
    one = exposure(node("a", 0.5), node("b", 8.0), LetGo("demo/echo", SLICE, at(0.1)), opened=14)
    assert (one.exposed_seconds, one.exposed_to, one.last.observer) == (8.0, ("b", "a"), "b")
    assert one.sentence.startswith(
        "b still routed to it for 8.0 s after SIGTERM (a for 0.5 s); at least 14 connections"
    )


def test_who_let_go_before_sigterm_exposes_nobody():
    one = exposure(node("a", 0.5), node("b", 0.9), sigterm=1.0)
    assert (one.exposed_seconds, one.exposed_to) == (0.0, ())
    assert one.held_seconds == 0.9


def test_a_node_that_was_silent_makes_nothing_zero():
    silent = LetGo("b", AGENT, gap="not seen: no agent")
    assert exposure(node("a", 0.5), silent, sigterm=1.0).exposed_seconds is None
    exposed = exposure(node("a", 3.0), silent, sigterm=1.0)
    assert exposed.exposed_seconds == 2.0, "what was seen is seen"
    assert judge([exposed]).sleep_seconds is None
    assert exposure(LetGo("demo/echo", SLICE, at(0.1))).exposed_seconds is None, "slices are not nodes"


def test_a_sigterm_that_nobody_saw_leaves_it_unknown():
    one = exposure(node("a", 0.5), sigterm=None)
    assert one.exposed_seconds is None and "not known" in one.sentence
    assert judge([one]).unknown == 1 and judge([one]).sleep_seconds == 1


def test_who_routes_still_has_routed_for_at_least_so_long():
    one = exposure(node("a", None), ended=60.0)
    assert one.exposed_seconds == 60.0 and "at least 60.0 s" in one.sentence
    assert judge([one]).sleep_seconds is None


def test_the_sleep_is_that_of_the_worst_pod_and_the_gate_that_of_each():
    found = judge([exposure(node("a", 1.0)), exposure(node("a", 1.2)), exposure(node("a", 7.4))])
    assert (found.sleep_seconds, found.gate_seconds) == (8, (1.2, 7.4))
    gated = judge([exposure(node("a", 1.0), sigterm=1.3, is_gated=True)])
    assert gated.gate_seconds == (1.3, 1.3) and "their gates held them" in gated.sentences[-1]


def pod(*hooks, grace=30):
    made = [{"name": f"c{n}", **({"lifecycle": {"preStop": hook}} if hook else {})} for n, hook in enumerate(hooks)]
    return {"metadata": {"deletionGracePeriodSeconds": grace}, "spec": {"containers": made}}


@pytest.mark.parametrize(
    ("hooks", "seconds"),
    [
        ((None,), 0.0),
        (({"sleep": {"seconds": 5}},), 5.0),
        (({"exec": {"command": ["sleep", "7"]}},), 7.0),
        (({"exec": {"command": ["/bin/sh", "-c", "sleep 7.5"]}},), 7.5),
        (({"sleep": {"seconds": 90}},), 30.0),
        (({"sleep": {"seconds": 5}}, None), 0.0),
        (({"exec": {"command": ["/bin/sh", "-c", "sleep 5 && finish"]}},), None),
        (({"httpGet": {"port": 8080, "path": "/stop"}},), None),
        (({"sleep": {"seconds": 5}}, {"exec": {"command": ["finish"]}}), None),
    ],
)
def test_sigterm_comes_after_a_hook_that_tells_its_own_length(hooks, seconds):
    found = sigterm_of(pod(*hooks), (T0, 0.0), None)
    assert found.at == (None if seconds is None else at(seconds))
    assert bool(found.gap) is (seconds is None)


def test_a_gates_sigterm_is_its_answer_and_nothing_else():
    gate = {"httpGet": {"port": 15299, "path": "/gate/c0"}}
    assert sigterm_of(pod(gate), (T0, 0.0), None).at is None
    assert sigterm_of(pod(gate), (T0, 0.0), at(2)).at == at(2)
