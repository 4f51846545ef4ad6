"""The timeline's figures, from made-up journals small enough to check by hand."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from tidegate.model.epoch import Epoch
from tidegate.model.names import DrainResult, Ending
from tidegate.rehearse.footage import Focus, develop, live_area, merged
from tidegate.rehearse.samples import Sample
from tidegate.rehearse.spectator import PodSeen
from tidegate.rehearse.timeline import Span, Timeline, Update, draw

FOCUS = Focus("shop", "shop/echo:")
UPDATE = Update(started_at=0.0, patched_at=1.0, ended_at=20.0, replicas=1, nodes=("node-1", "node-2"))

OLD = PodSeen("old", "u-old", "v1", created_at=-5.0, ip="127.1.1.1", ready_at=-4.0, deleted_at=3.0, gone_at=5.2)
NEW = PodSeen("new", "u-new", "v2", created_at=1.0, ip="127.1.1.2", ready_at=3.0)


def started(pod: PodSeen, at: float) -> dict[str, object]:
    return {"at": at, "event": "process-started", "namespace": "shop", "uid": pod.uid, "container": "echo"}


def exited(pod: PodSeen, at: float) -> dict[str, object]:
    return {"at": at, "event": "process-exited", "uid": pod.uid, "container": "echo", "code": 0}


def sigterm(pod: PodSeen, at: float) -> dict[str, object]:
    return {"at": at, "event": "signal-sent", "uid": pod.uid, "container": "echo", "signal": "SIGTERM"}


def ended(event: str, at: float, node: str, pod: PodSeen) -> dict[str, object]:
    """A connection from the node's port 4001 to a pod."""
    return {"at": at, "event": event, "node": node, "endpoint": f"{pod.ip}:8080", "source": "127.9.0.1:4001"}


def table(node: str, at: float, *pods: PodSeen, epoch: int = 0) -> dict[str, object]:
    services = {"shop/echo:http": [f"{pod.ip}:8080" for pod in pods], "other/echo:http": ["127.1.1.9:8080"]}
    if epoch:
        services["tidegate-system/tidegate-fence-abc:fence"] = [str(Epoch("abc", epoch).endpoint4())]
    return {"at": at, "event": "table-committed", "node": node, "services": services}


SCENE = [
    table("node-1", -4.0, OLD), table("node-2", -4.0, OLD), started(OLD, -4.8), started(NEW, 1.5),
    table("node-1", 3.1, OLD, NEW), table("node-2", 3.2, OLD, NEW), table("node-1", 3.4, NEW, epoch=7),
    table("node-2", 4.5, NEW), table("node-2", 4.6, NEW, epoch=8), sigterm(OLD, 5.0), exited(OLD, 5.1),
]  # fmt: skip


def drawn(entries: list[dict[str, object]], pods: tuple[PodSeen, ...], samples: tuple[Sample, ...] = ()) -> Timeline:
    return draw(UPDATE, pods, develop(entries, FOCUS), samples)


def lost(number: int, at: float, pod: str = "", port: int = 0) -> Sample:
    return Sample(number, "new", "node-2", at, at, at + 0.01, "refused", pod=pod, port=port)


def test_a_pod_passes_through_every_state_without_gaps() -> None:
    old = drawn(SCENE, (OLD, NEW)).tracks[0]
    assert old.spans == (
        Span("starting", -5.0, -4.0),
        Span("ready", -4.0, 3.0),
        Span("cut", 3.0, 4.5),
        Span("draining", 4.5, 5.1),
        Span("gone", 5.1, 20.0),
    )


def test_a_pod_that_stays_is_ready_to_the_end() -> None:
    new = drawn(SCENE, (OLD, NEW)).tracks[1]
    assert [span.state for span in new.spans] == ["starting", "ready"]
    assert new.spans[-1].end_at == UPDATE.ended_at
    assert new.stale is None


def test_the_rollout_ends_with_the_last_old_process() -> None:
    assert drawn(SCENE, (OLD, NEW)).rollout_seconds == 5.1 - 1.0


def test_a_rollout_with_an_old_process_left_has_no_end() -> None:
    assert drawn([e for e in SCENE if e["event"] != "process-exited"], (OLD, NEW)).rollout_seconds is None


def test_excess_is_counted_from_the_patch_to_the_last_old_exit() -> None:
    assert math.isclose(drawn(SCENE, (OLD, NEW)).excess_pod_seconds, 5.1 - 1.5)


def test_drain_seconds_run_from_delete_to_sigterm() -> None:
    result = drawn(SCENE, (OLD, NEW))
    assert result.drain_seconds == (2.0,)
    assert (result.drain_p50, result.drain_max) == (2.0, 2.0)


def test_a_pod_that_exits_while_a_node_forwards_to_it_has_stale_routes() -> None:
    entries = [table("node-1", 0.0, OLD), started(OLD, -4.8), exited(OLD, 3.1), table("node-1", 3.9, NEW)]
    track = drawn(entries, (OLD,)).tracks[0]
    assert track.stale == (3.1, 3.9)
    assert [span.state for span in track.spans] == ["starting", "ready", "cut", "gone"]


