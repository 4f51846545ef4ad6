"""The ledger's entries: what a course of events leaves, and that other versions' lines are read as far as they go."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec

from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Quiet, Socket
from tidegate.drain import ledger
from tidegate.drain.acknowledgement import Acknowledgement, Evidence, Verdict
from tidegate.drain.event import Acknowledged, Cut, FenceWritten, ObserversListed, SocketsRead, SourceClean, SourceDirty
from tidegate.drain.ledger import Course, Subject, amendment, decode, encode, entry_of, hear, merged
from tidegate.drain.progress import begin
from tidegate.drain.state import Mode
from tidegate.drain.table import step
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.model.names import DrainResult, Ending

SUBJECT = Subject("drain", "label", "t0", by="ann@desk", uid="u1", namespace="demo", pod="echo-1", began="B")
WALL = 1_800_000_000.0
RESULT = DrainResult(Ending.VERIFIED)


def answer(node, verdict, number=1, entry="", at=0.0):
    return Acknowledgement(node, verdict, Epoch("main", number), Evidence("lab/1 generation 7", at, entry))


def played(*events, mode=Mode.GATE):
    drain, course = begin("demo/echo-1", mode), Course()
    for event in events:
        drain = step(drain, event)
        course = hear(course, drain, event)
    return course, drain


def fenced(number=1, at=10.0):
    return (
        SourceClean(at=at + 0.1),
        ObserversListed(at=at + 0.1, observers=("node-1", "node-2")),
        FenceWritten(at=at + 0.3, epoch=Epoch("main", number), sent_at=at + 0.2),
    )


def said(heard_at, *words, **more):
    return Acknowledged(at=heard_at, acknowledgement=answer(*words, **more))


def live(*clients):
    return tuple(
        Socket(Endpoint("10.0.0.1", 8080), Endpoint(client, 4000 + number), "ESTABLISHED", 0, number)
        for number, client in enumerate(clients)
    )


def test_an_observers_latency_runs_from_the_cut_to_the_instant_it_let_go_for_good():
    course, drain = played(
        Cut(at=10.0),
        *fenced(),
        said(10.4, "node-1", Verdict.CONFIRMED, at=WALL),
        said(10.5, "node-2", Verdict.PENDING, entry="shows fence 0"),
        said(11.0, "node-2", Verdict.REFUTED, entry="route"),
        said(12.5, "node-2", Verdict.CONFIRMED, entry="fence 1 and no route"),
        SocketsRead(at=13.0, quiet=Quiet()),
    )
    entry = entry_of(SUBJECT, course, drain, RESULT, (13.0, WALL))
    assert [(one.observer, one.seconds) for one in entry.answers] == [("node-2", 2.5), ("node-1", 0.4)]
    assert entry.slowest.observer == "node-2"
    assert [(turn.seconds, turn.verdict) for turn in entry.slowest.history] == [
        (0.5, "pending"), (1.0, "refuted"), (2.5, "confirmed"),
    ]  # fmt: skip
    assert entry.answers[1].history == (), "one that let go at once has no story"
    assert (entry.cut, entry.seconds, entry.epoch) == ("2027-01-15T07:59:57.000Z", 3.0, "main/1")


def test_a_later_round_of_questions_takes_nothing_back_and_a_route_that_comes_back_does():
    later = (
        SourceDirty(at=20.0, reasons=("labels were given back",)),
        *fenced(2, 21.0),
        said(21.5, "node-1", Verdict.PENDING, 2, entry="shows fence 1, 2 is needed"),
    )
    first = (Cut(at=10.0), *fenced(), said(10.4, "node-1", Verdict.CONFIRMED))
    course, drain = played(*first, *later, said(22.0, "node-1", Verdict.CONFIRMED, 2))
    assert entry_of(SUBJECT, course, drain, RESULT, (23.0, WALL)).answers[1].seconds == 0.4
    course, drain = played(*first, *later, said(22.0, "node-1", Verdict.REFUTED, 2))
    [behind, silent] = sorted(entry_of(SUBJECT, course, drain, RESULT, (23.0, WALL)).answers, key=lambda a: a.observer)
    assert behind.seconds is None and behind.verdict == "refuted" and len(behind.history) == 2
    assert (silent.verdict, silent.detail) == ("pending", "has not answered")


def test_a_dump_has_another_digest_as_soon_as_anything_in_it_is_another():
    def digest(**more):
        course, drain = played(Cut(at=10.0), *fenced(), said(10.4, "node-1", Verdict.CONFIRMED, **more))
        found = entry_of(SUBJECT, course, drain, RESULT, (13.0, WALL)).answers
        return next(one.digest for one in found if one.observer == "node-1")

    assert len({digest(at=WALL), digest(at=WALL + 0.001), digest(at=WALL, entry="x")}) == 3
    assert digest(at=WALL) == digest(at=WALL)


def test_clients_are_counted_and_only_the_first_five_addresses_kept():
    found = ledger.in_flight(Quiet(live("10.9.0.1", *(f"10.9.0.{n}" for n in range(1, 9)))))
    assert (found.count, found.clients) == (9, tuple(f"10.9.0.{n}" for n in range(1, 6)))
    unknown = ledger.in_flight(Quiet(live("10.9.0.1"), (Unreadable("no table"),)))
    assert (unknown.count, unknown.problem) == (None, "no table"), "what cannot be read is no count"
    assert ledger.in_flight(None).count is None


def test_a_thousand_nodes_leave_a_bounded_line_with_those_that_matter():
    names = tuple(f"node-{n:04}" for n in range(1000))
    listed = ObserversListed(at=10.1, observers=names)
    events = [said(10.4 + n / 1000, name, Verdict.CONFIRMED) for n, name in enumerate(names[1:])]
    clean, _, fence = fenced()
    course, drain = played(Cut(at=10.0), clean, listed, fence, *events)
    entry = entry_of(SUBJECT, course, drain, RESULT, (13.0, WALL))
    assert entry.answers[0].observer == "node-0000", "who never answered comes first"
    assert entry.answers[1].observer == "node-0999", "then the slowest"
    assert len(entry.answers) + entry.answers_left_off == 1000
    assert len(encode(entry)) < 100_000


def entry():
    course, drain = played(Cut(at=10.0), *fenced(), said(10.4, "node-1", Verdict.CONFIRMED))
    return entry_of(SUBJECT, course, drain, RESULT, (13.0, WALL))


def test_a_line_is_read_back_as_it_was_written():
    assert decode(encode(entry())) == entry()
    assert encode(entry()).count(b"\n") == 1


def test_the_line_of_a_newer_version_is_read_as_far_as_it_is_understood():
    newer = json.loads(encode(entry())) | {"format": 2, "moon": {"phase": "full"}}
    newer["answers"][0]["signature"] = "ed25519:..."
    read = decode(json.dumps(newer).encode())
    assert msgspec.structs.replace(read, format=1) == entry()


def test_the_line_of_an_older_version_has_defaults_for_what_it_lacks():
    read = decode(b'{"id":"x","pod":"echo-1","result":"verified"}')
    assert (read.pod, read.answers, read.connections_at_cut.count) == ("echo-1", (), None)


def test_what_is_no_line_is_told_from_one():
    for junk in (b"", b"{", b"[]", b'{"id":1}', b"\xff\xfe", encode(entry())[:-40]):
        assert decode(junk) is None


def test_an_amendment_adds_to_its_line_whatever_the_order_they_are_read_in():
    late = amendment(SUBJECT, DrainResult(Ending.BYPASSED, "the holder had gone"), ("node-1 refuted: back",), WALL + 5)
    for order in ((entry(), late), (late, entry())):
        [found] = merged(order)
        assert (found.result, found.reason) == ("bypassed", "the holder had gone")
        assert found.regressions == ("node-1 refuted: back",)
        assert found.answers == entry().answers, "what was evidence stays"
    [alone] = merged([late])
    assert (alone.pod, alone.result) == ("echo-1", "bypassed"), "its line was rotated away: the bad news is not"


def test_two_runs_of_one_drain_are_two_entries():
    again = replace(SUBJECT, began="later")
    course, drain = played(Cut(at=10.0))
    assert len(merged([entry(), entry_of(again, course, drain, RESULT, (13.0, WALL))])) == 2
    assert len(merged([entry(), entry()])) == 1
