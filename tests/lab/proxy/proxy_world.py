"""A stand-in API server, a kernel process and proxies for the stories of this folder."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tidegate import vtime
from tidegate.kube.api import ALL, ENDPOINTSLICES, SERVICES, Listing, Resource, Selection, WatchEvent
from tidegate.lab.config import LabConfig
from tidegate.lab.faults import Fault, Faults
from tidegate.lab.journal import read
from tidegate.lab.kernel import client as kernel_client
from tidegate.lab.kernel.client import KernelClient
from tidegate.lab.kernel.process import main
from tidegate.lab.network.network import LoopbackNode
from tidegate.lab.proxy.proxy import Proxy


class StandInApi:
    """List and watch over a list of events, in one order; each watcher hears of a write 2 ms after it."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.events: list[tuple[str, WatchEvent]] = []
        self._written = asyncio.Event()

    def put(self, resource: Resource, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        key = (resource.plural, metadata["namespace"], metadata["name"])
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self._write(resource, key, kind, copy.deepcopy(obj))

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        key = (resource.plural, namespace, name)
        self._write(resource, key, "DELETED", copy.deepcopy(self.objects[key]))

    def _write(self, resource: Resource, key: tuple[str, str, str], kind: str, obj: dict[str, Any]) -> None:
        obj["metadata"]["resourceVersion"] = str(len(self.events) + 1)
        self.events.append((resource.plural, WatchEvent(kind, obj)))
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = obj
        written, self._written = self._written, asyncio.Event()
        written.set()

    async def list(self, resource: Resource, select: Selection = ALL, resource_version: str = "") -> Listing:
        await asyncio.sleep(0.002)
        found = [obj for key, obj in self.objects.items() if key[0] == resource.plural]
        return Listing(found, str(len(self.events)))

    async def watch(
        self, resource: Resource, select: Selection = ALL, resource_version: str = ""
    ) -> AsyncIterator[WatchEvent]:
        position = int(resource_version)
        while True:
            while position >= len(self.events):
                await self._written.wait()
            await asyncio.sleep(0.002)
            for plural, event in self.events[position:]:
                position += 1
                if plural == resource.plural:
                    yield event


def service(name: str = "web", cluster_ip: str = "127.18.0.5", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec},
    }


def endpoint(
    ip: str, node: str = "node-1", *, ready: bool = True, terminating: bool = False, serving: bool = True
) -> dict[str, Any]:
    conditions = {"ready": ready and not terminating, "serving": serving, "terminating": terminating}
    return {"addresses": [ip], "nodeName": node, "conditions": conditions}


def endpoint_slice(*endpoints: dict[str, Any], of: str = "web", name: str = "", port: int = 8080) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "default",
            "name": name or f"{of}-1",
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


class World:
    """Nodes node-1 and node-2 with a proxy each, under one kernel process."""

    def __init__(self, directory: Path) -> None:
        self.api = StandInApi()
        self.config = LabConfig(nodes=2)
        self.faults = Faults(self.config.node_names)
        self.kernel = KernelClient(kernel_client.control_path(directory))
        self.journal = directory / "kernel.jsonl"
        env = {"TIDEGATE_KERNEL_DIR": str(directory), "TIDEGATE_KERNEL_JOURNAL": str(self.journal)}
        vtime.Process(main, vtime.Program(env=env), name="kernel")

    def proxy(self, node: str) -> Proxy:
        address = self.config.addressing.node(self.config.node_names.index(node) + 1)
        network = LoopbackNode(self.kernel, address, Path("unused"))
        return Proxy(self.api, node, self.config, network, random.Random(f"1/{node}"), self.faults)

    def fault(self, kind: str, seconds: float = 0, node: str = "node-1") -> None:
        self.faults.apply(Fault(kind, node, seconds))

    def commits(self, node: str = "node-1", service: str = "web") -> list[tuple[float, list[str] | None]]:
        """(virtual second, endpoints of default/web) of every commit on a node."""
        epoch = vtime.now().timestamp() - asyncio.get_running_loop().time()
        return [
            (entry["at"] - epoch, entry["services"].get(f"default/{service}:80"))
            for entry in read(self.journal)
            if entry["event"] == "table-committed" and entry["node"] == node
        ]

    async def endpoints(self, node: str = "node-1", name: str = "web") -> list[str] | None:
        dump = json.loads(await self.kernel.dump(node))
        return next((one["endpoints"] for one in dump["services"] if one["name"] == name), None)

    def write(self, *endpoints: dict[str, Any]) -> None:
        """The slice of default/web becomes this."""
        self.api.put(ENDPOINTSLICES, endpoint_slice(*endpoints))

    def write_fence(self, epoch: int) -> None:
        self.api.put(ENDPOINTSLICES, endpoint_slice(endpoint(f"198.18.0.{epoch}"), of="fence"))


def story(directory: Path, tell: Callable[[World], Awaitable[None]], seed: int = 0) -> None:
    """Run a story in virtual time: default/web with pods 127.17.1.1 and .2, and a fence at epoch 1, all synced."""

    async def run() -> None:
        world = World(directory)
        await world.kernel.ready()
        await world.kernel.register("node-1", "127.16.0.11")
        await world.kernel.register("node-2", "127.16.0.12")
        world.api.put(SERVICES, service())
        world.api.put(SERVICES, service("fence", "127.18.0.9"))
        world.write(endpoint("127.17.1.1"), endpoint("127.17.1.2"))
        world.write_fence(1)
        async with vtime.Nursery() as lab:
            for node in world.config.node_names:
                lab.start(world.proxy(node).run())
            await asyncio.sleep(10)
            await tell(world)
            lab.cancel()

    vtime.run(run(), seed=seed, limit_seconds=10_000)
