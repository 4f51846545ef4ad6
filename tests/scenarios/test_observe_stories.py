"""Rollouts watched as they are, held against the kernels' own journal: who routed to whom after SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from scene import NODES, ask, play
from stage import NS, deployment

from tidegate import vtime
from tidegate.client.observe import Observation, Subject, observe
from tidegate.kube.api import DEPLOYMENTS, Patch
from tidegate.kube.errors import ApiError

PLAIN = deployment(gate=False)
RESTART = {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}}


@contextlib.asynccontextmanager
async def load(stage, per_second=60):
    """New connections through the Service, from every node in turn."""

    async def one(node):
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await ask(stage, source=node)
            await asyncio.wait_for(reader.read(), 5)
            writer.close()

    async def steadily():
        names = sorted(NODES)
        number = 0
        while True:
            asyncio.ensure_future(one(names[number % 3])).add_done_callback(lambda task: task.exception())
            number += 1
            await asyncio.sleep(1 / per_second)

    task = asyncio.create_task(steadily())
    try:
        yield
    finally:
        task.cancel()


async def watched(stage, subject, change, seconds=30.0):
    found = Observation(subject, vtime.now())

    async def watching():
        async for _ in observe(stage.client, subject, seconds, found):
            pass

    async with load(stage):
        task = asyncio.create_task(watching())
        await asyncio.sleep(2)
        await change()
        await task
    return found


def restarted(stage):
    return stage.api.patch(DEPLOYMENTS, "echo", Patch(RESTART), NS)


def exposures(stage):
    """Pod -> (node -> seconds routed after its SIGTERM, connections given to it after it), by the kernels' journal."""
    entries = sorted(stage.lab.journal(), key=lambda entry: entry["at"])
    ips = {entry["pod"]: entry["ip"] for entry in entries if entry["event"] == "process-started"}
    told = {}
    for entry in entries:
        if entry["event"] == "signal-sent" and entry["signal"] in ("SIGTERM", 15):
            told.setdefault(entry["pod"], entry["at"])
    found = {}
    for pod, at in told.items():
        nodes = {}
        for entry in entries:
            if entry["event"] == "table-committed" and entry["at"] >= at:
                routed = {to.rpartition(":")[0] for all_ in entry["services"].values() for to in all_}
                if ips[pod] not in routed:
                    nodes.setdefault(entry["node"], entry["at"] - at)
        is_out = {}
        for entry in entries:  # who had let go before has no exposure
            if entry["event"] == "table-committed" and entry["at"] < at:
                routed = {to.rpartition(":")[0] for all_ in entry["services"].values() for to in all_}
                is_out[entry["node"]] = ips[pod] not in routed
        opened = sum(
            entry["event"].startswith("connection-")
            and entry["endpoint"].rpartition(":")[0] == ips[pod]
            and entry["opened"] >= at
            for entry in entries
        )
        found[pod] = ({node: 0.0 if is_out.get(node) else late for node, late in nodes.items()}, opened)
    return found


def assert_agrees(found, truth):
    """Each node's figure is the journal's, give or take what a watch and an answer take."""
    assert found.exposures
    for one in found.exposures:
        nodes, opened = truth[one.pod]
        seen = {each.observer: one.after_sigterm(each) for each in one.observers if each.kind == "agent"}
        assert seen.keys() == nodes.keys() == {"node-1", "node-2", "node-3"}
        for node, seconds in seen.items():
            assert seconds == pytest.approx(nodes[node], abs=0.1), (one.pod, node)
        assert one.opened is None or one.opened <= opened, "at least so many, never more"


def test_a_plain_rollout_is_measured_as_the_kernels_journal_has_it():
    async def story(stage):
        found = await watched(stage, Subject(NS, "deploy", "echo"), lambda: restarted(stage))
        return found, exposures(stage)

    found, truth = play(story, PLAIN)
    assert len(found.exposures) == 3
    assert_agrees(found, truth)
    worst = max(max(nodes.values()) for nodes, _ in truth.values())
    judgement = found.judgement
    assert judgement.exposed == 3 and judgement.exposed_seconds == pytest.approx(worst, abs=0.1)
    assert worst <= judgement.sleep_seconds <= worst + 1.2
    assert judgement.gate_seconds[1] == pytest.approx(worst, abs=0.2)


def test_one_node_whose_proxy_lags_is_named():
    async def story(stage):
        stage.fault("proxy-lag", "node-2", 8)
        found = await watched(stage, Subject(NS, "svc", "echo"), lambda: restarted(stage), 60.0)
        return found, exposures(stage)

    found, truth = play(story, PLAIN)
    assert_agrees(found, truth)
    assert {one.last.observer for one in found.exposures} == {"node-2"}
    assert all(7.5 < one.exposed_seconds < 11 for one in found.exposures)
    assert all("node-2" in one.sentence for one in found.exposures)
    assert found.judgement.sleep_seconds >= 8


