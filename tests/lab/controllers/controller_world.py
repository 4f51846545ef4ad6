"""A control plane in virtual time with a stand-in for the kubelets: pods get ready and end as a story says."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tidegate import vtime
from tidegate.kube.api import (
    DEPLOYMENTS,
    ENDPOINTSLICES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICASETS,
    Api,
    Deletion,
    JsonObject,
    Patch,
    Selection,
    WatchEvent,
)
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver.local import LocalApi
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.run import run_controllers
from tidegate.lab.instants import stamp
from tidegate.lab.scheduler import run_scheduler

NAMESPACE = "tides"


@dataclass
class Habits:
    """How the stand-in treats pods. ``ready`` decides per pod whether it ever becomes ready."""

    start_seconds: float = 0.3
    stop_seconds: float = 0.5
    stop_step_seconds: float = 0.0
    """Each pod that ends takes this much longer than the one before."""
    first_starts: tuple[float, ...] = ()
    """Start seconds of the first pods, in order, where they differ."""
    ready: Callable[[JsonObject], bool] = lambda pod: True


@dataclass
class Kubelets:
    """Runs every bound pod: Running without Ready, Ready, and at deletion Succeeded, then gone."""

    api: Api
    habits: Habits = field(default_factory=Habits)
    _ips: Any = field(default_factory=lambda: itertools.count(1))
    _begun: set[str] = field(default_factory=set)
    _ending: set[str] = field(default_factory=set)

    async def run(self) -> None:
        async with vtime.Nursery() as nursery:
            async for event in self.api.watch(PODS, resource_version="0"):
                pod = event.object
                uid = pod["metadata"]["uid"]
                if event.type == "DELETED" or not pod["spec"].get("nodeName"):
                    continue
                if uid not in self._begun:
                    self._begun.add(uid)
                    nursery.start(self._start(pod))
                if pod["metadata"].get("deletionTimestamp") and uid not in self._ending:
                    self._ending.add(uid)
                    nursery.start(self._end(pod, len(self._ending)))

    async def _start(self, pod: JsonObject) -> None:
        index = next(self._ips)
        ip, firsts = f"127.17.1.{index}", self.habits.first_starts
        await self._status(pod, {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}, "False")
        await asyncio.sleep(firsts[index - 1] if index <= len(firsts) else self.habits.start_seconds)
        if self.habits.ready(pod):
            await self._status(pod, {}, "True")

    async def _end(self, pod: JsonObject, order: int) -> None:
        meta = pod["metadata"]
        await asyncio.sleep(self.habits.stop_seconds + self.habits.stop_step_seconds * order)
        await self._status(pod, {"phase": "Succeeded"}, "False")
        options = Deletion(grace_seconds=0, uid=meta["uid"])
        try:
            await self.api.delete(PODS, meta["name"], meta["namespace"], options)
        except ApiError as error:
            assert error.is_not_found

    async def _status(self, pod: JsonObject, status: JsonObject, ready: str) -> None:
        meta = pod["metadata"]
        try:
            live = await self.api.get(PODS, meta["name"], meta["namespace"])
            if live["metadata"]["uid"] != meta["uid"]:
                return
            kept = [one for one in live["status"].get("conditions") or () if one["type"] != "Ready"]
            made = {"type": "Ready", "status": ready, "lastTransitionTime": stamp(vtime.now())}
            body = {"status": {**status, "conditions": [*kept, made]}}
            await self.api.patch(PODS, meta["name"], Patch(body, subresource="status"), meta["namespace"])
        except ApiError as error:
            assert error.is_not_found


class Cluster:
    """The API, the controllers, the scheduler and the stand-in; and what a test asks of them."""

    def __init__(self, seed: int = 0, habits: Habits | None = None, with_controllers: bool = True) -> None:
        self.server = ApiServer(random.Random(f"{seed}/api"))
        self.api: Api = LocalApi(self.server)
        self.kubelets = Kubelets(self.api, habits or Habits())
        self.seed = seed
        self.with_controllers = with_controllers
        self._nursery = vtime.Nursery()

    async def __aenter__(self) -> Cluster:
        await self._nursery.__aenter__()
        for name in ("node-1", "node-2", "node-3"):
            await self.add_node(name)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        await self.api.create(NAMESPACES, namespace)
        if self.with_controllers:
            self.start(run_controllers(self.api, LabConfig(seed=self.seed)))
        self.start(run_scheduler(self.api))
        self.start(self.kubelets.run())
        await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._nursery.cancel()
        await self._nursery.__aexit__(*error)

    def start(self, coro: Any) -> asyncio.Task[Any]:
        return self._nursery.start(coro)

    async def add_node(self, name: str) -> None:
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp(vtime.now())}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"conditions": [ready]}}
        await self.api.create(NODES, node)

    async def create(self, resource: Any, obj: JsonObject) -> JsonObject:
        return await self.api.create(resource, obj, NAMESPACE)

    async def patch(self, resource: Any, name: str, body: Any, style: Any = "merge") -> JsonObject:
        return await self.api.patch(resource, name, Patch(body, style), NAMESPACE)

    async def listed(self, resource: Any, labels: str = "") -> list[JsonObject]:
        return (await self.api.list(resource, Selection(NAMESPACE, labels))).items

    async def get(self, resource: Any, name: str) -> JsonObject:
        return await self.api.get(resource, name, NAMESPACE)

    async def until(self, question: Callable[[], Any], seconds: float = 60.0) -> float:
        """Wait (in virtual time) until an async question answers true; the seconds it took."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not await question():
            assert loop.time() - begin < seconds, "it never came true"
            await asyncio.sleep(0.01)
        return loop.time() - begin

    async def rolled_out(self, name: str = "web", seconds: float = 60.0) -> float:
        async def is_done() -> bool:
            deployment = await self.get(DEPLOYMENTS, name)
            status, wanted = deployment.get("status") or {}, deployment["spec"]["replicas"]
            counts = [status.get(field) or 0 for field in ("updatedReplicas", "replicas", "availableReplicas")]
            return status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == [wanted] * 3

        return await self.until(is_done, seconds)

    async def pods(self, labels: str = "app=web") -> list[JsonObject]:
        return await self.listed(PODS, labels)

    async def endpoints(self, service: str = "web") -> list[JsonObject]:
        slices = await self.listed(ENDPOINTSLICES, f"kubernetes.io/service-name={service}")
        return [endpoint for one in slices for endpoint in one.get("endpoints") or ()]

    async def sizes(self) -> dict[str, int]:
        """spec.replicas of every ReplicaSet, by revision."""
        revision = "deployment.kubernetes.io/revision"
        return {
            one["metadata"]["annotations"][revision]: one["spec"]["replicas"] for one in await self.listed(REPLICASETS)
        }


class Recording:
    """Everything that happens to some resources, in order of resourceVersion."""

    def __init__(self, cluster: Cluster, *resources: Any) -> None:
        self.events: list[WatchEvent] = []
        for resource in resources:
            cluster.start(self._follow(cluster.api, resource))

    async def _follow(self, api: Api, resource: Any) -> None:
        async for event in api.watch(resource, Selection(NAMESPACE), "0"):
            self.events.append(event)

    @property
    def in_order(self) -> list[WatchEvent]:
        return sorted(self.events, key=lambda event: int(event.object["metadata"]["resourceVersion"]))


def deployment(replicas: int = 3, image: str = "app:1", **spec: Any) -> JsonObject:
    labels = {"app": "web"}
    container = {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
    }
    wanted = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": wanted}


def service(name: str = "web", **spec: Any) -> JsonObject:
    ports = [{"port": 80, "targetPort": "http"}]
    wanted = {"selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted}


def image(name: str) -> list[JsonObject]:
    """The JSON patch of ``kubectl set image``."""
    return [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": name}]
