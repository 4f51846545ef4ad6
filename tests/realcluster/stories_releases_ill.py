"""Releases that go wrong on a real kubelet's node: their process is killed, their image is not there; played by
``test_gate_on_kubelet``."""

from __future__ import annotations

import asyncio

import pytest
from tests.realcluster.gate_scene import GATE, PODS_OF_EACH, SYNC_SECONDS, scene
from tests.realcluster.judge import Load
from tests.realcluster.stories_releases import ALL_VERIFIED, PATIENCE_SECONDS, all_gone, of, outcome, release

from tidegate.kube.api import DEPLOYMENTS, PODS, REPLICASETS, Selection
from tidegate.release.template import is_gated

pytestmark = pytest.mark.usefixtures("installed")
ABSENT = "tidegate.test/app:9"


@pytest.mark.parametrize("killed_at", ["s  gate", "s  drain"], ids=["gating", "draining"])
async def test_one_whose_process_is_killed_goes_on_with_the_next_command(node, killed_at):
    """While the gate is put into the Deployment, or while a pod is drained by label."""
    async with scene(node, f"release-killed-{killed_at.rpartition(' ')[2]}") as here:
        address = await here.deployment("web", PODS_OF_EACH, None)
        ungated = list(of(here, "web-"))
        async with Load(address, seconds=PATIENCE_SECONDS) as load:
            await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
            await release(here, "start", "deploy/web", "--restart", killed_at=killed_at)
            ran = await release(here, "resume", "deploy/web")
            await all_gone(here, here.lives_of("web"))
        twins = [one for one in here.lives_of("web") if one not in ungated]
        outcome(f"killed at {killed_at}", ran, load, twins, here)
        made = (await here.api.list(REPLICASETS, Selection(here.namespace))).items
        found = await here.api.get(DEPLOYMENTS, "web", here.namespace)
        assert load.lost == 0 and load.outcomes.total() > 300, load.outcomes
        assert ran.shown["phase"] == "done" and not ran.shown["unverified"]
        assert len(made) == 2 and not found["spec"].get("paused") and is_gated(found["spec"]["template"])
        assert all(one.gone_at for one in ungated)
        assert {one.result and one.result.result for one in twins} == ALL_VERIFIED


async def test_an_image_that_is_not_there_halts_it_in_the_kubelets_words_and_abort_goes_back(node):
    async with scene(node, "release-absent") as here:
        address = await here.deployment("web", PODS_OF_EACH, GATE)
        before = {one.uid for one in of(here, "web-")}
        async with Load(address, seconds=PATIENCE_SECONDS) as load:
            await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
            asked = ("start", "deploy/web", "--image", f"app={ABSENT}", "--progress", "8s")
            halted = await release(here, *asked, code=1)
            back = await release(here, "abort", "deploy/web")
        outcome("absent image", halted, load, [], here)
        outcome("abort", back, load, [], here)
        pods = (await here.api.list(PODS, Selection(here.namespace))).items
        assert load.lost == 0 and load.outcomes.total() > 300, load.outcomes
        assert halted.shown["phase"] == "halted" and "ErrImageNeverPull" in halted.shown["reason"]
        assert back.shown["phase"] == "aborted"
        assert {one["metadata"]["uid"] for one in pods if "deletionTimestamp" not in one["metadata"]} == before
