"""A reflector on a real API server that is killed, restarted and made to forget: no state is missed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from tests.realcluster.objects import configmap

from tidegate.kube.api import CONFIGMAPS, NAMESPACES, Deletion, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.kube.direct import DirectTransport
from tidegate.kube.errors import ApiError, KubeError, Unreachable
from tidegate.kube.kubeconfig import load
from tidegate.kube.reflector import Reflector, key_of

pytestmark = pytest.mark.realcluster


class Told:
    """What a subscriber was told, replayed: it must be the reflector's own copy at any time."""

    def __init__(self, reflector):
        self.objects = {}
        self.gone = []
        reflector.subscribe(self)

    def __call__(self, old, new):
        key = key_of(new or old)
        assert self.objects.get(key) == old, "changes fit to one another"
        if new is None:
            self.gone.append(key[1])
            del self.objects[key]
        else:
            self.objects[key] = new


@contextlib.asynccontextmanager
async def reflecting(plane, namespace, exchange=None):
    async with open_api(kubeconfig=str(plane.kubeconfig)) as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        reflector = Reflector(KubeClient(exchange) if exchange else api, CONFIGMAPS, Selection(namespace))
        told = Told(reflector)
        running = asyncio.create_task(reflector.run())
        try:
            async with asyncio.timeout(10):
                await reflector.synced()
            yield api, reflector, told
        finally:
            running.cancel()


async def agrees(api, reflector, told):
    """Until the copy is what the server lists."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(KubeError):
                listed = {key_of(one): one for one in (await api.list(CONFIGMAPS, reflector._select)).items}
                if reflector.objects == listed == told.objects:
                    return listed
            await asyncio.sleep(0.05)


async def test_a_killed_and_restarted_server_costs_no_state(real_cluster):
    async with reflecting(real_cluster, "reflector-killed") as (api, reflector, told):
        is_over, written = asyncio.Event(), []

        async def write():
            number = 0
            while not is_over.is_set():
                number += 1
                try:
                    await api.create(CONFIGMAPS, configmap(f"c{number}", x="1"), "reflector-killed")
                    written.append(number)
                    if number % 3 == 0:
                        await api.delete(CONFIGMAPS, f"c{number - 1}", "reflector-killed")
                    if number % 2:
                        await api.patch(CONFIGMAPS, f"c{number}", Patch({"data": {"x": "2"}}), "reflector-killed")
                except KubeError:
                    await asyncio.sleep(0.05)

        writing = asyncio.create_task(write())
        while len(written) < 20:
            await asyncio.sleep(0.02)
        real_cluster.kill("kube-apiserver")
        before = len(written)
        while reflector.error is None:
            await asyncio.sleep(0.02)
        assert isinstance(reflector.error, Unreachable)
        await asyncio.to_thread(real_cluster.start, "kube-apiserver")
        async with asyncio.timeout(15):
            while len(written) < before + 20:
                await asyncio.sleep(0.02)
        is_over.set()
        await writing
        assert await agrees(api, reflector, told)
        assert reflector.error is None
        assert "c2" in told.gone


async def test_a_version_that_was_compacted_away_is_listed_anew(real_cluster):
    """Cut off while objects come and go and the server forgets: 410, and the differences are told."""
    transport = DirectTransport(load(str(real_cluster.kubeconfig)))
    is_open, tried = asyncio.Event(), []
    is_open.set()

    async def gated(request):
        tried.append(request)
        if not is_open.is_set():
            raise Unreachable("cut off by the test")
        return await transport(request)

    namespace = "reflector-compacted"
    try:
        async with reflecting(real_cluster, namespace, gated) as (api, reflector, told):
            for name in ("stays", "goes", "changes"):
                await api.create(CONFIGMAPS, configmap(name, x="1"), namespace)
            await agrees(api, reflector, told)
            is_open.clear()
            real_cluster.kill("kube-apiserver")
            while reflector.error is None:
                await asyncio.sleep(0.02)
            since = reflector.resource_version
            await asyncio.to_thread(real_cluster.start, "kube-apiserver")
            await api.delete(CONFIGMAPS, "goes", namespace, Deletion())
            await api.patch(CONFIGMAPS, "changes", Patch({"data": {"x": "2"}}), namespace)
            await api.create(CONFIGMAPS, configmap("comes", x="1"), namespace)
            # Restarted once more, the server's own watch cache starts after all this.
            real_cluster.kill("kube-apiserver")
            real_cluster.compact()
            await asyncio.to_thread(real_cluster.start, "kube-apiserver")
            with pytest.raises(ApiError) as expired:
                async for _ in api.watch(CONFIGMAPS, Selection(namespace), since):
                    pass
            assert expired.value.is_expired
            tried.clear()
            is_open.set()
            listed = await agrees(api, reflector, told)
            assert {name for _, name in listed} >= {"stays", "changes", "comes"}
            assert "goes" in told.gone
            lists = [request for request in tried if not request.param("watch")]
            assert len(lists) == 1, "one new list, no more"
    finally:
        await transport.close()
