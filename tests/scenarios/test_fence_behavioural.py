"""A node without an agent: what a connection through its data plane proves, and what kube-proxy's health does not."""

from __future__ import annotations

import asyncio

import pytest
import yaml
from scene import play
from stage import deployment, node_of

from tidegate.drain.fence import Epoch
from tidegate.kube.api import PODS, SERVICES, Deletion
from tidegate.model.livefence import SLOTS, epoch_of, port_of, slot_of
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.behavioural import PROBER_PORT
from tidegate.observers.proxied import ProxiedCoordinator

BARE = "node-3"
BARE_ADDRESS = "127.16.0.13"


def behavioural(**options):
    where = {"service": f"{SYSTEM_NAMESPACE}/tidegate-prober", "port": PROBER_PORT}
    return {"name": "through", "kind": "behavioural", "where": where, "options": {"nodes": [BARE], **options}}


def healthz(**fields):
    where = {"addresses": [f"{BARE_ADDRESS}:10256"]}
    return {"name": "health", "kind": "healthz", "where": where, "options": {"nodes": [BARE]}, **fields}


def without_agent(tmp_path, story, *observers, has_prober=True, **options):
    """Play ``story(stage, name)``: the third node's agent is gone for good; the pod is another node's."""
    file = tmp_path / "observers.yaml"
    file.write_text(yaml.safe_dump({"observers": list(observers)}))

    async def whole(stage):
        await stage.api.delete(PODS, f"tidegate-agent-{BARE}", SYSTEM_NAMESPACE, Deletion(0))
        await put_up(stage, BARE if has_prober else "node-2")
        for name in sorted(pod["metadata"]["name"] for pod in await stage.pods()):
            if await node_of(stage, name) != BARE:
                break
        return await story(stage, name)

    return play(whole, addon_options=(("observers", str(file)),), **options)


async def put_up(stage, node):
    """A prober on ``node``: no privilege, no token."""
    labels, name = {"app": "prober"}, "tidegate-prober"
    ports = [{"name": "probe", "port": PROBER_PORT, "protocol": "TCP"}]
    meta = {"name": name, "namespace": SYSTEM_NAMESPACE}
    spec = {"clusterIP": "None", "selector": labels, "ports": ports}
    await stage.api.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    env = [
        {"name": "TIDEGATE_NODE", "value": node},
        {"name": "TIDEGATE_POD_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container = {"name": "prober", "image": "tidegate/prober:dev", "env": env}
    pod = {"nodeName": node, "containers": [container]}
    await stage.api.create(
        PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "labels": labels}, "spec": pod}
    )
    await asyncio.sleep(4)


async def stragglers(stage):
    drains = (await ProxiedCoordinator(stage.client).status())["drains"]
    return [f"{one['node']} {one['verdict']}: {one['detail']}" for drain in drains for one in drain["stragglers"]]


def test_where_a_sync_is_one_transaction_the_second_epoch_that_answers_is_proof(tmp_path):
    async def story(stage, name):
        result, seconds = await stage.end(name)
        assert result["result"] == "verified" and seconds < 4, (result, seconds)

    without_agent(tmp_path, story, behavioural(atomic=True))


def test_a_data_plane_that_stands_still_answers_by_an_old_epoch_and_is_waited_for(tmp_path):
    async def story(stage, name):
        stage.fault("proxy-freeze", BARE, 6)
        deleting = asyncio.ensure_future(stage.end(name))
        await asyncio.sleep(4)
        told = await stragglers(stage)
        assert len(told) == 1 and told[0].startswith("through/tidegate-prober pending: shows fence"), told
        result, seconds = await deleting
        assert result["result"] == "verified" and 6 < seconds < 9.5, (result, seconds)

    without_agent(tmp_path, story, behavioural(atomic=True))


def test_where_it_may_be_torn_the_answer_is_no_proof(tmp_path):
    async def story(stage, name):
        result, _ = await stage.end(name)
        assert result["result"] == "assumed" and "its routes were not read" in result["reason"], result

    without_agent(tmp_path, story, behavioural())


def test_a_node_without_agent_and_without_prober_is_named_and_holds(tmp_path):
    async def story(stage, name):
        result, _ = await stage.end(name)
        assert result["result"] == "timed-out" and f"no prober on {BARE}" in result["reason"], result

    without_agent(tmp_path, story, behavioural(atomic=True), has_prober=False, manifest=deployment(grace=25))


def test_the_health_of_a_kube_proxy_makes_a_result_assumed_and_never_verified(tmp_path):
    async def story(stage, name):
        result, seconds = await stage.end(name)
        assert result["result"] == "assumed" and seconds > 5, (result, seconds)
        assert f"health/{BARE_ADDRESS}:10256" in result["reason"] and "weak evidence" in result["reason"], result

    without_agent(tmp_path, story, healthz())


def test_a_kube_proxy_that_does_not_answer_for_its_health_holds(tmp_path):
    async def story(stage, name):
        stage.fault("proxy-kill", BARE, 100)
        result, _ = await stage.end(name)
        assert result["result"] == "timed-out" and f"health/{BARE_ADDRESS}:10256 unreachable" in result["reason"], (
            result
        )

    without_agent(tmp_path, story, healthz(), manifest=deployment(grace=25))


@pytest.mark.parametrize("number", [0, 1, 255, 256, 257, 561_022_877])
def test_a_slot_is_read_as_the_latest_epoch_it_can_be(number):
    latest = Epoch("main", number + 100)
    for behind in (0, 1, 50, 100):
        epoch = Epoch("main", latest.number - behind)
        assert epoch_of("main", slot_of(epoch), latest) == epoch
    assert port_of(slot_of(latest)) - 20_000 == latest.number % SLOTS
