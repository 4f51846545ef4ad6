"""Drains by Tidegate's own agent, holder and coordinator, as pods of a real kubelet; played by
``test_gate_on_kubelet``."""

from __future__ import annotations

import asyncio

import pytest
from tests.realcluster import judge
from tests.realcluster.gate_scene import GATE, PODS_OF_EACH, busy, held, pod_template, rolled, scene, told

from tidegate.model.names import Ending

pytestmark = pytest.mark.usefixtures("installed")
STOP_BUDGET_SECONDS = 12.0
"""What a gate leaves of the grace period: the app's 10 s and the kubelet's own 2 s."""


async def test_a_rollout_under_load_loses_nothing_and_every_pod_is_verified(node):
    async with scene(node, "rollouts") as here:
        with judge.counting():
            gate = await rolled(here, "gate")
            at_the_end = judge.opened()
        plain, sleep = await asyncio.gather(rolled(here, "plain"), rolled(here, "sleep-5"))
        told(here, {"plain": plain, "sleep-5": sleep, "gate": gate})
        gated = here.lives_of("gate")
        assert gate.lost == 0 and gate.outcomes.total() > 300, gate.outcomes
        assert [one.result and one.result.result for one in gated] == [Ending.VERIFIED] * PODS_OF_EACH
        assert plain.lost > 0, "the load is too weak to show a loss"
        for one in gated:
            assert one.held_seconds < 5, "not quicker than a sleep"
            assert one.opened["deletion"] > 0
            assert one.opened["result"] == at_the_end[one.ip], (one, "opened after the proof", at_the_end)


async def test_a_pod_with_two_gated_containers_is_one_drain(node):
    async with scene(node, "two-containers") as here:
        template = pod_template("web", GATE)
        second = {**template["spec"]["containers"][0], "name": "side"}
        del second["readinessProbe"]
        second["lifecycle"] = {"preStop": {"httpGet": {**GATE["httpGet"], "path": "/gate/side"}}}
        second["command"] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
        template["spec"]["containers"].append(second)
        pod = await here.pod_of("web", template)
        async with busy(pod):
            life = await here.delete(pod)
            await held(2)
        await here.gone(life)
        assert life.result is not None and life.result.result is Ending.VERIFIED, life.result


async def test_a_shortened_grace_period_ends_the_hold_in_time_for_the_app_to_stop(node):
    async with scene(node, "shortened") as here:
        pod = await here.pod("web", GATE, grace=60)
        async with busy(pod):
            life = await here.delete(pod)
            await held()
            at = asyncio.get_running_loop().time()
            grace = 15
            await here.delete(pod, grace)
            await here.gone(life)
            assert life.stopped_at - at < grace - STOP_BUDGET_SECONDS + 1
        assert life.result is not None and life.result.result is Ending.TIMED_OUT, life.result
