"""A lab with network ``kernel`` that is up, and who stands where in its network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES, JsonObject
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.lab import boot
from tidegate.lab.control import status_of
from tidegate.lab.network.machine import missing
from tidegate.lab.network.namespaces import inside
from tidegate.lab.settings import LabSettings

ADDON = "tidegate.rehearse.addons:TIDEGATE"
DATAGRAMS = """
import os, socket
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.bind(("0.0.0.0", 5353))
while True:
    text, peer = held.recvfrom(100)
    held.sendto(os.environ["POD_NAME"].encode(), peer)
"""


def why_not() -> str:
    """Why there can be no such lab here, or ""."""
    return missing() or ("" if shutil.which("kubectl") else "no kubectl")


def web(name: str, replicas: int = 2, hook: JsonObject | None = None) -> list[tuple[object, JsonObject]]:
    """An echo Deployment and its Service, on port 80 and a NodePort."""
    app = {
        "name": "app",
        "image": "tidegate/echo:1",
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
        **({"lifecycle": {"preStop": hook}} if hook else {}),
    }
    return workload(name, replicas, app, {"port": 80, "targetPort": 8080})


def datagrams(name: str) -> list[tuple[object, JsonObject]]:
    """Two pods that answer any datagram with their name, and their Service."""
    app = {"name": "app", "image": "python", "command": [sys.executable, "-c", DATAGRAMS]}
    return workload(name, 2, app, {"port": 53, "targetPort": 5353, "protocol": "UDP"})


def workload(name: str, replicas: int, app: JsonObject, port: JsonObject) -> list[tuple[object, JsonObject]]:
    selector = {"app": name}
    template = {"metadata": {"labels": selector}, "spec": {"containers": [app]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": selector}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "NodePort", "selector": selector, "ports": [port]},
    }
    return [(DEPLOYMENTS, deployment), (SERVICES, service)]


@dataclass
class KernelLab:
    """What a test holds."""

    running: boot.RunningLab
    status: JsonObject

    @property
    def places(self) -> dict[str, str]:
        """Name of a node or client -> what opens its namespace."""
        return {one["name"]: one["namespace"] for one in (*self.status["nodes"], *self.status["clients"])}

    @property
    def nodes(self) -> dict[str, str]:
        return {one["name"]: one["address"] for one in self.status["nodes"]}

    def do(self, work: Callable[[KubeClient], object]) -> object:
        """Run ``await work(api)``."""

        async def run():
            async with open_api(self.running.record.server) as api:
                return await work(api)

        return asyncio.run(run())

    def apply(self, *objects: tuple[object, JsonObject]) -> list[JsonObject]:
        async def create(api):
            return [await api.create(resource, obj, "default") for resource, obj in objects]

        return self.do(create)

    def pods(self, app: str, ready: int = 0) -> list[JsonObject]:
        """The pods of a workload, once as many as ``ready`` are."""

        async def found(api):
            async with asyncio.timeout(20):
                while True:
                    pods = [pod for pod in (await api.list(PODS)).items if pod["metadata"]["labels"].get("app") == app]
                    if sum(map(is_ready, pods)) >= ready:
                        return pods
                    await asyncio.sleep(0.05)  # realtime: processes start

        return self.do(found)

    def place_of(self, pod: JsonObject) -> str:
        """What opens a pod's namespace."""
        process = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://")
        return f"/proc/{process}/ns/net"


def is_ready(pod: JsonObject) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextlib.contextmanager
def standing(place: str) -> Iterator[None]:
    """Sockets made in the block are of the namespace that ``place`` opens."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        with inside(descriptor):
            yield
    finally:
        os.close(descriptor)


def ask(place: str, host: str, port: int, seconds: float = 2.0) -> JsonObject:
    """GET / from ``place``: what the echo says of itself. Raises ``OSError``."""
    with standing(place):
        asking = socket.create_connection((host, port), timeout=seconds)
    with asking:
        asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: asking.recv(65_536), b""))
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def ask_by_datagram(place: str, host: str, port: int, seconds: float = 2.0) -> str:
    """Raises ``OSError``."""
    with standing(place):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(seconds)
        asking.connect((host, port))
        asking.send(b"who")
        return asking.recv(100).decode()


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    """Whether it comes to be so."""
    until = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < until:
        time.sleep(0.02)  # realtime: the kernel's own doings
    return found


def up(name: str, nodes: int = 2, addons: tuple[str, ...] = (ADDON,), **settings) -> KernelLab:
    running = boot.start(LabSettings(name=name, nodes=nodes, block=0, addons=addons, network="kernel", **settings))

    async def status():
        async with open_api(running.record.server) as api:
            return await status_of(api)

    return KernelLab(running, asyncio.run(status()))
