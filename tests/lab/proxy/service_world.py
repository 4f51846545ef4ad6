"""Echo pods on named nodes behind Services, asked with real requests, in a virtual lab."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from tidegate import vtime
from tidegate.kube.api import PODS, SERVICES
from tidegate.lab.config import LabConfig
from tidegate.lab.virtual import VirtualLab

NS = "default"
NODES = {f"node-{index}": f"127.16.0.{10 + index}" for index in (1, 2, 3)}


def pod(name, node, is_ready=True, labels=None, **spec):
    """``is_ready`` False: its probe asks for a page that is not there."""
    path = "/healthz" if is_ready else "/nowhere"
    container = {
        "name": "echo",
        "image": "tidegate/echo:v1",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": path, "port": 8080}, "periodSeconds": 1},
    }
    metadata = {"name": name, "labels": labels or {"app": "web"}}
    return {"metadata": metadata, "spec": {"nodeName": node, "containers": [container], **spec}}


def service(name="web", **spec):
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    return {"metadata": {"name": name}, "spec": {"selector": {"app": "web"}, "ports": ports, **spec}}


class World:
    """One lab."""

    def __init__(self, lab):
        self.lab = lab
        self.api = lab.api

    async def pods(self, *pods):
        """Create pods and wait until those that will be are ready."""
        for one in pods:
            await self.api.create(PODS, one, NS)
        await self.settled()

    async def service(self, **options):
        made = await self.api.create(SERVICES, service(**options), NS)
        await self.settled()
        return made["spec"]

    async def settled(self):
        """Kubelets, controllers and proxies have long done what they had to."""
        await asyncio.sleep(6)

    async def ask(self, address, port, source="node-1"):
        """Which pod answered ("" where the connection was refused or reset), asked from a node or an address."""
        status, _, body = await request(address, port, "/", NODES.get(source, source))
        return json.loads(body)["pod"] if status == 200 else ""

    async def ask_often(self, address, port, source="node-1", times=40):
        return Counter([await self.ask(address, port, source) for _ in range(times)])


async def request(address, port, path="/", source="127.16.0.11"):
    """(status, headers, body) of one GET; status 0 where nobody answered."""
    try:
        reader, writer = await asyncio.open_connection(address, port, local_addr=(source, 0))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
    except ConnectionError:
        return 0, {}, ""
    if not answer:
        return 0, {}, ""
    head, _, body = answer.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def play(story, limit=600, **config):
    """Run ``async def story(world)`` in a lab of its own."""

    async def told():
        async with VirtualLab(LabConfig(**config)) as lab:
            return await story(World(lab))

    return vtime.run(told(), limit_seconds=limit)
