"""A stand-in for kubelets: every bound pod gets an address and becomes Ready, and ends when it is deleted.

Nothing runs; to a control plane, a Ready pod is what its status says. Works on any ``Api``, so the lab's controllers
can be given the very same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tidegate import vtime
from tidegate.kube.api import NODES, PODS, Api, Deletion, JsonObject, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.lab.instants import stamp

NODE = "fake-node"
_NUMBERS = itertools.count(1)
"""Of addresses: no two pods of one control plane have the same, whatever their namespace."""


@dataclass
class FakeKubelet:
    """``ready``: whether pods become Ready; ``stop_seconds``: from a pod's deletion to its end, ``start_seconds`` from
    its creation to Ready."""

    api: Api
    namespace: str
    is_ready: bool = True
    stop_seconds: float = 0.2
    start_seconds: float = 0.0
    node_address: str = ""
    """What pods in the node's network have."""
    is_dual: bool = False
    """Pods list an IPv6 address too."""
    _begun: set[str] = field(default_factory=set)
    _ending: set[str] = field(default_factory=set)

    async def run(self) -> None:
        async with vtime.Nursery() as nursery:
            while True:
                async for event in self.api.watch(PODS, Selection(self.namespace)):
                    pod = event.object
                    uid = pod["metadata"].get("uid", "")
                    if event.type not in ("ADDED", "MODIFIED") or not pod["spec"].get("nodeName"):
                        continue
                    if uid not in self._begun:
                        self._begun.add(uid)
                        nursery.start(self._start(pod))
                    if pod["metadata"].get("deletionTimestamp") and uid not in self._ending:
                        self._ending.add(uid)
                        nursery.start(self._end(pod))

    async def _start(self, pod: JsonObject) -> None:
        await asyncio.sleep(self.start_seconds)
        number = next(_NUMBERS)
        is_host = pod["spec"].get("hostNetwork") and self.node_address
        address = self.node_address if is_host else f"10.77.{number // 250}.{number % 250 + 1}"
        second = [{"ip": f"fd00:10:77::{number:x}"}] if self.is_dual else []
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}, *second]}
        value = "True" if self.is_ready else "False"
        kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        now = stamp(vtime.now())
        status["conditions"] = [{"type": kind, "status": value, "lastTransitionTime": now} for kind in kinds]
        await self._patch(pod, status)

    async def _end(self, pod: JsonObject) -> None:
        await asyncio.sleep(self.stop_seconds)
        metadata = pod["metadata"]
        with contextlib.suppress(ApiError):
            await self.api.delete(PODS, metadata["name"], metadata["namespace"], Deletion(0, metadata["uid"]))

    async def _patch(self, pod: JsonObject, status: JsonObject) -> None:
        metadata = pod["metadata"]
        with contextlib.suppress(ApiError):
            await self.api.patch(
                PODS, metadata["name"], Patch({"status": status}, "strategic", "status"), metadata["namespace"]
            )


@contextlib.asynccontextmanager
async def fake_kubelet(api: Api, namespace: str, start_seconds: float = 0.0) -> AsyncIterator[FakeKubelet]:
    """One that runs in the background, and its node."""
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp(vtime.now())}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": {"conditions": [ready]}}
    with contextlib.suppress(ApiError):
        await api.create(NODES, node)
    kubelet = FakeKubelet(api, namespace, start_seconds=start_seconds)
    task = asyncio.get_running_loop().create_task(kubelet.run())
    try:
        yield kubelet
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
