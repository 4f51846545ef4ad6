"""The command trace: a pod's life from its objects, its watches and its nodes, with gaps marked as gaps."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner
from stage import NS, deployment, first, node_of, play

from tidegate.cli import trace as command
from tidegate.cli.main import tidegate
from tidegate.client import VerbOptions, drain_pod
from tidegate.client.trace import Trace, follow_pod, trace_pod
from tidegate.kube.api import PODS
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Response
from tidegate.kube.kubeconfig import Cluster

CLUSTER = Cluster("http://127.16.0.1:6443", "lab", NS)
BIRTH = ["created", "scheduled", "address", "started", "ready", "listed", "routed", "first-connection"]


async def follow(client, name, trace):
    async for _ in follow_pod(client, NS, name, trace):
        pass
    return trace


async def connected(stage, name):
    for pod in await stage.pods():
        if pod["metadata"]["name"] == name:
            return await asyncio.open_connection(pod["status"]["podIP"], 8080, local_addr=("127.16.0.11", 0))
    raise AssertionError(name)


def when(trace, step):
    return [one.at for one in trace.moments if one.step == step and one.at is not None]


async def drained_under_load(stage, drain):
    """A trace of a pod that has a connection open for four seconds of its drain."""
    name = await first(stage)
    trace = Trace(NS, name)
    following = asyncio.create_task(follow(stage.client, name, trace))
    await asyncio.sleep(2)
    _, writer = await connected(stage, name)
    await asyncio.sleep(2)
    await drain(name)
    await asyncio.sleep(4)
    writer.close()
    await asyncio.wait_for(following, 100)
    return trace, stage.told_to_stop(name)


def assert_in_order(trace, told_to_stop):
    [sigterm], [last] = when(trace, "sigterm"), when(trace, "last-connection")
    unrouted = when(trace, "unrouted")
    assert len(unrouted) == 3, "every node is seen to let go"
    assert max(unrouted) < sigterm
    assert last < sigterm
    assert abs(sigterm.timestamp() - told_to_stop) < 0.05, "as the lab's own journal has it"
    assert max(unrouted).timestamp() < told_to_stop
    rows = trace.document["moments"]
    timed = [row["at"] for row in rows if row["at"] is not None and not row["resolution_seconds"]]
    assert timed == sorted(timed)
    assert rows[-1]["step"] == "gone"


def test_a_gated_pods_death_under_load_is_told_in_its_order():
    async def story(stage):
        return await drained_under_load(stage, stage.delete)

    trace, told_to_stop = play(story)
    assert_in_order(trace, told_to_stop)
    [deleted], [stopping] = when(trace, "deleted"), when(trace, "stopping")
    assert deleted <= stopping < when(trace, "sigterm")[0]
    [fenced] = [one for one in trace.moments if one.step == "fenced"]
    assert fenced.source == "coordinator's ledger" and fenced.detail.startswith("epoch main/")


def test_a_pod_drained_by_its_labels_is_told_in_its_order():
    async def story(stage):
        drains = []

        async def drain(name):
            drains.append(asyncio.create_task(drain_pod(stage.client, NS, name, VerbOptions(seed=0))))

        found = await drained_under_load(stage, drain)
        await asyncio.gather(*drains)
        return found

    trace, told_to_stop = play(story, deployment(gate=False))
    assert_in_order(trace, told_to_stop)
    assert when(trace, "cut")[0] < min(when(trace, "unlisted")) < min(when(trace, "unrouted"))
    assert max(when(trace, "unrouted")) < when(trace, "deleted")[0]


def pod(name):
    template = deployment()["spec"]["template"]
    meta = {"name": name, "namespace": NS, "labels": {"app": "echo"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}


def test_a_pod_that_is_not_there_yet_is_waited_for_and_its_birth_told_whole():
    async def story(stage):
        trace = Trace(NS, "late")
        following = asyncio.create_task(follow(stage.client, "late", trace))
        await asyncio.sleep(3)
        assert trace.moments == []
        await stage.api.create(PODS, pod("late"))
        await asyncio.sleep(6)
        _, writer = await connected(stage, "late")
        await asyncio.sleep(1)
        writer.close()
        await stage.delete("late")
        await asyncio.wait_for(following, 100)
        return trace

    trace = play(story)
    assert trace.is_whole
    seen = [one for one in trace.moments if one.at is not None and one.detail != "not ready"]
    steps = list(dict.fromkeys(one.step for one in seen))
    assert steps[: len(BIRTH)] == BIRTH
    assert [one.gap for one in trace.moments if one.gap] == []
    assert {one.subject for one in trace.moments if one.step == "routed"} == {"node-1", "node-2", "node-3"}


class Expiring:
    """An exchange whose watches of pods end, two seconds in, with the 410 of a server that has forgotten."""

    def __init__(self, exchange):
        self._exchange = exchange
        self.expired = 0

    async def __call__(self, request):
        response = await self._exchange(request)
        if not (request.param("watch") and request.path.endswith("/pods")):
            return response
        return Response(response.status, response.headers, self._cut(response.chunks))

    async def _cut(self, chunks):
        taken = aiter(chunks)
        loop = asyncio.get_running_loop()
        until = loop.time() + 2
        waiting = asyncio.ensure_future(anext(taken))
        while True:
            done, _ = await asyncio.wait([waiting], timeout=max(0.0, until - loop.time()))
            if not done:
                waiting.cancel()
                self.expired += 1
                gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}
                yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
                return
            yield waiting.result()
            waiting = asyncio.ensure_future(anext(taken))


def test_a_watch_that_has_to_begin_again_loses_nothing():
    async def story(stage):
        stage.client._exchange = expiring = Expiring(stage.client._exchange)
        trace, told_to_stop = await drained_under_load(stage, stage.delete)
        return trace, told_to_stop, expiring.expired

    trace, told_to_stop, expired = play(story)
    assert expired > 3
    assert_in_order(trace, told_to_stop)
    assert len(when(trace, "deleted")) == 1


def test_without_watching_it_tells_what_the_objects_tell_and_marks_the_rest():
    async def story(stage):
        name = await first(stage)
        living = await trace_pod(stage.client, NS, name)
        stage.fault("proxy-freeze", "node-1", 10)
        await stage.delete(name)
        await asyncio.sleep(3)
        leaving = await trace_pod(stage.client, NS, name)
        await stage.gone(name)
        return living, leaving

    living, leaving = play(story)
    assert [one.step for one in living.moments if one.at is not None] == BIRTH[:5]
    assert [one.step for one in living.moments if one.gap] == [
        "listed",
        "routed",
        "routed",
        "routed",
        "first-connection",
    ]
    told = {(one.step, one.subject): one for one in leaving.moments}
    assert told["routed", "node-1"].gap and told["unrouted", "node-2"].detail == "no route now"
    assert told["deleted", ""].resolution_seconds == 1.0
    assert told["stopping", ""].detail == "preStop of echo is called"
    assert "the gate is answered once" in told["sigterm", ""].gap


def test_a_hook_that_is_not_the_gate_hides_the_instant_of_sigterm():
    manifest = deployment(gate=False)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": 2}}}

    async def story(stage):
        name = await first(stage)
        trace = Trace(NS, name)
        following = asyncio.create_task(follow(stage.client, name, trace))
        await asyncio.sleep(2)
        await stage.delete(name)
        return await asyncio.wait_for(following, 100)

    trace = play(story, manifest)
    [sigterm] = [one for one in trace.moments if one.step == "sigterm"]
    assert sigterm.at is None
    assert sigterm.gap == "sent when the preStop hook of echo ended, which nothing tells"


def test_a_node_without_an_agent_is_a_gap_by_name():
    async def story(stage):
        return await trace_pod(stage.client, NS, await first(stage))

    trace = play(story, deployment(gate=False), addons=())
    routed = [one for one in trace.moments if one.step == "routed"]
    assert [one.subject for one in routed] == ["node-1", "node-2", "node-3"]
    assert all("there is no agent" in one.gap for one in routed)


def test_a_pod_that_does_not_exist_is_said_to_and_a_watch_offered(capsys):
    async def story(stage):
        with pytest.raises(ApiError) as refused:
            await command._trace(CLUSTER, NS, "nobody", {"watch": False, "output": "table"})
        return refused.value

    assert play(story).is_not_found


def test_the_table_of_a_whole_life_reads_as_a_story(capsys, golden):
    async def story(stage):
        name = await first(stage)
        assert await node_of(stage, name)
        watching = command._trace(CLUSTER, NS, "late", {"watch": True, "output": "json"})
        following = asyncio.create_task(watching)
        await asyncio.sleep(1)
        await stage.api.create(PODS, pod("late"))
        await asyncio.sleep(5)
        _, writer = await connected(stage, "late")
        await stage.delete("late")
        await asyncio.sleep(3)
        writer.close()
        await asyncio.wait_for(following, 100)

    play(story)
    document = json.loads(capsys.readouterr().out)
    for moment in document["moments"]:
        moment["at"] = "2026-01-01T00:00:00.000Z"  # instants are another test's; here it is the words
        moment["detail"] = moment["detail"].split("none at")[0]
    document["uid"] = "UID"
    golden("cli/trace-life.txt", "\n".join(command.lines(document)) + "\n")


def test_it_explains_itself():
    answer = CliRunner().invoke(tidegate, ["trace", "--help"])
    assert answer.exit_code == 0
    assert "--watch" in answer.output and "gap" in answer.output
