"""Ways in which pods leave beside a rolling update, each with somebody still connected."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from scene import asked_of, play
from stage import NS, deployment, first, other_node

from tidegate.client import VerbOptions, drain_pod
from tidegate.dataplane.sockets import NO_INBOUND
from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, PODS, SERVICES, Deletion, Patch
from tidegate.kube.errors import ApiError


async def service_deleted(stage, name):
    await stage.api.delete(SERVICES, "echo", NS)


async def label_taken_off(stage, name):
    await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "other"}}}), NS)


async def selector_changed(stage, name):
    await stage.api.patch(SERVICES, "echo", Patch({"spec": {"selector": {"app": "nothing"}}}), NS)


@pytest.mark.parametrize("undeclared", [False, True])
@pytest.mark.parametrize("isolated", [service_deleted, label_taken_off, selector_changed])
def test_a_pod_that_is_in_no_service_any_more_still_waits_for_its_connections(isolated, undeclared):
    """No slice says where it serves, but its clients of before are still there."""
    manifest = deployment()
    if undeclared:
        del manifest["spec"]["template"]["spec"]["containers"][0]["ports"]

    async def story(stage):
        name = await first(stage)
        reader, writer = await asked_of(stage, name, "/sleep?ms=9000")
        await isolated(stage, name)
        await asyncio.sleep(1)
        result, seconds = await stage.end(name)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert result["result"] == "verified"
        assert 7.5 < seconds < 9

    play(story, manifest)


def test_a_namespace_that_is_deleted_lets_its_requests_finish():
    async def story(stage):
        name = await first(stage)
        reader, writer = await asked_of(stage, name, "/sleep?ms=5000")
        names = [pod["metadata"]["name"] for pod in await stage.pods()]
        await stage.api.delete(NAMESPACES, NS)
        for one in names:
            await stage.gone(one)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert {stage.result(one)["result"] for one in names} == {"verified"}

    play(story)


def test_a_pod_that_listens_on_nothing_and_is_in_no_service_is_not_waited_for_nor_called_idle():
    manifest = deployment(replicas=2)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    del container["ports"], container["readinessProbe"]
    container |= {"image": "busybox", "command": ["sleep", "infinity"]}
    manifest["spec"]["template"]["metadata"]["labels"] = {"app": "worker"}
    manifest["spec"]["selector"]["matchLabels"] = {"app": "worker"}

    async def story(stage):
        result, seconds = await stage.end(await first(stage))
        assert (result["result"], result["reason"]) == ("assumed", NO_INBOUND)
        assert seconds < 1.5

    play(story, manifest)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_pods_of_a_deployment_that_is_deleted_are_not_held_for_a_replacement_that_cannot_come(propagation):
    async def story(stage):
        names = [pod["metadata"]["name"] for pod in await stage.pods()]
        began = stage.now
        await stage.api.delete(DEPLOYMENTS, "echo", NS, Deletion(propagation=propagation))
        for name in names:
            await stage.gone(name)
        assert stage.now - began < 7
        assert {stage.result(name)["result"] for name in names} == {"bypassed"}
        assert all("is deleted" in stage.result(name)["reason"] for name in names)

    play(story)


def test_a_workload_that_is_scaled_to_zero_while_its_last_endpoint_waits_is_let_go():
    async def story(stage):
        name = await first(stage)
        began = stage.now
        await stage.delete(name)
        await asyncio.sleep(3)
        assert stage.result(name) is None, "it waits for the new pod to get ready"
        await stage.scale(0)
        await stage.gone(name)
        assert stage.now - began < 9
        assert "scaled to zero" in stage.result(name)["reason"]

    play(story, deployment(replicas=1, env=(("STARTUP_SECONDS", "20"),)))


def test_deployments_that_roll_at_once_share_their_epochs():
    others = [deployment(replicas=2) for _ in range(3)]
    for index, other in enumerate(others):
        labels = {"app": f"other-{index}"}
        other["metadata"]["name"] = f"other-{index}"
        other["spec"]["selector"]["matchLabels"] = other["spec"]["template"]["metadata"]["labels"] = labels

    async def story(stage):
        for index, other in enumerate(others):
            service = {"selector": {"app": f"other-{index}"}, "ports": [{"port": 8080, "name": "http"}]}
            metadata = {"name": f"other-{index}", "namespace": NS}
            await stage.api.create(
                SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}
            )
            await stage.api.create(DEPLOYMENTS, other)
        await stage.ready(8)
        old = [pod["metadata"]["name"] for pod in await stage.pods()]
        image = {"spec": {"template": {"metadata": {"annotations": {"rolled": "yes"}}}}}
        for name in ("echo", "other-0", "other-1", "other-2"):
            await stage.api.patch(DEPLOYMENTS, name, Patch(image), NS)
        for name in old:
            await stage.gone(name)
        results = [stage.result(name) for name in old]
        assert {result["result"] for result in results} == {"verified"}
        assert len(old) == 8
        assert len({result["epoch"] for result in results}) <= 4, "one per batch, not one per pod"

    play(story, deployment(replicas=2))


def test_an_ungated_container_beside_the_gate_is_never_verified_once_it_has_ended():
    """SIGTERM goes to it at once: the pod's gate holds the other container only."""
    manifest = deployment(containers=("echo", "side"))
    del manifest["spec"]["template"]["spec"]["containers"][0]["lifecycle"]

    async def story(stage):
        result, _ = await stage.end(await first(stage))
        assert result["result"] == "bypassed"
        assert "no LISTEN socket" in result["reason"]

    play(story, manifest)


