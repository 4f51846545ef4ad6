"""Blue/green against kube-controller-manager: what its caches make of labels in place and of selectors that flip."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
from tests.realcluster.fake_kubelet import NODE, fake_kubelet
from tests.realcluster.objects import service
from tests.realcluster.stories_controllers import web

from tidegate import vtime
from tidegate.client.options import Identity
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.gate import gate_in_place, is_half_gated
from tidegate.client.release.ground import Ground
from tidegate.client.release.run import Engine
from tidegate.kube.api import (
    DEPLOYMENTS,
    ENDPOINTSLICES,
    HORIZONTALPODAUTOSCALERS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    SERVICES,
    Patch,
    Selection,
)
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.release.bluegreen import is_flipped
from tidegate.release.spec import BlueGreen, Spec
from tidegate.release.template import is_gated

pytestmark = pytest.mark.realcluster

OF_WEB = "kubernetes.io/service-name=web"


class Side:
    """A Deployment, its Service, and how many pods its slices have listed at each moment."""

    def __init__(self, api, namespace):
        self.api, self.namespace = api, namespace
        self.book = ConfigMapBook(api, namespace, "web")
        self.fewest, self.mixed = 99, 0

    async def list(self, resource, labels=""):
        return (await self.api.list(resource, Selection(self.namespace, labels))).items

    async def listed(self):
        return {
            endpoint["targetRef"]["name"]
            for one in await self.list(ENDPOINTSLICES, OF_WEB)
            for endpoint in one.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        }

    async def film(self):
        slices = {}
        async for event in self.api.watch(ENDPOINTSLICES, Selection(self.namespace, OF_WEB)):
            listed = event.object.get("endpoints") or () if event.type != "DELETED" else ()
            slices[event.object["metadata"]["name"]] = listed
            names = {e["targetRef"]["name"] for one in slices.values() for e in one if e["conditions"]["ready"]}
            self.fewest = min(self.fewest, len(names))
            self.mixed += len({name.startswith("web-r2") for name in names}) > 1

    async def ask(self, **fields):
        entry = await self.book.read()
        await self.book.ask(entry, msgspec.structs.replace(entry.spec, **fields))

    async def run(self, seconds=60):
        return await Engine(self.book, Ground(self.api, Identity("tester@here", "engine-1"), seed=1)).run(seconds)

    async def counts(self):
        return {one["metadata"]["name"]: one["spec"]["replicas"] for one in await self.list(DEPLOYMENTS)}


async def beats(api):
    """The node's heart: without it, its pods are set not ready after 50 s (--node-monitor-grace-period)."""
    while True:
        at = vtime.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "Fake", "lastHeartbeatTime": at}
        await api.patch(NODES, NODE, Patch({"status": {"conditions": [ready]}}, "strategic", "status"))
        await asyncio.sleep(5)


@contextlib.asynccontextmanager
async def staged(plane, name, replicas=3):
    namespace = f"release-{name}"
    async with open_api(kubeconfig=str(plane.kubeconfig)) as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        async with fake_kubelet(api, namespace):
            side = Side(api, namespace)
            beating = asyncio.create_task(beats(api))
            await api.create(SERVICES, service("web"), namespace)
            await api.create(DEPLOYMENTS, web(replicas=replicas), namespace)
            async with asyncio.timeout(30):
                while len(await side.listed()) != replicas:
                    await asyncio.sleep(0.1)
            filming = asyncio.create_task(side.film())
            try:
                yield side
            finally:
                filming.cancel()
                beating.cancel()


def spec_of(image="app:2", **fields):
    return Spec("web", "bluegreen", images={"app": image}, bluegreen=BlueGreen("web", **fields), ungated="proceed")


@pytest.mark.parametrize("replicas", [12, 120], ids=["one slice", "two slices"])
def test_a_flip_and_the_way_back_leave_the_service_whole_at_every_moment(real_cluster, replicas):
    async def whole():
        async with staged(real_cluster, f"flip-{replicas}", replicas) as side:
            before = {pod["metadata"]["uid"] for pod in await side.list(PODS)}
            await side.book.begin(spec_of())
            status = await side.run(180)
            assert status.phase == "done" and is_flipped(status), status.reason
            assert await side.counts() == {"web": replicas, "web-r2": replicas}
            assert before <= {pod["metadata"]["uid"] for pod in await side.list(PODS)}  # none was restarted
            listed = await side.listed()
            assert len(listed) == replicas and all(name.startswith("web-r2") for name in listed)
            await side.ask(wish="abort")
            assert (await side.run(180)).phase == "aborted"
            assert await side.counts() == {"web": replicas}
            assert not any(name.startswith("web-r2") for name in await side.listed())
            # Slices are written one after the other, each with any part of the new pods: 99 of 120 for a moment, once.
            assert side.fewest == replicas if replicas <= 100 else side.fewest > 0
            assert all("release" not in one["metadata"]["name"] for one in await side.list(SERVICES))

    asyncio.run(whole())


def autoscaler(name, workload):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_the_autoscaler_is_moved_to_the_deployment_that_serves(real_cluster):
    async def whole():
        async with staged(real_cluster, "autoscaler") as side:
            await side.api.create(HORIZONTALPODAUTOSCALERS, autoscaler("web", "web"), side.namespace)
            await side.book.begin(spec_of())
            status = await side.run(180)
            assert status.phase == "done", status.reason
            [moved] = await side.list(HORIZONTALPODAUTOSCALERS)
            assert moved["spec"]["scaleTargetRef"]["name"] == "web-r2"

    asyncio.run(whole())


async def gated(side):
    """The gate in place, turn after turn, until it is at its end; controllers have time between any two writes."""

    async def slowly(request):
        await asyncio.sleep(0.3)
        return await side.api.exchange(request)

    slow = KubeClient(slowly, "slow")
    for _ in range(20):
        [found], [made] = await side.list(DEPLOYMENTS), await side.list(REPLICASETS)
        if is_gated(found["spec"]["template"]) and not is_half_gated(found):
            return
        with contextlib.suppress(ApiError):  # its controller wrote meanwhile
            await gate_in_place(slow, found, made)
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("is_resumed", [False, True], ids=["at once", "resumed by somebody halfway"])
def test_the_gate_is_put_in_place_without_a_rollout(real_cluster, is_resumed):
    async def whole():
        async with staged(real_cluster, f"gating-{is_resumed}".lower(), 3) as side:
            before = {pod["metadata"]["uid"] for pod in await side.list(PODS)}
            if is_resumed:
                half = {"metadata": {"annotations": {"tidegate.dev/gating": "half"}}, "spec": {"paused": False}}
                await side.api.patch(DEPLOYMENTS, "web", Patch(half), side.namespace)
            await gated(side)
            await asyncio.sleep(3)
            [found], [made] = await side.list(DEPLOYMENTS), await side.list(REPLICASETS)
            assert is_gated(made["spec"]["template"]) and not found["spec"].get("paused")
            assert before == {pod["metadata"]["uid"] for pod in await side.list(PODS)}

    asyncio.run(whole())
