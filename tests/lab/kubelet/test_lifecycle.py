"""A pod's life on a node, under virtual time."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import LEASES, NODES

from .kubelet_world import NODE_IP, condition, container, node, readiness, status_of


def test_a_pod_without_probes_is_ready_as_soon_as_it_runs():
    async def story():
        async with node() as world:
            await world.bind("web")
            pod = await world.ready("web")
            assert world.now < 0.05
            status = pod["status"]
            assert status["phase"] == "Running"
            assert (status["podIP"], status["hostIP"]) == ("127.17.1.2", NODE_IP)
            assert {entry["type"]: entry["status"] for entry in status["conditions"]} == dict.fromkeys(
                ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"], "True"
            )
            entry = status_of(pod)
            assert (entry["ready"], entry["started"], entry["restartCount"]) == (True, True, 0)
            assert entry["containerID"].startswith("process://")
            assert await world.events("Started") == ["Container started"]

    vtime.run(story())


def test_a_deleted_pod_gets_sigterm_at_once_and_is_gone_when_its_process_is():
    async def story():
        async with node() as world:
            await world.bind("web")
            await world.ready("web")
            asked = world.now
            await world.delete("web")
            await world.gone("web")
            assert world.now - asked < 0.1
            [entry] = world.journal.of("process-exited")
            assert entry["code"] == 143
            assert [entry["signal"] for entry in world.journal.of("signal-sent")] == ["SIGTERM"]
            assert await world.events("Killing") == ["Stopping container app"]

    vtime.run(story())


def test_a_pod_is_ready_only_after_its_readiness_probe():
    async def story():
        async with node() as world:
            env = [{"name": "STARTUP_SECONDS", "value": "0.3"}]
            await world.bind("web", container(env=env, readinessProbe=readiness(period=1)))
            pod = await world.until("web", lambda pod: pod["status"]["phase"] == "Running")
            assert condition(pod, "Ready") == "False"
            await world.ready("web")
            assert 1.0 <= world.now < 1.1  # refused at once, then the next tick
            [message] = await world.events("Unhealthy")
            assert message.startswith("Readiness probe failed: Get") and message.endswith("connection refused")

    vtime.run(story())


def test_the_node_is_registered_and_renews_its_lease():
    async def story():
        async with node() as world:
            [item] = (await world.api.list(NODES)).items
            assert item["metadata"]["name"] == "node-1"
            assert {"type": "InternalIP", "address": NODE_IP} in item["status"]["addresses"]
            before = (await world.api.get(LEASES, "node-1", "kube-node-lease"))["spec"]["renewTime"]
            await asyncio.sleep(11)
            after = (await world.api.get(LEASES, "node-1", "kube-node-lease"))["spec"]["renewTime"]
            assert after > before

    vtime.run(story())
