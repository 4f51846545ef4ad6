"""Whose word stands in for a node's silence, and when it does not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from drain_stage import answer, epoch

from tidegate.drain import Verdict, unreachable
from tidegate.drain.excuse import Excuse, excuse_of, excused
from tidegate.model import node
from tidegate.model.names import VouchRecord, encode_vouch

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SILENT = unreachable("node-2", epoch(7), "no route to host", 1.0)


def a_node(annotations=None, taint="", ready="True"):
    return node.decode(
        {
            "metadata": {"name": "node-2", "uid": "u", "annotations": annotations},
            "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]} if taint else {},
            "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "NodeStatusUnknown"}]},
        }
    )


def vouched(until="", says="dead"):
    return encode_vouch(VouchRecord(says, "burnt", "ann@desk", "2026-01-01T11:00:00Z", until))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (a_node(), None),
        (a_node(ready="Unknown"), "standing"),
        (a_node(ready="False"), "standing"),
        (a_node(taint="node.kubernetes.io/unreachable"), None),
        (a_node(taint="node.kubernetes.io/out-of-service", ready="Unknown"), "dead"),
        (a_node(vouched(), ready="Unknown"), "dead"),
        (a_node(vouched(says="no-agent")), "no-agent"),
        (a_node(vouched(says="no-agent"), ready="Unknown"), "no-agent"),
        (a_node(vouched("2026-01-01T12:00:01Z"), ready="Unknown"), "dead"),
        (a_node(vouched("2026-01-01T12:00:00Z"), ready="Unknown"), "standing"),
        (a_node(vouched("2026-01-01T13:00:00"), ready="Unknown"), "standing"),
        (a_node(vouched("next week"), ready="Unknown"), "standing"),
        (a_node(vouched(says="probably dead"), ready="Unknown"), "standing"),
        (a_node({"tidegate.dev/vouched": "dead"}, ready="Unknown"), "standing"),
    ],
)
def test_only_what_can_be_read_and_is_not_out_of_date_is_a_word(found, says):
    excuse = excuse_of(found, NOW)
    assert (None if excuse is None else excuse.says) == says


@pytest.mark.parametrize("found", [a_node(vouched()), a_node(taint="node.kubernetes.io/out-of-service")])
def test_a_node_that_came_back_is_not_dead_whatever_was_said_of_it(found):
    """Its kubelet lives. An agent that is silent for a moment, while it is replaced, is a live node's."""
    assert excuse_of(found, NOW) is None


@pytest.mark.parametrize("said", [{}, {"routed": True}, {"fence": 6}, {"bad": "garbage"}])
@pytest.mark.parametrize("says", ["dead", "no-agent", "standing"])
def test_a_node_that_answers_is_judged_by_its_answer(said, says):
    given = answer(7, "node-2", **said)
    assert excused(given, Excuse(says, "ann@desk vouched"), "except", 100.0) is given


@pytest.mark.parametrize(
    ("says", "policy", "waited", "verdict"),
    [
        ("dead", "hold", 0.0, Verdict.EXCEPTED),
        ("standing", "hold", 1000.0, Verdict.UNREACHABLE),
        ("standing", "except", 0.0, Verdict.EXCEPTED),
        ("no-agent", "except", 14.9, Verdict.PENDING),
        ("no-agent", "hold", 15.0, Verdict.ASSUMED),
    ],
)
def test_a_word_stands_in_for_silence_and_is_never_a_confirmation(says, policy, waited, verdict):
    made = excused(SILENT, Excuse(says, "ann@desk vouched"), policy, waited)
    assert made.verdict is verdict and "ann@desk vouched" in made.evidence.entry and made.evidence.at == 1.0
