"""What the lab's journal says against a verified drain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidegate.model.names import DrainResult, Ending
from tidegate.rehearse import verdict
from tidegate.rehearse.contradiction import contradictions
from tidegate.rehearse.footage import Focus, Footage, develop
from tidegate.rehearse.settings import ROWS
from tidegate.rehearse.spectator import PodSeen
from tidegate.rehearse.timeline import PodTrack

POD = "127.17.1.2:8080"
TRACK = PodTrack(
    PodSeen("echo-1", "uid-1", "v1", 1.0, "node-1", "127.17.1.2", 2.0, 9.0, 11.0, DrainResult(Ending.VERIFIED)),
    is_old=True,
    spans=(),
    sigterm_at=10.0,
)


def film(*entries: dict[str, Any]) -> Footage:
    return develop(entries, Focus("demo", "demo/echo:"))


def against(footage: Footage, *tracks: PodTrack) -> tuple[str, ...]:
    return contradictions(tracks or (TRACK,), footage, is_exact=True)


def commit(at: float, *endpoints: str) -> dict[str, Any]:
    return {"at": at, "event": "table-committed", "node": "node-2", "services": {"demo/echo:80": list(endpoints)}}


def closed(opened: float, pod_closed: float, event: str = "connection-closed") -> dict[str, Any]:
    return {
        "at": pod_closed or opened + 0.1, "event": event, "node": "node-2", "endpoint": POD, "source": "127.16.0.12:9",
        "opened": opened, "pod_closed": pod_closed,
    }  # fmt: skip


def test_a_pod_that_nobody_routes_to_or_is_connected_to_is_not_contradicted() -> None:
    footage = film(commit(1.0, POD), commit(9.5), closed(9.4, 9.9), closed(2.0, 9.999))
    assert against(footage) == ()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((commit(1.0, POD),), "node-2 routed to echo-1 when it was told to stop"),
        ((commit(1.0, POD), commit(10.1)), "node-2 routed to echo-1 when it was told to stop"),
        ((commit(1.0, POD), commit(9.5), commit(10.5, POD)), "node-2 routed to echo-1 0.500 s after"),
        ((closed(10.2, 0.0, "connection-failed"),), "gave echo-1 the connection of 127.16.0.12:9 0.200 s after"),
        ((closed(10.2, 10.3),), "gave echo-1 the connection of 127.16.0.12:9 0.200 s after"),
        ((closed(4.0, 10.01),), "told to stop with 127.16.0.12:9 connected (for 6.000 s, by node-2)"),
    ],
)
def test_a_route_or_a_connection_after_the_sigterm_contradicts(entries: Any, words: str) -> None:
    [found] = against(film(*entries))
    assert words in found


def test_a_connection_the_pod_had_closed_itself_does_not_contradict_however_long_the_client_keeps_it() -> None:
    late = {**closed(4.0, 9.9), "at": 30.0}
    assert against(film(late)) == ()


def test_where_clocks_are_not_exact_an_end_noted_late_does_not_contradict_but_a_new_connection_does() -> None:
    noted_late, new = closed(4.0, 10.01), closed(10.2, 10.3)
    assert contradictions((TRACK,), film(noted_late), is_exact=False) == ()
    assert len(contradictions((TRACK,), film(noted_late, new), is_exact=False)) == 1


@pytest.mark.parametrize("ending", [ending for ending in Ending if ending is not Ending.VERIFIED])
def test_what_is_not_called_verified_is_not_contradicted(ending: Ending) -> None:
    track = replace(TRACK, seen=replace(TRACK.seen, result=DrainResult(ending)))
    assert against(film(commit(1.0, POD)), track) == ()


def test_an_address_used_again_is_another_pods() -> None:
    after = replace(TRACK, seen=replace(TRACK.seen, name="echo-9", uid="uid-9", created_at=12.0, result=None))
    footage = film(commit(1.0, POD), commit(9.5), commit(13.0, POD), closed(13.1, 13.2))
    assert against(footage, TRACK, after) == ()
    assert len(against(footage)) == 2


def test_a_contradiction_fails_the_rehearsal_although_nothing_was_lost(rehearsal: Any) -> None:
    made = rehearsal((ROWS[3],))
    assert verdict.judge(made).exit_code == 0
    run = replace(made.runs[0], contradictions=("node-3 routed to echo-1 when it was told to stop",))
    judged = verdict.judge(replace(made, runs=(run,)))
    assert judged.exit_code == 1
    assert "falsely verified: node-3 routed" in judged.reasons[0]


def test_a_pod_that_was_never_seen_to_drain_fails_the_rehearsal(rehearsal: Any) -> None:
    made = rehearsal((ROWS[3],))
    run = made.runs[0]
    fewer = replace(run, timeline=replace(run.timeline, tracks=run.timeline.tracks[1:]))
    judged = verdict.judge(replace(made, runs=(fewer,)))
    assert judged.exit_code == 1
    assert "3 of 4 pods were seen to drain" in judged.reasons[0]
