"""What users of a rolling update lose when something of ours dies in it: no more than a sleep would have lost them."""

from __future__ import annotations

import asyncio

import pytest

from tidegate import vtime
from tidegate.lab.config import LabConfig
from tidegate.lab.virtual import VirtualLab
from tidegate.rehearse import verdict
from tidegate.rehearse.addons import TIDEGATE
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.story import rehearse
from tidegate.rehearse.virtual import VirtualStage


def rehearsed(row, seed, victims=(), every=0.5):
    """One row; from the update on ``victims`` (containers) are killed in turn."""
    settings = Settings(rows=(row,), seed=seed, requests_min=0, new_per_second=30.0, pool_per_second=30.0)

    async def killing(lab):
        while True:
            for victim in victims:
                await asyncio.sleep(every)
                if any(entry["event"] == "hook-started" for entry in lab.journal()):
                    lab.kill(victim)

    async def story():
        async with VirtualLab(LabConfig(seed=seed, addons=(TIDEGATE,))) as lab:
            task = asyncio.get_running_loop().create_task(killing(lab)) if victims else None
            try:
                return await rehearse(VirtualStage(lab), settings)
            finally:
                if task is not None:
                    task.cancel()

    return vtime.run(story(), seed=seed)


AGENTS = tuple(f"tidegate-agent-node-{index}/agent" for index in (1, 2, 3))


@pytest.mark.parametrize("seed", range(1))
def test_agents_killed_in_their_holds_lose_no_more_than_a_sleep_of_fifteen_seconds(seed):
    slept = rehearsed(Row("sleep", "sleep", 15, lag_seconds=8.0), seed)
    made = rehearsed(Row("gate", "gate", lag_seconds=8.0), seed, AGENTS)
    run = made.runs[0]
    assert run.tally.dropped <= slept.runs[0].tally.dropped
    assert "bypassed" in {drain.result for drain in run.drains}
    assert run.contradictions == ()
    assert verdict.judge(made).exit_code == 4


@pytest.mark.parametrize("seed", range(1))
def test_a_coordinator_killed_again_and_again_loses_nothing(seed):
    made = rehearsed(Row("gate", "gate", lag_seconds=4.0), seed, ("tidegate-coordinator/coordinator",), every=3.0)
    assert made.runs[0].tally.dropped == 0
    assert made.runs[0].contradictions == ()


def test_a_frozen_proxy_loses_nothing_with_a_grace_of_sixty_and_is_not_called_verified_with_thirty():
    patient = rehearsed(Row("patient", "gate", freeze_seconds=20.0), 1).runs[0]
    assert (patient.tally.dropped, {drain.result for drain in patient.drains}) == (0, {"verified"})
    hasty = rehearsed(Row("hasty", "gate", freeze_seconds=20.0, grace_seconds=30), 1)
    first = [drain for drain in hasty.runs[0].drains if drain.result != "verified"]
    assert first and all(drain.result == "timed-out" and drain.stragglers == ("node-3",) for drain in first)
    assert verdict.judge(hasty).exit_code == 4
