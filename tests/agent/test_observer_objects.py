"""Observer objects: asked like those of the file, while they are there; what cannot be read holds."""

from __future__ import annotations

import asyncio
import contextlib

from stage import first, play

from tidegate.kube import wire
from tidegate.kube.api import CUSTOMRESOURCEDEFINITIONS, OBSERVERS
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import whole
from tidegate.operator.crds import manifests


async def defined(stage):
    for one in manifests():
        await stage.client.create(CUSTOMRESOURCEDEFINITIONS, one)
    while True:
        with contextlib.suppress(ApiError):
            await stage.client.list(OBSERVERS)
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(35)  # the coordinator looks for the kind twice a minute


async def observer(stage, name="edge", **spec):
    metadata = {"name": name}
    made = {"apiVersion": OBSERVERS.api_version, "kind": "Observer", "metadata": metadata, "spec": spec}
    return await stage.client.create(OBSERVERS, made)


def test_a_drain_waits_for_an_observer_that_came_as_an_object_and_no_longer_once_it_is_gone():
    async def story(stage):
        await defined(stage)
        asked, routed = [], [True]

        async def proxy(request):
            asked.append(request.path)
            return whole(200, b'{"routes":true}' if routed[0] else b'{"routes":false}')

        async with wire.serving(proxy, "10.99.0.1", 9000):
            options = {"path": "/routes", "letGoWhen": {"path": "routes", "equals": False}}
            await observer(
                stage, kind="http", where={"addresses": ["10.99.0.1:9000"]}, settleSeconds=0, options=options
            )
            await asyncio.sleep(3)
            name = await first(stage)
            await stage.delete(name)
            await asyncio.sleep(10)
            assert asked, "it is asked"
            assert stage.result(name) is None, "and waited for"
            routed[0] = False
            await stage.gone(name)
            assert stage.result(name)["result"] in ("verified", "assumed")
            await stage.client.delete(OBSERVERS, "edge")
            await asyncio.sleep(3)
            routed[0] = True
            name = await first(stage)
            result, _ = await stage.end(name)
            assert result["result"] == "verified"

    play(story)


def test_an_observer_that_cannot_be_understood_holds_drains_by_name_until_it_is_mended():
    async def story(stage):
        await defined(stage)
        await observer(stage, kind="haproxxy", where={"addresses": ["10.99.0.1:9000"]})
        await asyncio.sleep(3)
        name = await first(stage)
        await stage.delete(name)
        await asyncio.sleep(15)
        assert stage.result(name) is None
        await stage.client.delete(OBSERVERS, "edge")
        await stage.gone(name)
        assert stage.result(name)["result"] == "verified"

    play(story)
