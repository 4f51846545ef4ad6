"""The kubelet of one node: registers it, watches the pods bound to it, gives each a worker."""

from __future__ import annotations

import asyncio
from typing import Any

from tidegate import vtime
from tidegate.kube.api import PODS, Selection
from tidegate.kube.reflector import Reflector
from tidegate.lab.config import LabConfig
from tidegate.lab.images import Images
from tidegate.lab.kubelet.addresses import PodAddresses
from tidegate.lab.kubelet.environment import Environment
from tidegate.lab.kubelet.hooks import Hooks
from tidegate.lab.kubelet.node import NodeHeart, NodeIdentity, zone_labels
from tidegate.lab.kubelet.seams import Ground, Seams, SharedNetwork
from tidegate.lab.kubelet.worker import PodWorker
from tidegate.lab.runtime.processes import MARK


class Kubelet:
    """Runs the pods of node ``index`` (1, 2, ...) of a lab. ``await run()`` until cancelled."""

    def __init__(self, index: int, config: LabConfig, seams: Seams) -> None:
        addressing = config.addressing
        prefix = addressing.pod_prefix(index)
        self.name = config.node_names[index - 1]
        self.address = addressing.node(index)
        base = {
            MARK: config.name,
            "KUBERNETES_SERVICE_HOST": addressing.api_host,
            "KUBERNETES_SERVICE_PORT": str(addressing.api_port),
            "NODE_IP": self.address,
        }
        self._ground = Ground(
            lab=config.name,
            node_name=self.name,
            node_address=self.address,
            seams=seams,
            images=Images(config.addons),
            addresses=PodAddresses(prefix),
            environment=Environment(seams.api, base, seams.credentials),
            pods=seams.pods or SharedNetwork(self.address),
            addressing=addressing if config.dual_stack else None,
        )
        labels = zone_labels(config.zone(index))
        self._heart = NodeHeart(seams.api, NodeIdentity(self.name, self.address, addressing.pod_network(index), labels))
        self._hooks = Hooks(seams.runtime, seams.dial_hook)
        self._pods = Reflector(seams.api, PODS, Selection(fields=f"spec.nodeName={self.name}"))
        self._workers: dict[str, PodWorker] = {}
        self._done: set[str] = set()
        """Uids of pods that we ended and whose object is still there: a finalizer holds it."""
        self.registered = asyncio.Event()
        """Set once the Node object says Ready."""

    async def run(self) -> None:
        """Register, then serve the node's pods for ever."""
        await self._heart.register()
        self.registered.set()
        try:
            async with vtime.Nursery() as nursery:
                nursery.start(self._heart.beat(), name=f"heartbeat of {self.name}")
                self._pods.subscribe(lambda old, new: self._take(old, new, nursery))
                nursery.start(self._pods.run(), name=f"pods of {self.name}")
        finally:
            self._hooks.close()

    def _take(self, old: dict[str, Any] | None, new: dict[str, Any] | None, nursery: vtime.Nursery) -> None:
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            gone = self._workers.get(old["metadata"]["uid"])
            if gone is not None:
                gone.vanish()
            self._done.discard(old["metadata"]["uid"])
        if new is None or new["metadata"]["uid"] in self._done:
            return
        worker = self._workers.get(new["metadata"]["uid"])
        if worker is not None:
            worker.update(new)
            return
        if (new.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return  # it ended under an earlier kubelet: what has finished is not run again
        worker = PodWorker(self._ground, new, self._hooks)
        self._workers[worker.uid] = worker
        nursery.start(self._serve(worker), name=f"pod {new['metadata']['name']}")

    async def _serve(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            self._workers.pop(worker.uid, None)
            if any(pod["metadata"]["uid"] == worker.uid for pod in self._pods.objects.values()):
                self._done.add(worker.uid)
