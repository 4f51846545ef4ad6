"""The agent's prober: what it dials, what it refuses, and that it keeps nothing for longer than it said."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from stage import NS, deployment, first, play

from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Selection
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.model.activity import parse
from tidegate.observers import probe
from tidegate.observers.activity import AgentActivity, ProxiedActivity
from tidegate.observers.probe import Close, Probe, close_batch, open_batch
from tidegate.observers.proxied import ProxiedAgents

UNGATED = deployment(gate=False)


async def cluster_ip(stage):
    return (await stage.api.get(SERVICES, "echo", NS))["spec"]["clusterIP"]


async def opened(stage, **asked):
    given = {"via": "cluster-ip", "address": await cluster_ip(stage), "port": 8080, "count": 5} | asked
    return await open_batch(ProxiedAgents(stage.client), "node-1", Probe(**given))


def test_a_batch_names_each_source_and_where_the_kernel_sent_it():
    async def story(stage):
        pods = {pod["status"]["podIP"] + ":8080" for pod in await stage.pods()}
        answer = await opened(stage, count=50)
        assert len(answer.connections) == 50
        assert {one.endpoint for one in answer.connections} == pods
        assert len({one.source for one in answer.connections}) == 50
        await close_batch(ProxiedAgents(stage.client), "node-1", answer.batch)

    play(story, UNGATED)


@pytest.mark.parametrize(
    "target",
    [
        {"address": "127.16.0.1", "port": 6443},
        {"port": 22},
        {"address": "", "port": 8080},
        {"address": "10.0.0.1"},
        {"address": "nonsense"},
        {"via": "node-port", "address": "", "port": 15200},
    ],
)
def test_only_addresses_of_this_nodes_own_services_are_dialled(target):
    async def story(stage):
        answer = await opened(stage, **target)
        assert "is in no Service of this node's tables" in answer.problem
        assert not answer.connections

    play(story, UNGATED)


def test_a_pods_own_address_is_not_dialled_though_a_route_leads_to_it():
    async def story(stage):
        pod = await stage.api.get(PODS, await first(stage), NS)
        answer = await opened(stage, address=pod["status"]["podIP"])
        assert "it is not dialled from here" in answer.problem

    play(story, UNGATED)


def test_the_fence_is_not_dialled_for_its_endpoint_is_a_number():
    async def story(stage):
        [fence] = (await stage.api.list(SERVICES, Selection("tidegate-system"))).items
        assert (await stage.api.list(ENDPOINTSLICES, Selection("tidegate-system"))).items
        answer = await opened(stage, address=fence["spec"]["clusterIP"], port=1)
        assert "it is not dialled from here" in answer.problem

    play(story, UNGATED)


def test_a_batch_that_nobody_closes_is_let_go_by_itself():
    async def story(stage):
        answer = await opened(stage, hold_seconds=2)
        assert len(answer.connections) == 5
        dump = await stage.lab.lab.kernel.dump("node-1")
        assert dump.count('"ESTABLISHED"') == 5
        await asyncio.sleep(2.5)
        assert '"conntrack":[]' in await stage.lab.lab.kernel.dump("node-1")

    play(story, UNGATED)


def test_there_is_no_room_for_more_than_it_may_hold_and_room_again_afterwards():
    async def story(stage):
        agents = ProxiedAgents(stage.client)
        batches = [await opened(stage, count=250) for _ in range(2)]
        with pytest.raises(ApiError) as caught:
            await opened(stage, count=1)
        assert caught.value.code == 429
        for one in batches:
            await close_batch(agents, "node-1", one.batch)
            await close_batch(agents, "node-1", one.batch)  # known no more: nothing happens
        for _ in range(4):
            again = await opened(stage, count=250)
            assert len(again.connections) == 250
            await close_batch(agents, "node-1", again.batch)

    play(story, UNGATED)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]",
        *(msgspec.json.encode(Probe(via="cluster-ip", address="10.0.0.1", **wrong)) for wrong in (
            {"port": 0}, {"port": 70_000}, {"port": 80, "count": 0}, {"port": 80, "count": 251},
            {"port": 80, "hold_seconds": 11.0}, {"port": 80, "hold_seconds": 0.0}, {"port": 80, "path": "x"},
            {"port": 80, "path": "/a b"}, {"port": 80, "path": "/a\r\nX: y"}, {"port": 80, "path": "/" + "a" * 2000},
            {"port": 80, "protocol": 9},
        )),
        b'{"via":"redirect","port":80,"address":"10.0.0.1"}', b'{"via":"cluster-ip","port":80,"extra":1}',
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_unread(body):
    with pytest.raises(ValueError):
        probe.decode(body, Probe)
    with pytest.raises(ValueError):
        probe.decode(body if body != b"{}" else b"", Close)


# --- /v1/activity ---


def test_a_pod_is_asked_by_its_annotation_and_only_by_the_agent_of_its_node():
    annotated = deployment(gate=False, annotations=(("tidegate.dev/activity", "http:8080/activity"),))

    async def story(stage):
        agents = ProxiedAgents(stage.client)
        found = await stage.api.get(PODS, await first(stage), NS)
        from tidegate.model import pod as pods

        pod = pods.decode(found)
        said = await AgentActivity(agents, pod, parse("http:8080/activity")).ask()
        assert (said.is_idle, said.detail) == (True, "idle")
        other = await AgentActivity(agents, pod, parse("http:8080/healthz")).ask()
        assert other.is_idle is None
        assert "annotation says 'http:8080/activity' now" in other.detail
        elsewhere = next(node for node in ("node-1", "node-2", "node-3") if node != pod.node)
        query = (("namespace", NS), ("pod", pod.name))
        with pytest.raises(ApiError, match="is on this node"):
            await agents.call(elsewhere, Request("GET", "/v1/activity", query))

    play(story, annotated)


def test_of_a_whole_revisions_work_a_pod_is_asked_by_another_annotation_and_no_gate_asks_that():
    text = 'metric:8080/metrics#echo_queue{revision="{revision}"}'
    annotated = deployment(gate=False, annotations=(("tidegate.dev/work", text),))

    async def story(stage):
        from tidegate.model import pod as pods

        agents, pod = ProxiedAgents(stage.client), pods.decode(await stage.api.get(PODS, await first(stage), NS))
        reader, writer = await asyncio.open_connection(pod.ips[0], 8080)
        writer.write(b"GET /queue?revision=r1&length=7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        said = await AgentActivity(agents, pod, parse(text.replace("{revision}", "r1")), "r1").ask()
        assert (said.is_idle, said.amount, said.detail) == (False, 7, "echo_queue is 7")
        other = await AgentActivity(agents, pod, parse(text.replace("{revision}", "r2")), "r2").ask()
        assert other.is_idle is None and "there is no sample" in other.detail
        query = (("namespace", NS), ("pod", pod.name))
        with pytest.raises(ApiError, match="no pod"):
            await agents.call(pod.node, Request("GET", "/v1/activity", query))
        with pytest.raises(ApiError, match="is no name"):
            await agents.call(pod.node, Request("GET", "/v1/activity", (*query, ("revision", 'r1"} or {x="'))))

    play(story, annotated)


@pytest.mark.parametrize(
    ("text", "is_idle", "detail"),
    [
        ("http:8080/activity", True, "idle"),
        ("http:8080/sleep?ms=1", True, "{}"),
        ("http:8080/nope", None, "it answered 404: not found"),
        ("http:81/x", None, "error trying to reach service"),
        ("metric:8080/metrics#echo_in_flight", True, "echo_in_flight is 0"),
        ("exec:sh -c 'echo none; exit 0'", True, "none"),
        ("exec:false", False, ""),
        ("exec:sleep 60", None, "no answer in time"),
    ],
)
def test_through_the_api_server_the_pods_word_is_told_from_the_servers(text, is_idle, detail):
    async def story(stage):
        from tidegate.model import pod as pods

        pod = pods.decode(await stage.api.get(PODS, await first(stage), NS))
        said = await ProxiedActivity(stage.client, pod, parse(text)).ask()
        assert said.is_idle is is_idle
        assert detail in said.detail

    play(story, UNGATED)
