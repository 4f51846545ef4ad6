"""The demo's story in virtual time: the whole lab, its load and its judge on one loop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate import vtime
from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, PODS, SERVICES
from tidegate.lab.config import LabConfig
from tidegate.lab.virtual import VirtualLab
from tidegate.rehearse.settings import ROWS, Row, Settings
from tidegate.rehearse.story import Progress, rehearse
from tidegate.rehearse.verdict import Rehearsal, digest, judge
from tidegate.rehearse.virtual import VirtualStage, rehearse_virtually

BY_NAME = {row.name: row for row in ROWS}


def settings(*names: str, **given: object) -> Settings:
    """The demo at a fifth of its rate."""
    base = Settings(
        rows=tuple(BY_NAME[name] for name in names), new_per_second=80.0, pool_per_second=80.0, requests_min=400
    )
    return replace(base, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ungated() -> Rehearsal:
    return rehearse_virtually(settings("plain", "sleep-5", "sleep-5+lag"))


def test_a_plain_update_loses_requests_and_a_sleeping_one_none(ungated: Rehearsal) -> None:
    plain, sleep, _ = ungated.runs
    assert plain.tally.dropped > 0
    assert sleep.tally.dropped == 0
    assert [run.invalid for run in ungated.runs] == ["", "", ""]


def test_a_plain_updates_losses_lie_at_its_dead_pods_while_routes_are_stale(ungated: Rehearsal) -> None:
    line = ungated.runs[0].timeline
    stale = {track.seen.name: track.stale for track in line.old}
    for loss in line.losses:
        interval = stale[loss.pod]
        assert interval is not None
        assert interval[0] - 0.01 <= loss.at <= interval[1] + 0.01


def test_a_sleep_costs_its_length_for_every_pod(ungated: Rehearsal) -> None:
    line = ungated.runs[1].timeline
    assert line.drain_p50 == pytest.approx(5.0, abs=0.1)
    assert line.rollout_seconds is not None
    assert line.rollout_seconds > 5.0
    assert line.excess_pod_seconds > 4 * 4.5


def test_a_node_lagging_longer_than_the_sleep_loses_what_it_sends(ungated: Rehearsal) -> None:
    run = ungated.runs[2]
    assert run.tally.dropped > 0
    assert {loss.source for loss in run.timeline.losses} == {"node-3"}


def test_every_old_pod_of_an_ungated_row_is_ungated(ungated: Rehearsal) -> None:
    assert {drain.result for run in ungated.runs for drain in run.drains} == {"ungated"}
    assert all(len(run.drains) == 4 for run in ungated.runs)
    assert judge(ungated).exit_code == 0


def test_the_same_seed_gives_the_same_digest_and_another_seed_another() -> None:
    asked = settings("plain", requests_min=200)
    first = digest(rehearse_virtually(asked))
    assert digest(rehearse_virtually(asked)) == first
    assert digest(rehearse_virtually(replace(asked, seed=1))) != first


def test_a_gate_that_nobody_answers_is_bypassed() -> None:
    made = rehearse_virtually(settings("tidegate"))
    assert {drain.result for drain in made.runs[0].drains} == {"bypassed"}
    assert judge(made).exit_code == 4


def test_a_row_that_never_gets_ready_is_invalid_and_the_next_one_is_played() -> None:
    rows = (Row("plain"), Row("again"))
    made = rehearse_virtually(Settings(rows=rows, startup_seconds=1000.0, row_seconds_max=4.0))
    assert [bool(run.invalid) for run in made.runs] == [True, True]
    assert judge(made).exit_code == 1


def test_a_row_leaves_nothing_behind_and_tells_its_phases_in_order() -> None:
    steps: list[Progress] = []

    async def play() -> list[int]:
        async with VirtualLab(LabConfig()) as lab:
            await rehearse(VirtualStage(lab), settings("sleep-15", requests_min=0, before_seconds=0.2), steps.append)
            kinds = (DEPLOYMENTS, PODS, SERVICES, NAMESPACES)
            found = [(await lab.api.list(kind)).items for kind in kinds]
            return [sum(1 for obj in objs if "demo-" in str(obj["metadata"])) for objs in found]

    left = vtime.run(play())
    assert left[:3] == [0, 0, 0]
    phases = [step.phase for step in steps]
    assert list(dict.fromkeys(phases)) == ["starting", "steady", "updating", "settling", "done"]
    assert steps[-1].run is not None
    assert max(step.old_pods for step in steps) == 4
