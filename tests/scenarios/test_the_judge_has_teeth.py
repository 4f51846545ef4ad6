"""A Tidegate that is broken on purpose: whoever judges the rehearsal must see it, else a green run says nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from stage import Stage, deployment, is_ready, lies, play

from tidegate.agent import coordinator, ground, tally
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.acknowledgement import Verdict
from tidegate.rehearse import chaos, verdict
from tidegate.rehearse.addons import TIDEGATE
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.virtual import rehearse_virtually

LAGGING = Row("lagging", "gate", lag_seconds=6.0)
_judge = tally.judge
_addresses = coordinator.Coordinator._addresses


def by_absence(node, reading, endpoints, epoch, services=()):
    """What most people would write: no rule, no route."""
    found = _judge(node, reading, endpoints, epoch, services)
    if found.verdict is not Verdict.PENDING or reading is None or reading.facts is None:
        return found
    is_routed = any(reading.facts.routes_to(endpoint) for endpoint in endpoints)
    return found if is_routed else replace(found, verdict=Verdict.CONFIRMED)


def without_the_last_node(self):
    return {name: address for name, address in _addresses(self).items() if name != "node-3"}


async def looks_at_no_socket(self, endpoints):
    return Quiet()


def rehearsed(row=LAGGING, seed=3):
    settings = Settings(rows=(row,), seed=seed, requests_min=0, new_per_second=60.0, pool_per_second=60.0)
    return rehearse_virtually(settings, addons=(TIDEGATE,))


def test_the_real_one_is_not_contradicted():
    assert rehearsed().runs[0].contradictions == ()


def test_an_agent_that_skips_a_lagging_node_is_caught_by_its_lost_requests_and_by_the_journal(monkeypatch):
    monkeypatch.setattr(coordinator.Coordinator, "_addresses", without_the_last_node)
    made = rehearsed()
    assert {drain.result for drain in made.runs[0].drains} == {"verified"}
    assert made.runs[0].tally.dropped > 0
    assert any("node-3 routed to" in found for found in made.runs[0].contradictions)
    assert verdict.judge(made).exit_code == 1


def test_an_agent_that_looks_at_no_socket_is_caught_even_when_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(ground.OwnSockets, "read", looks_at_no_socket)
    run = rehearsed(Row("plain-gate", "gate")).runs[0]
    assert {drain.result for drain in run.drains} == {"verified"}
    assert any("told to stop with" in found for found in run.contradictions)


@pytest.mark.parametrize("broken", ["skips a node", "looks at no socket", "believes nobody has a route"])
def test_chaos_catches_it(monkeypatch, broken):
    if broken == "skips a node":
        monkeypatch.setattr(coordinator.Coordinator, "_addresses", without_the_last_node)
    elif broken == "looks at no socket":
        monkeypatch.setattr(ground.OwnSockets, "read", looks_at_no_socket)
    else:
        monkeypatch.setattr(tally, "judge", lambda *asked: replace(_judge(*asked), verdict=Verdict.CONFIRMED))
    outcomes = [chaos.play(seed) for seed in range(3)]
    assert sum(len(outcome.contradictions) for outcome in outcomes) > 0


def test_chaos_catches_one_that_goes_by_the_absence_of_a_rule(monkeypatch):
    """It takes a young pod, deleted while its addition is on its way to a node that lags: some seeds have one."""
    monkeypatch.setattr(tally, "judge", by_absence)
    outcomes = [chaos.play(seed, shuffle=seed % 2 == 1) for seed in (6, 9, 15, 16)]
    assert any("after it was told to stop" in found for outcome in outcomes for found in outcome.contradictions)


def test_an_agent_that_goes_by_the_absence_of_a_rule_is_caught_when_an_addition_is_still_on_its_way(monkeypatch):
    monkeypatch.setattr(tally, "judge", by_absence)

    async def story(stage: Stage):
        stage.fault("proxy-lag", "node-3", 8)
        before = {pod["metadata"]["name"] for pod in await stage.pods()}
        await stage.scale(4)
        while not (young := [p for p in await stage.pods() if p["metadata"]["name"] not in before and is_ready(p)]):
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)  # else the addition and the removal reach the node's table as one change: none
        name = young[0]["metadata"]["name"]
        result, seconds = await stage.end(name)
        await asyncio.sleep(12)
        found = lies(stage)
        assert result["result"] == "verified" and seconds < 7
        assert any("node-3" in lie and name in lie for lie in found)
        stage.annotations.clear()  # the scene's own judge has seen it too

    play(story, deployment())
