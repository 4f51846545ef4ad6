"""Nodes, proxies and coordinators that change in the middle of a drain."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta

import pytest
from scene import NODES as ADDRESSES
from scene import ask, play, weather
from stage import NS, deployment, first, node_of, other_node

from tidegate import vtime
from tidegate.agent import coordinator as coordinators
from tidegate.agent import drains
from tidegate.kube.api import ENDPOINTSLICES, LEASES, NODES, PODS
from tidegate.kube.errors import Unreachable
from tidegate.lab.kernel.client import egress, egress_path
from tidegate.lab.kernel.tables import decode_entries
from tidegate.lab.kubelet import addresses
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name


def node_object(name, address):
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }  # fmt: skip


def test_a_node_that_joins_in_the_middle_has_a_say_until_its_object_is_gone():
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 3)
        await stage.delete(name)
        await asyncio.sleep(1)
        await stage.api.create(NODES, node_object("node-9", "127.16.0.19"))
        await asyncio.sleep(8)
        assert stage.result(name) is None, "nobody knows what the new node's kernel does"
        await stage.api.delete(NODES, "node-9")
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    play(story)


def test_a_node_without_an_address_is_named_and_never_clean():
    async def story(stage):
        node = node_object("node-9", "")
        node["status"] = {}
        await stage.api.create(NODES, node)
        result, _ = await stage.end(await first(stage))
        assert (result["result"], result["stragglers"]) == ("timed-out", ["node-9"])

    play(story, deployment(grace=20))


def test_a_proxy_that_commits_an_older_table_after_it_had_acknowledged_is_waited_for_again():
    """As a kube-proxy that restarts from a stale list does: its word of before is taken back."""

    async def story(stage):
        name = await first(stage)
        straggler = await other_node(stage, name)
        relapsing = next(node for node in sorted(ADDRESSES) if node != straggler)
        kernel = stage.lab.lab.kernel
        before = decode_entries(json.loads(await kernel.dump(relapsing))["services"])
        stage.fault("proxy-freeze", straggler, 5)
        await stage.delete(name)
        await asyncio.sleep(3)
        current = decode_entries(json.loads(await kernel.dump(relapsing))["services"])
        stage.fault("proxy-freeze", relapsing, 12)  # it must not repair the table before we do
        await kernel.commit(relapsing, before)
        await asyncio.sleep(5)
        assert stage.result(name) is None, "the straggler has let go, the other one routes again"
        await kernel.commit(relapsing, current)
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    play(story)


@pytest.mark.parametrize("offset", [0.0, 0.15, 0.5, 0.85, 0.999])
@pytest.mark.parametrize("grace", [13, 30])
def test_the_deadline_leaves_the_app_its_ten_seconds_wherever_in_a_second_the_delete_falls(grace, offset):
    """deletionTimestamp has whole seconds: what is cut off must come out of our time, never out of the app's."""

    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 100)
        await asyncio.sleep(1 - stage.now % 1 + offset)
        _, seconds = await stage.end(name)
        entries = [e for e in stage.lab.journal() if e.get("pod") == name and e["event"] == "signal-sent"]
        assert grace - 13 - 0.1 <= seconds <= grace - 12 + 0.1
        assert entries[1]["at"] - entries[0]["at"] >= 10, "from SIGTERM to SIGKILL"

    play(story, deployment(grace=grace, env=(("ON_SIGTERM", "ignore"),)))


@pytest.mark.parametrize("slow", [0, 5, 60])
def test_a_node_whose_clock_is_slow_does_not_take_the_apps_time(monkeypatch, slow):
    class SlowClock:
        @staticmethod
        def now():
            return vtime.now() - timedelta(seconds=slow)

    monkeypatch.setattr(drains, "vtime", SlowClock)

    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 100)
        result, seconds = await stage.end(name)
        assert result["result"] == "timed-out"
        assert 16.9 < seconds < 18.1

    play(story, deployment(grace=30))


@pytest.mark.parametrize("grace", [0, 1, 2, 5])
def test_a_grace_that_leaves_no_time_is_never_called_verified(grace):
    async def story(stage):
        name = await first(stage)
        await stage.end(name, grace)
        assert (stage.result(name) or {"result": "timed-out"})["result"] == "timed-out"

    play(story)


def test_a_kubelet_that_asks_again_is_answered_with_the_same_proof():
    """A restarted kubelet runs the hook a second time while the first call is still held."""

    async def story(stage):
        name = await first(stage)
        node = await node_of(stage, name)
        pod = await stage.api.get(PODS, name, NS)
        stage.fault("proxy-freeze", await other_node(stage, name), 5)
        await stage.delete(name)
        await asyncio.sleep(2)
        path = egress_path(stage.lab.lab.ground.kernel_folder, node)
        reader, writer = await egress(path, pod["status"]["podIP"], 15299)
        writer.write(b"GET /gate/echo HTTP/1.1\r\nHost: x\r\n\r\n")
        answered = asyncio.create_task(reader.read(15))
        await asyncio.sleep(2)
        assert not answered.done()
        await stage.gone(name)
        assert await answered == b"HTTP/1.1 200 OK"
        assert stage.result(name)["result"] == "verified"
        writer.close()

    play(story)