def test_a_lost_request_without_an_answer_is_laid_at_the_dead_pod_in_its_nodes_table() -> None:
    entries = [table("node-2", 0.0, OLD, NEW), started(OLD, -4.8), started(NEW, 1.5), exited(OLD, 3.1)]
    result = drawn(entries, (OLD, NEW), (lost(1, 3.5), lost(2, 2.0), lost(3, 3.6, pod="new")))
    assert [(loss.number, loss.pod) for loss in result.losses] == [(2, ""), (1, "old"), (3, "new")]
    assert [track.lost for track in result.tracks] == [1, 1]


def test_a_kernel_that_journaled_the_connection_settles_which_pod_it_was() -> None:
    entries = [
        table("node-2", 0.0, OLD, NEW), started(OLD, -4.8), started(NEW, 1.5), exited(OLD, 3.1),
        ended("connection-failed", 3.51, "node-2", NEW), ended("connection-failed", 3.51, "node-1", OLD),
        ended("connection-closed", 9.0, "node-2", OLD),
    ]  # fmt: skip
    samples = (lost(1, 3.5, port=4001), lost(2, 3.5, port=4002))
    assert [loss.pod for loss in drawn(entries, (OLD, NEW), samples).losses] == ["new", "old"]


def test_the_floor_is_the_slowest_nodes_fence_or_the_last_connection() -> None:
    gated = PodSeen(
        OLD.name,
        OLD.uid,
        "v1",
        -5.0,
        ip=OLD.ip,
        ready_at=-4.0,
        deleted_at=3.0,
        result=DrainResult(Ending.VERIFIED, epoch=7),
    )
    floor = drawn(SCENE, (gated, NEW)).tracks[0].floor
    assert floor is not None
    assert (floor.at, round(floor.overhead_seconds, 3)) == (4.6, 0.4)
    assert drawn(SCENE, (gated, NEW)).overheads == (floor.overhead_seconds,)
    closed = {"at": 4.9, "event": "connection-closed", "node": "node-1", "endpoint": "127.1.1.1:8080"}
    later = drawn([*SCENE, closed], (gated, NEW)).tracks[0].floor
    assert later is not None
    assert later.at == 4.9


def test_a_drain_whose_epoch_a_node_never_showed_has_no_floor() -> None:
    gated = PodSeen(
        OLD.name,
        OLD.uid,
        "v1",
        -5.0,
        ip=OLD.ip,
        ready_at=-4.0,
        deleted_at=3.0,
        result=DrainResult(Ending.VERIFIED, epoch=9),
    )
    assert drawn(SCENE, (gated, NEW)).tracks[0].floor is None


def test_a_row_that_never_got_to_its_update_can_still_be_drawn() -> None:
    result = drawn([], ())
    assert (result.rollout_seconds, result.excess_pod_seconds, result.drain_seconds) == (None, 0.0, ())


INSTANTS = st.integers(min_value=0, max_value=60).map(float)
INTERVALS = st.lists(st.tuples(INSTANTS, INSTANTS).map(lambda pair: (min(pair), max(pair))), max_size=12)


@given(INTERVALS, st.integers(0, 6), INSTANTS, INSTANTS)
def test_the_excess_equals_a_sum_over_unit_steps(lives: list, replicas: int, a: float, b: float) -> None:
    since, until = min(a, b), max(a, b)
    steps = [second + 0.5 for second in range(int(since), int(until))]
    live = [sum(1 for start, end in lives if start < at < end) for at in steps]
    assert math.isclose(live_area(lives, replicas, since, until), sum(max(0, n - replicas) for n in live))


@given(INTERVALS, st.integers(0, 6), st.lists(INSTANTS, min_size=3, max_size=3))
def test_the_excess_of_two_stretches_adds_up(lives: list, replicas: int, cuts: list[float]) -> None:
    a, b, c = sorted(cuts)
    parts = live_area(lives, replicas, a, b) + live_area(lives, replicas, b, c)
    assert math.isclose(live_area(lives, replicas, a, c), parts)


@given(INTERVALS)
def test_merging_keeps_the_union_and_leaves_no_overlap(lives: list) -> None:
    union = merged(lives)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(union))
    for half in range(120):
        at = half / 2 + 0.25
        assert any(s < at < e for s, e in lives) == any(s < at < e for s, e in union)


@given(INTERVALS, st.integers(0, 6))
def test_a_process_that_never_ends_counts_to_the_window_only(lives: list, replicas: int) -> None:
    endless = [(start, math.inf) for start, _ in lives]
    closed = [(start, 60.0) for start, _ in lives]
    assert math.isclose(live_area(endless, replicas, 0.0, 60.0), live_area(closed, replicas, 0.0, 60.0))
