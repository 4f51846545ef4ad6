"""What is left of a retirement: the ledger of agents and of the command line, held against the lab's own journal."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

import pytest
from scene import asked_of, play
from stage import NS, deployment, first, node_of, other_node

from tidegate.client import VerbOptions, cut_pod, drain_pod, isolate_pod, restore_pod
from tidegate.client.ledger import Wanted, entries_of, find
from tidegate.client.options import Identity
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import DEPLOYMENTS, PODS, Patch

UNGATED = deployment(gate=False)


@pytest.fixture
def kept(tmp_path):
    return Ledger(str(tmp_path / "ledger.jsonl"))


def options(kept, **more):
    return VerbOptions(seed=0, identity=Identity("ann@desk", "one"), ledger=kept, **more)


def unrouted(stage, ip, since):
    """Node -> seconds from ``since`` to the table without ``ip``, from the kernels' journal."""
    found = {}
    for entry in sorted(stage.lab.journal(), key=lambda entry: entry["at"]):
        if entry["event"] != "table-committed":
            continue
        is_routed = any(to.rpartition(":")[0] == ip for all_ in entry["services"].values() for to in all_)
        if not is_routed and entry["at"] >= since:
            found.setdefault(entry["node"], entry["at"] - since)
        elif is_routed:
            found.pop(entry["node"], None)
    return found


def wall(text):
    return datetime.fromisoformat(text).timestamp()


async def ip_of(stage, name):
    return (await stage.api.get(PODS, name, NS))["status"]["podIP"]


def test_a_gates_drain_is_kept_by_its_agent_with_every_nodes_word():
    async def story(stage):
        name = await first(stage)
        ip, own = await ip_of(stage, name), await node_of(stage, name)
        lagging = await other_node(stage, name)
        stage.fault("proxy-lag", lagging, 3)
        _, writer = await asked_of(stage, name, source=own)
        await stage.delete(name)
        await stage.gone(name)
        writer.close()
        [entry] = await entries_of(stage.client, NS, name, Ledger())
        return stage.result(name), entry, own, lagging, unrouted(stage, ip, wall(entry.cut)), stage.told_to_stop(name)

    result, entry, own, lagging, truth, told_to_stop = play(story)
    assert (entry.verb, entry.mode, entry.result) == ("gate", "gate", "verified")
    assert (entry.node, entry.stamp, entry.cluster) == (own, f"node/{own}", "lab")
    assert entry.epoch.endswith(f"/{result['epoch']}") and entry.seconds == pytest.approx(result["seconds"], abs=0.01)
    assert wall(entry.at) <= told_to_stop
    assert {one.observer for one in entry.answers} == truth.keys() == {"node-1", "node-2", "node-3"}
    for answer in entry.answers:
        assert answer.seconds >= truth[answer.observer] - 0.002, "nobody acknowledges before its table says so"
        assert answer.digest and answer.evidence and wall(answer.at) <= wall(entry.at)
    assert entry.slowest.observer == lagging
    assert [turn.verdict for turn in entry.slowest.history][-1] == "confirmed" and len(entry.slowest.history) > 1
    assert (entry.connections_at_cut.count, entry.connections_at_end.count) == (1, 0)
    assert len(entry.connections_at_cut.clients) == 1


def test_a_drain_by_labels_is_kept_by_who_asked_for_it(kept):
    async def story(stage):
        name = await first(stage)
        ip = await ip_of(stage, name)
        await drain_pod(stage.client, NS, name, options(kept, reason="disk full", replace=False))
        [entry] = await entries_of(stage.client, NS, name, kept)
        return entry, unrouted(stage, ip, wall(entry.cut))

    entry, truth = play(story, UNGATED)
    assert (entry.verb, entry.by, entry.why, entry.result) == ("drain", "ann@desk", "disk full", "verified")
    assert (entry.services, entry.on_deadline, entry.uid != "") == (("demo/echo",), "hold", True)
    for answer in entry.answers:
        assert answer.seconds == pytest.approx(truth[answer.observer], abs=0.5), (
            "the first round's word, not the last's"
        )
    assert (entry.connections_at_cut.count, entry.connections_at_end.count) == (0, 0)


def test_a_cluster_without_agents_leaves_what_was_assumed_and_no_epoch(kept):
    async def story(stage):
        name = await first(stage)
        await drain_pod(stage.client, NS, name, options(kept, replace=False, settle_seconds=3.0))
        return await find(stage.client, kept, Wanted(NS, name))

    found = play(story, UNGATED, addons=())
    [entry] = found.entries
    assert (entry.result, entry.epoch) == ("assumed", "")
    assert {one.verdict for one in entry.answers} == {"assumed"}
    assert (entry.connections_at_cut.count, entry.connections_at_cut.problem) == (None, "not read")


def test_a_straggler_stands_in_it_with_its_story_and_another_run_is_another_line(kept):
    async def story(stage):
        name = await first(stage)
        late = await other_node(stage, name)
        stage.fault("proxy-freeze", late, 20)
        await drain_pod(stage.client, NS, name, options(kept, replace=False, timeout_seconds=5.0))
        await asyncio.sleep(20)
        await drain_pod(stage.client, NS, name, options(kept, replace=False))
        return await entries_of(stage.client, NS, name, kept), late

    (overdue, proven), late = play(story, UNGATED)
    assert (overdue.result, overdue.stragglers, overdue.slowest.observer) == ("timed-out", (late,), late)
    assert overdue.slowest.seconds is None and overdue.slowest.history
    assert (proven.result, proven.stragglers, proven.token) == ("verified", (), overdue.token)


