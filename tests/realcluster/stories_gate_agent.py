"""Tidegate's own agent, holder and coordinator as pods of a real kubelet; played by ``test_gate_on_kubelet``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.realcluster import judge
from tests.realcluster.gate_scene import GATE, Manifest, Scene, is_listening, kill, log, pod_template, scene, sleeping
from tests.realcluster.judge import Load, eventually, held_calls, line
from tests.realcluster.pod_image import APP_PORT

from tidegate.kube.api import EVENTS, PODS
from tidegate.model.names import Ending

pytestmark = pytest.mark.usefixtures("installed")
WAYS: dict[str, Manifest | None] = {"plain": None, "sleep-5": sleeping(5), "sleep-15": sleeping(15), "gate": GATE}
PODS_OF_EACH = 3
SYNC_SECONDS = 1.5
"""kube-proxy's minSyncPeriod of 1 s, and a sync."""
FALLBACK_SECONDS = 15.0
STOP_BUDGET_SECONDS = 12.0
"""What a gate leaves of the grace period: the app's 10 s and the kubelet's own 2 s."""


async def rolled(here: Scene, way: str) -> Load:
    """A rolling update of three pods under load."""
    address = await here.deployment(way, PODS_OF_EACH, WAYS[way])
    async with Load(address) as load:
        await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
        await here.roll(way)
        await eventually(lambda: here.is_rolled_out(way), f"{way} is rolled out", 60)

        async def are_gone() -> bool:
            lives = here.lives_of(way)
            return len(lives) == PODS_OF_EACH and all(one.gone_at for one in lives)

        await eventually(are_gone, f"the pods of {way} are gone", 60)
    return load


def told(here: Scene, loads: dict[str, Load]) -> None:
    head = f"{here.node.plane.version}, {PODS_OF_EACH} pods, a new connection per request"
    print(head, judge.HEADING, *(line(way, load, here.lives_of(way)) for way, load in loads.items()), sep="\n")


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


@contextlib.asynccontextmanager
async def busy(pod: Manifest) -> AsyncIterator[asyncio.StreamWriter]:
    """A connection to the pod on which nothing has been asked yet: no gate is released before its deadline."""
    _, writer = await asyncio.open_connection(pod["status"]["podIP"], APP_PORT)
    try:
        yield writer
    finally:
        writer.close()


async def held(number: int = 1) -> None:
    async def are_held() -> bool:
        return held_calls() == number

    await eventually(are_held, f"{number} calls are held")


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


async def test_a_liveness_restart_is_answered_at_once(node):
    async with scene(node, "liveness") as here:
        alive = {"exec": {"command": ["test", "!", "-e", "/sick"]}, "periodSeconds": 1, "failureThreshold": 1}
        pod = await here.pod("web", GATE, livenessProbe=alive)
        async with busy(pod):
            [first, *_] = node.inside(pod["metadata"]["uid"])
            Path(f"/proc/{first}/root/sick").touch()

            async def is_restarted() -> bool:
                found = await here.api.get(PODS, "web", here.namespace)
                return bool(found["status"]["containerStatuses"][0]["restartCount"])

            await eventually(is_restarted, "the container is restarted", 6)
        assert f"{pod['status']['podIP']} app: answered at once" in log("agent")
        found = await here.api.get(PODS, "web", here.namespace)
        assert "tidegate.dev/drain-result" not in found["metadata"].get("annotations", {})


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


async def test_a_kubelet_that_restarts_in_a_hold_asks_again_and_the_drain_goes_on(node):
    async with scene(node, "kubelet-restart") as here:
        pod = await here.pod("web", GATE, grace=60)
        async with busy(pod):
            life = await here.delete(pod)
            await held()
            node.kill("kubelet")
            await held(0)
            node.start_kubelet()
            await held()
            assert not life.stopped_at, "its kubelet's end is not the app's"
        await here.gone(life)
        assert life.result is not None and life.result.result is Ending.VERIFIED, life.result


async def test_a_holder_that_dies_opens_the_gate_and_nothing_is_verified(node):
    async with scene(node, "holder-killed") as here:
        pod = await here.pod("web", GATE, grace=60)
        async with busy(pod):
            life = await here.delete(pod)
            await held()
            await kill(here, "holder")
            await here.gone(life)
        assert life.held_seconds < 10
        assert life.result is None or life.result.result is Ending.BYPASSED, life.result

        async def is_told() -> bool:
            events = (await here.api.list(EVENTS)).items
            return any(
                one["reason"] == "FailedPreStopHook" and one["involvedObject"].get("uid") == life.uid for one in events
            )

        await eventually(is_told, "a FailedPreStopHook")
        await eventually(lambda: is_listening("127.0.0.1", 15299), "the kubelet starts the holder again")


async def test_an_agent_that_dies_in_a_hold_leaves_a_sleep_and_the_pod_bypassed(node):
    async with scene(node, "agent-killed") as here:
        sleeping_beside = asyncio.create_task(rolled(here, "sleep-15"))
        pod = await here.pod("web", GATE, grace=60)
        async with busy(pod):
            life = await here.delete(pod)
            await held()
            print(f"called {asyncio.get_running_loop().time() - life.deleted_at:.2f} s after the deletion")
            await kill(here, "agent")
            await here.gone(life, 30)
        print(f"held {life.held_seconds:.2f} s")
        assert FALLBACK_SECONDS - 0.5 < life.held_seconds < FALLBACK_SECONDS + 3
        assert life.result is not None and life.result.result is Ending.BYPASSED, life.result
        told(here, {"sleep-15": await sleeping_beside})