@pytest.mark.parametrize("seed", range(3))
def test_addresses_that_are_used_again_at_once_confuse_nobody(monkeypatch, seed):
    monkeypatch.setattr(addresses, "LAST_HOST", addresses.FIRST_HOST + 2)

    async def story(stage):
        for _ in range(4):
            names = sorted(pod["metadata"]["name"] for pod in await stage.pods())
            stage.fault("proxy-freeze", f"node-{1 + seed}", 2)
            for name in names[:2]:
                await stage.delete(name)
            for name in names[:2]:
                await stage.gone(name)
                assert stage.result(name)["result"] == "verified"
            await stage.ready(4)
        ips = {e["ip"] for e in stage.lab.journal() if e["event"] == "process-started" and e["pod"].startswith("echo")}
        starts = [e for e in stage.lab.journal() if e["event"] == "process-started" and e["pod"].startswith("echo")]
        assert len(ips) < len(starts)

    play(story, deployment(replicas=4), seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_connections_opened_in_the_very_moment_of_the_commit_are_waited_for(seed):
    """Every millisecond one from every node: some are given the pod just before its route goes."""

    async def story(stage):
        name = await first(stage)
        asking = []

        async def one(node):
            reader, writer = await ask(stage, "/sleep?ms=40", node)
            answer = await reader.read()
            writer.close()
            return answer[:15]

        async def many():
            while True:
                for node in sorted(ADDRESSES):
                    asking.append(asyncio.create_task(one(node)))
                await asyncio.sleep(0.004)

        load = asyncio.create_task(many())
        result, _ = await stage.end(name)
        load.cancel()
        assert result["result"] == "verified"
        assert {await each for each in asking} == {b"HTTP/1.1 200 OK"}

    play(story, seed=seed)


# --- two coordinators ---


@contextlib.asynccontextmanager
async def second_coordinator(stage):
    """Another coordinator of the same cluster, standing by."""
    program = vtime.Program(
        env={
            "TIDEGATE_SERVER": stage.lab.config.addressing.server,
            "TIDEGATE_POD": "second",
            "TIDEGATE_NODE_ADDRESS": "127.16.0.13",
        }
    )
    process = vtime.Process(coordinators.main, program, "second")
    try:
        yield process
    finally:
        process.end(0)


async def holder_of_the_lease(stage):
    lease = await stage.api.get(LEASES, "tidegate-coordinator", SYSTEM_NAMESPACE)
    return lease["spec"]["holderIdentity"]


def test_a_second_coordinator_takes_over_from_one_that_is_gone_and_the_drain_goes_on():
    async def story(stage):
        async with second_coordinator(stage):
            await asyncio.sleep(1)
            name = await first(stage)
            stage.fault("proxy-freeze", await other_node(stage, name), 12)
            await stage.delete(name)
            await asyncio.sleep(2)
            assert await holder_of_the_lease(stage) == "tidegate-coordinator"
            stage.kill("tidegate-coordinator/coordinator")
            await stage.api.delete(PODS, "tidegate-coordinator", SYSTEM_NAMESPACE)
            await stage.gone(name)
            assert await holder_of_the_lease(stage) == "second"
            assert stage.result(name)["result"] == "verified"

    play(story)


@pytest.mark.parametrize("delay", [0.5, 3.0, 7.0])
def test_an_epoch_that_a_former_leader_wrote_arrives_late_and_proves_nothing_it_should_not(monkeypatch, delay):
    slice_path = f"/endpointslices/{fence_name('main')}-ipv4"

    async def story(stage):
        late = []

        async def delayed(request):
            if request.method == "PUT" and slice_path in request.path and not late:
                late.append(stage.now)
                await asyncio.sleep(delay)

        async with second_coordinator(stage):
            turn(delayed)
            name = await first(stage)
            await stage.delete(name)
            await asyncio.sleep(0.3)
            assert late, "the leader's write is under way"
            others = [pod["metadata"]["name"] for pod in await stage.pods()]
            await stage.delete(others[0])
            await stage.gone(name)
            await stage.gone(others[0])
            assert stage.result(name)["result"] == stage.result(others[0])["result"] == "verified"
            turn(None)

    with weather(monkeypatch) as turn:
        play(story)


def test_two_coordinators_that_both_write_never_let_a_drain_pass_on_a_fence_of_before_its_list(monkeypatch):
    """Both believe they lead (their clocks say so): epochs interleave, one of two writes loses, nobody is fooled."""
    monkeypatch.setattr(coordinators.Lease, "is_held", property(lambda self: True))

    async def story(stage):
        async with second_coordinator(stage):
            await asyncio.sleep(2)
            for name in [pod["metadata"]["name"] for pod in await stage.pods()][:2]:
                stage.fault("proxy-lag", await other_node(stage, name), 1.5)
                await stage.end(name)
                assert stage.result(name)["result"] == "verified"
            found = await stage.api.get(ENDPOINTSLICES, f"{fence_name('main')}-ipv4", SYSTEM_NAMESPACE)
            assert len(found["endpoints"]) == 1

    play(story)


def test_a_coordinator_that_is_cut_off_from_the_api_only_costs_time(monkeypatch):
    async def cut_off(request):
        if "/pods/" not in request.path:
            raise Unreachable("cut off")

    async def story(stage):
        name = await first(stage)
        await stage.delete(name)
        await asyncio.sleep(0.01)
        turn(cut_off)
        await asyncio.sleep(6)
        assert stage.result(name) is None
        turn(None)
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    with weather(monkeypatch) as turn:
        play(story)