def test_a_gated_rollout_exposes_nobody_and_says_what_it_took():
    async def story(stage):
        return await watched(stage, Subject(NS, "deploy", "echo"), lambda: restarted(stage)), exposures(stage)

    found, truth = play(story)
    assert [nodes for nodes, _ in truth.values() if max(nodes.values())] == []
    assert len(found.exposures) == 3
    for one in found.exposures:
        assert (one.exposed_seconds, one.exposed_to, one.is_gated, one.result) == (0.0, (), True, "verified")
    assert found.judgement.exposed == 0


def test_an_app_that_serves_on_after_sigterm_shows_what_it_was_still_given():
    manifest = deployment(gate=False, grace=15, env=(("ON_SIGTERM", "ignore"), ("LATENCY_MS", "400")))

    async def story(stage):
        stage.fault("proxy-lag", "node-2", 8)
        found = await watched(stage, Subject(NS, "deploy", "echo"), lambda: restarted(stage), 80.0)
        return found, exposures(stage)

    found, truth = play(story, manifest)
    assert_agrees(found, truth)
    assert all(one.opened for one in found.exposures), "they were accepted, so the pod's own sockets show them"


def test_a_sleep_is_counted_from_its_end():
    manifest = deployment(gate=False)
    manifest["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}

    async def story(stage):
        return await watched(stage, Subject(NS, "deploy", "echo"), lambda: restarted(stage)), exposures(stage)

    found, truth = play(story, manifest)
    assert_agrees(found, truth)
    assert found.judgement.exposed == 0
    assert all("preStop sleeps" in one.sigterm.source for one in found.exposures)


def test_a_hook_that_nobody_can_time_leaves_the_exposure_unknown():
    manifest = deployment(gate=False)
    hook = {"preStop": {"exec": {"command": ["/bin/finish", "--gently"]}}}
    manifest["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = hook

    async def story(stage):
        return await watched(stage, Subject(NS, "deploy", "echo"), lambda: restarted(stage))

    found = play(story, manifest)
    assert {one.exposed_seconds for one in found.exposures} == {None}
    assert "is not known" in found.exposures[0].sentence
    assert found.judgement.sleep_seconds is not None, "what had to be waited is known all the same"


def test_without_agents_it_says_that_it_sees_slices_only():
    async def story(stage):
        return await watched(stage, Subject(NS, "deploy", "echo"), lambda: restarted(stage))

    found = play(story, PLAIN, addons=())
    assert len(found.exposures) == 3
    assert {each.kind for one in found.exposures for each in one.observers} == {"EndpointSlice"}
    assert "only the EndpointSlices are seen" in found.notes[0]
    assert (found.judgement.sleep_seconds, found.judgement.unknown) == (None, 3)
    assert all(one.opened is None and one.exposed_seconds is None for one in found.exposures), "not known is not zero"


def test_a_node_whose_agent_is_silent_is_a_gap_and_no_sleep_is_recommended():
    async def story(stage):
        stage.kill("tidegate-agent-node-3/agent")
        stage.fault("proxy-lag", "node-3", 4)

        async def change():
            await restarted(stage)

        found = Observation(Subject(NS, "deploy", "echo"), vtime.now())

        async def watching():
            async for _ in observe(stage.client, found.subject, 20.0, found):
                pass

        task = asyncio.create_task(watching())
        await asyncio.sleep(0.5)
        for _ in range(60):  # it is started again by its kubelet each time
            with contextlib.suppress(AssertionError):
                stage.kill("tidegate-agent-node-3/agent")
            await asyncio.sleep(0.05)
        await change()
        for _ in range(400):
            with contextlib.suppress(AssertionError):
                stage.kill("tidegate-agent-node-3/agent")
            await asyncio.sleep(0.05)
        await task
        return found

    found = play(story, PLAIN)
    silent = [each for one in found.exposures for each in one.observers if each.observer == "node-3"]
    assert silent and all("not seen" in each.gap for each in silent)
    assert found.judgement.sleep_seconds is None


def test_a_subject_that_is_not_there_is_an_error_and_pods_without_a_service_are_counted():
    async def story(stage):
        with pytest.raises(ApiError):
            await watched(stage, Subject(NS, "svc", "nobody"), lambda: restarted(stage), 1.0)
        return await watched(stage, Subject(NS), lambda: restarted(stage), 20.0)

    assert len(play(story, PLAIN).exposures) == 3


def test_stopping_early_tells_what_was_seen_so_far():
    async def story(stage):
        found = Observation(Subject(NS), vtime.now())
        stage.fault("proxy-freeze", "node-2", 60)

        async def watching():
            async for _ in observe(stage.client, found.subject, 300.0, found):
                pass

        task = asyncio.create_task(watching())
        await asyncio.sleep(2)
        await restarted(stage)
        await asyncio.sleep(6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    found = play(story, PLAIN)
    assert found.exposures and found.ended is not None
    assert {one.last.observer for one in found.exposures} == {"node-2"}
    assert all("at least" in one.sentence for one in found.exposures if one.exposed_to)
