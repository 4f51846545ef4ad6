"""One node under virtual time: the lab's API server in process, a kubelet, and pods bound to it by hand."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

from tidegate import vtime
from tidegate.kube.api import EVENTS, PODS, Deletion, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.lab.apiserver.local import LocalApi
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.config import LabConfig
from tidegate.lab.events import Recorder, Source
from tidegate.lab.journal import Journal
from tidegate.lab.kubelet.kubelet import Kubelet
from tidegate.lab.kubelet.seams import Seams
from tidegate.lab.runtime.virtual import VirtualRuntime

NODE_IP = "127.16.0.11"


def container(name="app", **fields):
    return {"name": name, "image": "tidegate/echo:v1", **fields}


def readiness(period=1, **fields):
    return {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": period, **fields}


class Gate:
    """Answers preStop httpGet calls as told; ``calls`` are (instant, request line), ``headers`` those of each."""

    def __init__(self, seconds=0.0, status=200):
        self.seconds = seconds
        self.status = status
        self.calls = []
        self.headers = []
        self.closed_at = []

    async def serve(self, reader, writer):
        loop = asyncio.get_running_loop()
        line = (await reader.readline()).decode().strip()
        self.calls.append((loop.time(), line))
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.headers.append(dict(one.lower().split(": ", 1) for one in lines if one))
        try:
            await asyncio.sleep(self.seconds)
            writer.write(f"HTTP/1.1 {self.status} Told\r\ncontent-length: 0\r\n\r\n".encode())
            await reader.read()
        finally:
            self.closed_at.append(loop.time())
            writer.close()


class Node:
    """What a test holds: the API, the journal, and verbs on pods."""

    def __init__(self, config, seed):
        self.config = config
        self.server = ApiServer(random.Random(seed))
        self.api = LocalApi(self.server)
        self.journal = Journal()
        self.runtime = VirtualRuntime(seed)
        self.recorder = Recorder(self.api, Source("kubelet", "node-1"))
        self.gate_address = None
        seams = Seams(self.api, self.runtime, self.journal, self.recorder, self._dial, self.runtime.book)
        self.kubelet = Kubelet(1, config, seams)

    async def _dial(self, host, port):
        host, port = self.gate_address or (host, port)
        return await asyncio.open_connection(host, port)

    @property
    def now(self):
        return asyncio.get_running_loop().time()

    async def serve_gate(self, gate):
        self.gate_address = ("127.0.0.1", 15299)
        await asyncio.start_server(gate.serve, *self.gate_address)

    async def bind(self, name, *containers, **spec):
        """Create a pod that is bound to the node already."""
        spec = {"nodeName": "node-1", "containers": list(containers) or [container()], **spec}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        return await self.api.create(PODS, pod, "default")

    async def pod(self, name):
        try:
            return await self.api.get(PODS, name, "default")
        except ApiError as error:
            assert error.is_not_found
            return None

    async def until(self, name, holds, seconds=60.0):
        """Wait until ``holds(pod)``; the pod is None when it is gone."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    pod = await self.pod(name)
                    if holds(pod):
                        return pod
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"{name} never got there: {pod and pod.get('status')}") from None

    async def ready(self, name, seconds=60.0):
        return await self.until(name, lambda pod: condition(pod, "Ready") == "True", seconds)

    async def gone(self, name, seconds=60.0):
        await self.until(name, lambda pod: pod is None, seconds)
        return self.now

    async def delete(self, name, **options):
        await self.api.delete(PODS, name, "default", Deletion(**options))

    async def patch_status(self, name, body):
        await self.api.patch(PODS, name, Patch(body, "strategic", "status"), "default")

    async def events(self, reason):
        """Messages of the events with a reason, oldest first; ``xN`` when told N times."""
        await asyncio.sleep(0.01)
        found = (await self.api.list(EVENTS, Selection("default"))).items
        return [
            event["message"] + (f" x{event['count']}" if event.get("count", 1) > 1 else "")
            for event in found
            if event["reason"] == reason
        ]

    def at(self, event, **fields):
        """Loop instants of journal entries."""
        entries = [
            entry for entry in self.journal.of(event) if all(entry.get(key) == value for key, value in fields.items())
        ]
        return [round(entry["at"] - vtime.clock.EPOCH.timestamp(), 3) for entry in entries]


def condition(pod, kind):
    for entry in ((pod or {}).get("status") or {}).get("conditions") or []:
        if entry["type"] == kind:
            return entry["status"]
    return None


UNSEEN = {"state": {}, "lastState": {}, "restartCount": 0, "ready": False, "started": False}


def status_of(pod, name="app"):
    """A container's entry in the status; ``UNSEEN`` before the kubelet wrote one."""
    status = pod["status"]
    everyone = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((entry for entry in everyone if entry["name"] == name), UNSEEN)


def waiting_for(pod, name="app"):
    return status_of(pod, name)["state"].get("waiting", {}).get("reason")


@asynccontextmanager
async def node(config=LabConfig(), seed=1):
    world = Node(config, seed)
    async with vtime.Nursery() as nursery:
        nursery.start(world.recorder.run())
        nursery.start(world.kubelet.run())
        await world.kubelet.registered.wait()
        yield world
        nursery.cancel()
