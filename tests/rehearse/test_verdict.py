"""Exit codes and the stable JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inline_snapshot import snapshot

from tidegate.model.names import DrainResult, Ending, encode_result
from tidegate.rehearse.samples import tally
from tidegate.rehearse.settings import ROWS, Row, Settings
from tidegate.rehearse.spectator import read_result
from tidegate.rehearse.verdict import Rehearsal, Run, as_json, judge, why_invalid

PLAIN, TIDEGATE = ROWS[0], ROWS[3]
SMALL: dict[str, Any] = {"requests_min": 400, "new_per_second": 20.0, "pool_per_second": 20.0}


def with_results(made: Rehearsal, *results: DrainResult | None) -> Rehearsal:
    """The rehearsal with these drain results on the first gated row's old pods."""
    runs = []
    for run in made.runs:
        tracks = list(run.timeline.tracks)
        if run.row.is_gated:
            for index, result in enumerate(results):
                tracks[index] = replace(tracks[index], seen=replace(tracks[index].seen, result=result))
        runs.append(replace(run, timeline=replace(run.timeline, tracks=tuple(tracks))))
    return replace(made, runs=tuple(runs))


def lose_one(run: Run) -> Run:
    first, *rest = run.samples
    return replace(run, samples=(_lost(first), *rest))


def _lost(sample: Any) -> Any:
    return type(sample)(*(getattr(sample, name) for name in sample.__struct_fields__[:6]), "reset")


def test_lost_requests_without_tidegate_do_not_fail_the_rehearsal(rehearsal: Any) -> None:
    made = rehearsal((PLAIN, TIDEGATE))
    assert made.runs[0].tally.dropped > 0
    assert made.runs[1].tally.dropped == 0
    assert judge(made).exit_code == 0


def test_a_pod_without_a_record_is_bypassed_and_the_exit_code_is_4(rehearsal: Any) -> None:
    made = with_results(rehearsal((TIDEGATE,), **SMALL), None)
    assert made.runs[0].drains[0].result == "bypassed"
    verdict = judge(made)
    assert verdict.exit_code == 4
    assert verdict.reasons[0].startswith("tidegate: pod/echo-5d8f6c7b9d-ax0k is bypassed")


def test_a_timed_out_drain_names_its_stragglers(rehearsal: Any) -> None:
    record = DrainResult(Ending.TIMED_OUT, "no acknowledgement", ("node-3",))
    verdict = judge(with_results(rehearsal((TIDEGATE,), **SMALL), record))
    assert verdict.exit_code == 4
    assert "timed-out: no acknowledgement (waiting for node-3)" in verdict.reasons[0]


def test_losses_behind_verified_drains_exit_1(rehearsal: Any) -> None:
    made = rehearsal((TIDEGATE,), **SMALL)
    assert judge(replace(made, runs=(lose_one(made.runs[0]),))).exit_code == 1


def test_an_unverified_drain_outranks_a_loss(rehearsal: Any) -> None:
    made = with_results(rehearsal((TIDEGATE,), **SMALL), None)
    assert judge(replace(made, runs=(lose_one(made.runs[0]),))).exit_code == 4


def test_an_invalid_run_of_any_row_exits_1(rehearsal: Any) -> None:
    made = rehearsal((PLAIN, TIDEGATE), **SMALL)
    assert judge(replace(made, runs=(replace(made.runs[0], invalid="too busy"), made.runs[1]))).exit_code == 1


def test_a_tidegate_row_that_drained_nothing_exits_1(rehearsal: Any) -> None:
    made = rehearsal((TIDEGATE,), **SMALL)
    run = made.runs[0]
    empty = replace(run, timeline=replace(run.timeline, tracks=()))
    assert judge(replace(made, runs=(empty,))).exit_code == 1


def test_a_load_that_was_late_makes_a_run_invalid(rehearsal: Any) -> None:
    made = rehearsal((PLAIN,), **SMALL)
    run = made.runs[0]
    late = [
        type(s)(s.number, s.lane, s.source, s.scheduled_at, s.started_at + 0.2, s.ended_at + 0.2, "ok")
        for s in run.samples
    ]
    assert "started over 100 ms late" in why_invalid(Settings(requests_min=0), run.timeline, tally(late))
    assert why_invalid(Settings(requests_min=0), run.timeline, tally(run.samples)) == ""
    assert "10000 are needed" in why_invalid(Settings(), run.timeline, tally(run.samples))


def test_an_unreadable_drain_result_vouches_for_nothing() -> None:
    def pod(text: str) -> dict[str, Any]:
        return {"metadata": {"annotations": {"tidegate.dev/drain-result": text}}}

    unreadable = ("", "{}", "[1]", '{"result"', "null", '{"result":"fine"}')
    assert [result.result for text in unreadable if (result := read_result(pod(text)))] == [Ending.BYPASSED] * 6
    known = DrainResult(Ending.VERIFIED, epoch=3, seconds=1.5)
    assert read_result({"metadata": {"annotations": encode_result(known)}}) == known
    assert read_result({"metadata": {}}) is None


def test_the_json_has_the_documented_keys(rehearsal: Any) -> None:
    made = rehearsal((Row("plain"), TIDEGATE), **SMALL)
    assert as_json(made) == snapshot(
        {
            "runs": [
                {
                    "name": "plain",
                    "requests": 440,
                    "dropped": 18,
                    "dropped_by_cause": {"refused": 2, "reset": 16},
                    "rollout_seconds": 2.718,
                    "excess_pod_seconds": 2.776,
                    "drain_seconds": {"p50": 0.01, "max": 0.01},
                    "drains": [
                        {"pod": "echo-5d8f6c7b9d-ax0k", "result": "ungated"},
                        {"pod": "echo-5d8f6c7b9d-bx1k", "result": "ungated"},
                        {"pod": "echo-5d8f6c7b9d-cx2k", "result": "ungated"},
                        {"pod": "echo-5d8f6c7b9d-dx3k", "result": "ungated"},
                    ],
                },
                {
                    "name": "tidegate",
                    "requests": 440,
                    "dropped": 0,
                    "dropped_by_cause": {},
                    "rollout_seconds": 3.817,
                    "excess_pod_seconds": 7.141,
                    "drain_seconds": {"p50": 1.069, "max": 1.207},
                    "drains": [
                        {"pod": "echo-5d8f6c7b9d-ax0k", "result": "verified"},
                        {"pod": "echo-5d8f6c7b9d-bx1k", "result": "verified"},
                        {"pod": "echo-5d8f6c7b9d-cx2k", "result": "verified"},
                        {"pod": "echo-5d8f6c7b9d-dx3k", "result": "verified"},
                    ],
                },
            ],
            "seed": 7,
            "nodes": 3,
            "replicas": 4,
            "rate_per_second": 40.0,
        }
    )
