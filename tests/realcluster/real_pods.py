"""A kubelet of the tests whose pods run: each bound pod is a ``TinyPod``, ended by SIGTERM when it is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.realcluster.fake_kubelet import NODE, FakeKubelet
from tests.realcluster.real_node import TinyPod

from tidegate import vtime
from tidegate.kube.api import NODES, Api, Deletion, JsonObject, Patch
from tidegate.kube.api import PODS as POD_RESOURCE
from tidegate.kube.errors import ApiError
from tidegate.lab.instants import stamp

_NUMBERS = itertools.count(20)
AFTER_SECONDS = 0.5
"""How long a deleted pod goes on serving before SIGTERM: what still comes then would be seen."""


@dataclass
class Release:
    """What a pod's own kernel counted: connections opened until its deletion was heard of, and until SIGTERM."""

    name: str
    before: int
    after: int


@dataclass
class NodeKubelet(FakeKubelet):
    """``releases``: the pods that were deleted, in order."""

    pods: dict[str, TinyPod] = field(default_factory=dict)
    releases: list[Release] = field(default_factory=list)

    async def _start(self, pod: JsonObject) -> None:
        tiny = TinyPod(pod["metadata"]["name"], next(_NUMBERS))
        await asyncio.to_thread(tiny.start)
        self.pods[tiny.name] = tiny
        now = stamp(vtime.now())
        kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds]
        addresses = {"podIP": tiny.ip, "podIPs": [{"ip": tiny.ip}, {"ip": tiny.ip6}]}
        await self._patch(pod, {"phase": "Running", **addresses, "conditions": conditions})

    async def _end(self, pod: JsonObject) -> None:
        metadata = pod["metadata"]
        tiny = self.pods.pop(metadata["name"], None)
        if tiny is not None:
            before = await asyncio.to_thread(tiny.opened)
            await asyncio.sleep(AFTER_SECONDS)
            self.releases.append(Release(tiny.name, before, await asyncio.to_thread(tiny.opened)))
            await asyncio.to_thread(tiny.stop, signal.SIGTERM)
        with contextlib.suppress(ApiError):
            await self.api.delete(POD_RESOURCE, metadata["name"], metadata["namespace"], Deletion(0, metadata["uid"]))


@contextlib.asynccontextmanager
async def node_kubelet(api: Api, namespace: str) -> AsyncIterator[NodeKubelet]:
    """One that runs in the background; its pods end with it."""
    kubelet = NodeKubelet(api, namespace)
    task = asyncio.get_running_loop().create_task(kubelet.run())
    try:
        yield kubelet
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for tiny in kubelet.pods.values():
            tiny.stop()


async def join(api: Api, address: str) -> None:
    """The node's object, at ``address``."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {"podCIDRs": ["10.244.9.0/24"]}}
    with contextlib.suppress(ApiError):
        await api.create(NODES, node)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp(vtime.now())}
    status = {"addresses": [{"type": "InternalIP", "address": address}], "conditions": [ready]}
    await api.patch(NODES, NODE, Patch({"status": status}, subresource="status"))