def test_cut_isolate_and_restore_leave_a_line_each_and_a_refusal_none(kept):
    async def story(stage):
        name, other, _ = sorted(pod["metadata"]["name"] for pod in await stage.pods())
        chosen = options(kept, timeout_seconds=60)
        await cut_pod(stage.client, NS, name, chosen)
        await restore_pod(stage.client, (NS, name), chosen)
        await isolate_pod(stage.client, (NS, other), True, chosen)
        await cut_pod(stage.client, NS, other, options(kept, timeout_seconds=60, floor=9))
        return [(one.verb, one.pod == name, one.result) for one in (await find(stage.client, kept, Wanted(NS))).entries]

    kinds = play(story, UNGATED)
    assert kinds[0] == ("cut", True, "verified")
    assert ("restore", True, "verified") in kinds and ("isolate", False, "verified") in kinds
    assert [verb for verb, _, _ in kinds].count("cut") == 1, "nothing was changed by what was refused"


def test_a_process_that_is_stopped_says_so_in_its_line(kept):
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 60)
        drain = asyncio.create_task(drain_pod(stage.client, NS, name, options(kept, replace=False)))
        await asyncio.sleep(5)
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)
        return await entries_of(stage.client, NS, name, kept)

    [entry] = play(story, UNGATED)
    assert entry.result == "interrupted"
    assert entry.cut and entry.slowest.seconds is None


def test_an_agent_that_is_killed_in_a_hold_leaves_bypassed():
    async def story(stage):
        name = await first(stage)
        own = await node_of(stage, name)
        stage.fault("proxy-freeze", await other_node(stage, name), 90)
        await stage.delete(name)
        await asyncio.sleep(5)
        stage.kill(f"tidegate-agent-{own}/agent")
        await stage.gone(name)
        await asyncio.sleep(3)
        return await entries_of(stage.client, NS, name, Ledger())

    entries = play(story)
    assert [one.result for one in entries] == ["bypassed"] * len(entries) and entries


def test_a_rollout_leaves_a_line_for_every_pod_of_it():
    async def story(stage):
        before = {pod["metadata"]["name"] for pod in await stage.pods()}
        restart = {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}}
        await stage.api.patch(DEPLOYMENTS, "echo", Patch(restart), NS)
        for name in sorted(before):
            await stage.gone(name)
        found = (await find(stage.client, Ledger(), Wanted(NS))).entries
        later = (await find(stage.client, Ledger(), Wanted(NS, since=found[-1].at))).entries
        return before, found, later

    before, found, later = play(story)
    assert {one.pod for one in found} == before
    assert {one.result for one in found} == {"verified"}
    assert later == tuple(one for one in found if one.at >= found[-1].at)


def test_a_holder_that_dies_in_a_hold_leaves_bypassed_once():
    async def story(stage):
        name = await first(stage)
        own = await node_of(stage, name)
        stage.fault("proxy-freeze", await other_node(stage, name), 90)
        await stage.delete(name)
        await asyncio.sleep(3)
        stage.kill(f"tidegate-agent-{own}/holder")
        await stage.gone(name)
        await asyncio.sleep(1)
        return stage.result(name), await entries_of(stage.client, NS, name, Ledger())

    recorded, [entry] = play(story)
    # The broken call is SIGTERM at once, and this app ends at once: the pod may be gone before anything is written on
    # it. No record reads as bypassed.
    assert (entry.result, (recorded or {"result": "bypassed"})["result"]) == ("bypassed", "bypassed")
    assert "holder" in entry.reason
    assert entry.answers, "what was known until then is kept"


def test_a_disk_that_is_full_stops_no_drain():
    full = Ledger("/dev/full")

    async def story(stage):
        return await drain_pod(stage.client, NS, await first(stage), options(full, replace=False))

    assert play(story, UNGATED).result.value == "verified"
    assert "No space left" in full.failure


def test_a_node_whose_agent_is_silent_is_named_with_what_was_tried(kept):
    async def story(stage):
        name = await first(stage)
        silent = await other_node(stage, name)

        async def down():
            while True:  # its kubelet starts it again each time
                with contextlib.suppress(AssertionError):
                    stage.kill(f"tidegate-agent-{silent}/agent")
                await asyncio.sleep(0.02)

        killing = asyncio.create_task(down())
        await drain_pod(stage.client, NS, name, options(kept, replace=False, timeout_seconds=6.0))
        killing.cancel()
        return await entries_of(stage.client, NS, name, kept), silent

    [entry], silent = play(story, UNGATED)
    assert (entry.result, entry.stragglers, entry.slowest.observer) == ("timed-out", (silent,), silent)
    assert entry.slowest.verdict == "unreachable" and entry.slowest.seconds is None
    assert entry.slowest.evidence == "no answer" and entry.slowest.at and entry.slowest.detail
    assert {one.verdict for one in entry.answers if one.observer != silent} == {"confirmed"}