def test_publishing_addresses_that_are_not_ready_is_answered_at_once():
    async def story(stage):
        await stage.api.patch(SERVICES, "echo", Patch({"spec": {"publishNotReadyAddresses": True}}), NS)
        await asyncio.sleep(1)
        result, seconds = await stage.end(await first(stage))
        assert result["result"] == "bypassed"
        assert "publishNotReadyAddresses" in result["reason"]
        assert seconds < 0.5

    play(story)


def test_clients_of_a_headless_service_make_the_result_assumed():
    async def story(stage):
        headless = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "direct", "namespace": NS},
            "spec": {"clusterIP": "None", "selector": {"app": "echo"}, "ports": [{"port": 8080, "name": "http"}]},
        }  # fmt: skip
        await stage.api.create(SERVICES, headless)
        await asyncio.sleep(1)
        result, _ = await stage.end(await first(stage))
        assert result["result"] == "assumed"
        assert "direct" in result["reason"]

    play(story)


def test_a_service_created_in_the_middle_that_has_only_this_pod_is_waited_for():
    """It falls back to the leaving pod, for it has no other: the drain must not end on the epoch of before."""

    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 4)
        await stage.delete(name)
        await asyncio.sleep(1.5)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"lonely": "yes"}}}), NS)
        lonely = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "lonely", "namespace": NS},
            "spec": {"selector": {"lonely": "yes"}, "ports": [{"port": 8080, "name": "http"}]},
        }  # fmt: skip
        await stage.api.create(SERVICES, lonely)
        await stage.gone(name)
        result = stage.result(name)
        assert result["result"] == "timed-out"
        assert "no other endpoint of demo/lonely is ready" in result["reason"]

    play(story, deployment(grace=30))


@pytest.mark.parametrize("after", [0.0, 0.2, 0.5, 0.54, 0.55, 0.553, 0.556])
def test_a_pod_whose_label_is_flipped_around_its_end_is_never_falsely_verified(after):
    async def story(stage):
        name = await first(stage)
        await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "off"}}}), NS)
        await asyncio.sleep(1.5)
        await stage.delete(name)
        await asyncio.sleep(after)
        with contextlib.suppress(ApiError):
            await stage.api.patch(PODS, name, Patch({"metadata": {"labels": {"app": "echo"}}}), NS)
        await stage.gone(name)
        assert stage.result(name)["result"] in ("verified", "timed-out")

    play(story)


def test_a_client_that_keeps_his_side_open_does_not_hold_a_pod_that_has_closed_its_own():
    async def story(stage):
        name = await first(stage)
        _, kept = await asked_of(stage, name, "/sleep?ms=500")
        await asyncio.sleep(1)
        result, seconds = await stage.end(name)
        assert result["result"] == "verified"
        assert seconds < 1.5
        kept.close()

    play(story)


def test_a_kept_connection_that_never_ends_names_its_client():
    async def story(stage):
        name = await first(stage)
        _, writer = await asked_of(stage, name, "/", source="node-3", keep=True)
        result, _ = await stage.end(name)
        writer.close()
        assert result["result"] == "timed-out"
        assert "127.16.0.13" in result["reason"]

    play(story, deployment(grace=20))


def test_a_broken_release_that_is_undone_is_not_held_longer_than_a_sleep_would():
    """Its pods never listened: nobody can tell their sockets from those of another network, ever."""

    def starting_up(seconds):
        container = {"name": "echo", "env": [{"name": "STARTUP_SECONDS", "value": str(seconds)}]}
        return Patch({"spec": {"template": {"spec": {"containers": [container]}}}}, "strategic")

    async def story(stage):
        good = {pod["metadata"]["name"] for pod in await stage.pods()}
        await stage.api.patch(DEPLOYMENTS, "echo", starting_up(600), NS)
        await asyncio.sleep(5)
        broken = {pod["metadata"]["name"] for pod in await stage.pods()} - good
        began = stage.now
        await stage.api.patch(DEPLOYMENTS, "echo", starting_up(0), NS)
        for name in sorted(broken):
            await stage.gone(name)
            assert stage.result(name)["result"] == "bypassed"
        assert 15 <= stage.now - began < 17

    play(story)


def test_an_app_that_crashes_in_the_hold_is_not_held_longer_than_a_sleep_would_and_never_verified():
    async def story(stage):
        name = await first(stage)
        began = stage.now
        await stage.delete(name)
        await asyncio.sleep(0.2)
        stage.kill(f"{name}/echo")
        await stage.gone(name)
        assert stage.result(name)["result"] == "bypassed"
        assert 15 <= stage.now - began < 17

    play(story)


def test_a_host_network_pod_cannot_be_held_and_is_not_called_verified():
    """The kubelet does not find its network (k/k#134285): its hook fails, and failing opens the gate."""
    manifest = deployment()
    manifest["spec"]["template"]["spec"]["hostNetwork"] = True

    async def story(stage):
        result, seconds = await stage.end(await first(stage))
        assert result is None, "no record: that reads as bypassed"
        assert seconds < 0.5

    play(story, manifest)


def test_a_container_that_is_restarted_while_its_pod_is_drained_by_labels_is_waited_for():
    """A liveness restart: for a while nothing listens, and that is not quiet."""

    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 3)
        running = asyncio.create_task(drain_pod(stage.client, NS, name, VerbOptions(replace=False, seed=0)))
        await asyncio.sleep(2.9)
        stage.kill(f"{name}/echo")
        result = await asyncio.wait_for(running, 60)
        assert result.result.value == "verified"
        assert result.seconds > 4
        restarts = [e for e in stage.lab.journal() if e["event"] == "process-started" and e["pod"] == name]
        assert len(restarts) == 2

    play(story, deployment(gate=False, env=(("STARTUP_SECONDS", "1"),)))
