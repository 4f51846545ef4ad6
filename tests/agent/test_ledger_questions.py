"""GET /v1/ledger: bounded whatever is kept, and only this node's."""

from __future__ import annotations

import json

import pytest

from tidegate.drain.ledger import Entry
from tidegate.observers import ledger


def entries(count, why=""):
    return [Entry(id=f"{number:05}", at=f"2026-01-01T00:00:{number:05}", why=why) for number in range(count)]


def test_the_newest_are_told_and_the_rest_counted():
    told = ledger.decode(ledger.encode("node-1", entries(700)), "node-1")
    assert (len(told.entries), told.left_off) == (ledger.ENTRIES_MAX, 200)
    assert told.entries[-1].id == "00699" and told.entries[0].id == "00200"


def test_an_answer_is_never_larger_than_it_may_be():
    body = ledger.encode("node-1", entries(400, "x" * 10_000))
    assert len(body) < ledger.BYTES_MAX + 20_000
    assert ledger.decode(body, "node-1").left_off > 250


def test_another_nodes_ledger_and_junk_are_refused_and_a_newer_one_is_read():
    body = ledger.encode("node-1", entries(1))
    with pytest.raises(ValueError, match="node-1"):
        ledger.decode(body, "node-2")
    for junk in (b"", b"[]", b'{"node":"node-1","entries":7}', b"\xff"):
        with pytest.raises(ValueError):
            ledger.decode(junk, "node-1")
    newer = json.loads(body) | {"signature": "x"}
    assert ledger.decode(json.dumps(newer).encode(), "node-1").entries[0].id == "00000"
