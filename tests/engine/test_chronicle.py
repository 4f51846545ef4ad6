"""Who hears a drain out: one line at its conclusion, and another for each thing that is seen later."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.acknowledgement import Acknowledgement, Evidence, Verdict
from tidegate.drain.event import Acknowledged, Cut, FenceWritten, ObserversListed, Released, SocketsRead, SourceClean
from tidegate.drain.ledger import Subject, merged
from tidegate.drain.progress import begin
from tidegate.drain.state import Mode, Policy
from tidegate.drain.table import step
from tidegate.engine.chronicle import Chronicle
from tidegate.engine.ledger import Ledger
from tidegate.model.epoch import Epoch
from tidegate.model.names import DrainResult, Ending

EPOCH = Epoch("main", 5)
SUBJECT = Subject("gate", "gate", "t0", uid="u1", namespace="demo", pod="echo-1")


@pytest.fixture
def kept(tmp_path):
    return Ledger(str(tmp_path / "ledger.jsonl"))


def told(chronicle, drain, event):
    after = step(drain, event)
    chronicle.heard(after, event)
    return after


def said(at, verdict):
    return Acknowledged(at=at, acknowledgement=Acknowledgement("n1", verdict, EPOCH, Evidence("dump", 1.0, "x")))


def released(chronicle, policy=Policy.ABRUPT, quiet=None):
    drain = begin("demo/echo-1", Mode.GATE, policy)
    for event in (
        Cut(at=0.0), SourceClean(at=0.1), ObserversListed(at=0.1, observers=("n1",)),
        FenceWritten(at=0.3, epoch=EPOCH, sent_at=0.2), said(0.4, Verdict.CONFIRMED),
        SocketsRead(at=0.5, quiet=quiet or Quiet()), Released(at=0.6),
    ):  # fmt: skip
        drain = told(chronicle, drain, event)
    chronicle.conclude(drain.result, drain)
    return drain


def test_what_contradicts_the_proof_amends_the_line_at_once(kept):
    async def story():
        chronicle = Chronicle(SUBJECT, kept)
        drain = released(chronicle)
        before = kept.read().entries
        drain = told(chronicle, drain, said(2.0, Verdict.REFUTED))
        return before, kept.read().entries

    before, after = vtime.run(story())
    assert len(before) == 1 and len(after) == 2
    [entry] = merged(after)
    assert (entry.result, entry.regressions) == ("verified", ("n1 refuted: x",))


def test_a_late_proof_amends_the_line(kept):
    async def story():
        chronicle = Chronicle(SUBJECT, kept)
        drain = released(chronicle, Policy.GRACEFUL, Quiet(busy=("working",)))
        told(chronicle, drain, SocketsRead(at=3.0, quiet=Quiet()))

    vtime.run(story())
    assert [one.result for one in kept.read().entries] == ["assumed", "verified"]
    assert [one.result for one in merged(kept.read().entries)] == ["verified"]


def test_a_conclusion_is_written_once_and_a_refusal_never(kept):
    async def story():
        chronicle = Chronicle(SUBJECT, kept)
        chronicle.conclude(DrainResult(Ending.REFUSED, "a floor"))
        chronicle.conclude(DrainResult(Ending.TIMED_OUT, "no replacement came"))
        chronicle.conclude(DrainResult(Ending.TIMED_OUT, "no replacement came"))

    vtime.run(story())
    [entry] = kept.read().entries
    assert (entry.result, entry.cut, entry.answers) == ("timed-out", "", ())


def test_connections_are_read_once_at_the_cut_and_nothing_waits_for_them(kept):
    async def story(seconds):
        asked = []

        async def read():
            asked.append(1)
            await asyncio.sleep(seconds)
            return Quiet()

        chronicle = Chronicle(SUBJECT, kept)
        heard = chronicle.follow(read)
        drain = begin("demo/echo-1", Mode.GATE)
        for event in (Cut(at=0.0), SourceClean(at=0.1)):
            drain = step(drain, event)
            heard(drain, event)
        await asyncio.sleep(1)
        chronicle.conclude(DrainResult(Ending.BYPASSED, "x"), drain)
        await asyncio.sleep(10)
        return len(asked)

    assert vtime.run(story(0.5)) == vtime.run(story(5)) == 1
    fast, slow = kept.read().entries
    assert (fast.connections_at_cut.count, slow.connections_at_cut.problem) == (0, "not read")
