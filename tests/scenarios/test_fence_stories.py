"""The fence in the hands of others: it may cost a second, never the deadline of every drain, never a false word."""

from __future__ import annotations

import asyncio

import pytest
from scene import play
from stage import first, is_ready, other_node

from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Patch
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name

SERVICE, SLICE = fence_name("main"), f"{fence_name('main')}-ipv4"


async def change(stage, body, resource=ENDPOINTSLICES, name=SLICE):
    await stage.api.patch(resource, name, Patch(body), SYSTEM_NAMESPACE)


def showing(address, port=1, ready=True):
    endpoints = [{"addresses": [address], "conditions": {"ready": ready}}]
    return {"endpoints": endpoints, "ports": [{"name": "fence", "port": port, "protocol": "TCP"}]}


async def service_deleted(stage):
    await stage.api.delete(SERVICES, SERVICE, SYSTEM_NAMESPACE)


async def slice_deleted(stage):
    await stage.api.delete(ENDPOINTSLICES, SLICE, SYSTEM_NAMESPACE)


async def both_deleted(stage):
    await service_deleted(stage)
    await slice_deleted(stage)


async def emptied(stage):
    await change(stage, {"endpoints": []})


async def set_back(stage):
    await change(stage, showing("198.18.0.0"))


async def set_forward(stage):
    await change(stage, showing("198.18.0.9"))


async def set_to_no_epoch(stage):
    await change(stage, showing("10.1.1.1"))


async def made_unready(stage):
    await change(stage, showing("198.18.0.0", ready=False))


async def unlabelled(stage):
    await change(stage, {"metadata": {"labels": None}})


async def given_to_another_service(stage):
    await change(stage, {"metadata": {"labels": {"kubernetes.io/service-name": "another"}}})


async def given_pods(stage):
    await change(stage, {"spec": {"selector": {"app": "echo"}}}, SERVICES, SERVICE)


async def given_another_port(stage):
    await change(stage, {"spec": {"ports": [{"name": "x", "port": 2, "protocol": "TCP"}]}}, SERVICES, SERVICE)


VANDALS = [
    service_deleted, slice_deleted, both_deleted, emptied, set_back, set_forward, set_to_no_epoch, made_unready,
    unlabelled, given_to_another_service, given_another_port, given_pods,
]  # fmt: skip


@pytest.mark.parametrize("vandal", VANDALS)
def test_a_fence_changed_in_the_middle_of_a_drain_is_set_right(vandal):
    async def story(stage):
        name = await first(stage)
        stage.fault("proxy-freeze", await other_node(stage, name), 6)
        began = stage.now
        await stage.delete(name)
        await asyncio.sleep(2)
        await vandal(stage)
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"
        assert 6 < stage.now - began < 7.5

    play(story)


@pytest.mark.parametrize("vandal", VANDALS)
def test_a_fence_changed_while_nobody_drains_is_set_right_before_somebody_does(vandal):
    async def story(stage):
        await vandal(stage)
        await asyncio.sleep(4)
        result, seconds = await stage.end(await first(stage))
        assert result["result"] == "verified"
        assert seconds < 1.5

    play(story)


def test_a_quiet_fence_is_left_alone():
    async def story(stage):
        before = await stage.api.get(ENDPOINTSLICES, SLICE, SYSTEM_NAMESPACE)
        await asyncio.sleep(60)
        assert await stage.api.get(ENDPOINTSLICES, SLICE, SYSTEM_NAMESPACE) == before

    play(story)


def test_a_number_set_forward_and_taken_back_is_never_waited_for_by_its_own_past():
    """A node that lags shows the forward number when it is long taken back: with epochs below it, that would look as
    if the node had reached them, at a moment when a young pod's routes are still on their way to it."""

    async def story(stage):
        stage.fault("proxy-lag", "node-3", 8)
        await asyncio.sleep(0.1)
        await set_forward(stage)
        await asyncio.sleep(0.3)
        await set_back(stage)
        await asyncio.sleep(1.5)
        before = {pod["metadata"]["name"] for pod in await stage.pods()}
        await stage.scale(4)
        while not (young := [p for p in await stage.pods() if p["metadata"]["name"] not in before and is_ready(p)]):
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)
        result, _ = await stage.end(young[0]["metadata"]["name"])
        assert result["result"] == "verified"
        await asyncio.sleep(15)

    play(story)
