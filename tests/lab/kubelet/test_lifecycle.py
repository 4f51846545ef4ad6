"""A pod's life on a node, under virtual time."""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.kube.api import LEASES, NODES, PODS, Patch

from .kubelet_world import NODE_IP, Gate, condition, container, node, readiness, status_of


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


def test_a_host_network_pod_has_its_nodes_address_and_cannot_use_a_gate_without_a_host():
    async def story():
        async with node() as world:
            gate = Gate(seconds=5.0)
            await world.serve_gate(gate)
            hook = {"preStop": {"httpGet": {"path": "/gate/app", "port": 15299}}}
            await world.bind("agent", container(lifecycle=hook), hostNetwork=True)
            pod = await world.ready("agent")
            assert pod["status"]["podIP"] == NODE_IP
            await world.bind("web")
            assert (await world.ready("web"))["status"]["podIP"] == "127.17.1.2"
            await world.delete("agent")
            await world.gone("agent")
            assert gate.calls == []
            assert await world.events("FailedPreStopHook") == ["PreStopHook failed"]

    vtime.run(story())


def test_a_pod_held_by_a_finalizer_is_not_started_again():
    async def story():
        async with node() as world:
            await world.bind("web")
            await world.ready("web")
            await world.api.patch(PODS, "web", Patch({"metadata": {"finalizers": ["a/b"]}}), "default")
            await world.delete("web")
            await asyncio.sleep(5)
            pod = await world.pod("web")
            assert pod["status"]["phase"] == "Failed"
            await world.api.patch(PODS, "web", Patch({"metadata": {"labels": {"still": "here"}}}), "default")
            await asyncio.sleep(5)
            assert (await world.pod("web"))["status"]["phase"] == "Failed"
            assert len(world.journal.of("process-started")) == 1
            await world.api.patch(PODS, "web", Patch({"metadata": {"finalizers": []}}), "default")
            await world.gone("web")

    vtime.run(story())


def test_a_new_image_restarts_the_container():
    async def story():
        async with node() as world:
            await world.bind("web")
            await world.ready("web")
            body = {"spec": {"containers": [{"name": "app", "image": "tidegate/echo:v2"}]}}
            await world.api.patch(PODS, "web", Patch(body, "strategic"), "default")
            pod = await world.until("web", lambda pod: status_of(pod)["restartCount"] == 1)
            assert status_of(pod)["image"] == "tidegate/echo:v2"
            assert await world.events("Killing") == ["Container app definition changed, will be restarted"]

    vtime.run(story())
