"""Clients that account for every request, the fewest ready endpoints there ever were, and what stands reserved."""

from __future__ import annotations

import asyncio
import contextlib
import json

from stage import NS

from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Selection
from tidegate.model.names import RESERVATIONS


async def reserved(stage, name="echo"):
    service = await stage.api.get(SERVICES, name, NS)
    return json.loads((service["metadata"].get("annotations") or {}).get(RESERVATIONS, "{}"))


async def ready_endpoints(stage):
    found = set()
    for one in (await stage.api.list(ENDPOINTSLICES, Selection(NS))).items:
        if one["metadata"]["labels"]["kubernetes.io/service-name"] != "echo":
            continue
        for endpoint in one.get("endpoints") or ():
            if endpoint["conditions"].get("ready"):
                found.add(endpoint["addresses"][0])
    return len(found)


class Load:
    """Requests through the Service, one after the other from each node, each accounted for."""

    def __init__(self, stage, service="echo"):
        self.stage, self.service, self.sent, self.lost = stage, service, 0, []

    async def _client(self, address, port, source):
        while True:
            self.sent += 1
            try:
                reader, writer = await asyncio.open_connection(address, port, local_addr=(source, 0))
                writer.write(b"GET /sleep?ms=30 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), 5)
                writer.close()
                if not answer.startswith(b"HTTP/1.1 200"):
                    self.lost.append(answer[:40])
            except (OSError, TimeoutError) as error:
                self.lost.append(repr(error))
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def running(self):
        found = await self.stage.api.get(SERVICES, self.service, NS)
        address, port = found["spec"]["clusterIP"], found["spec"]["ports"][0]["port"]
        tasks = [
            asyncio.create_task(self._client(address, port, f"127.16.0.{10 + index}"))
            for index in (1, 2, 3)
            for _ in range(2)
        ]
        await asyncio.sleep(1)
        try:
            yield self
            await asyncio.sleep(2)
        finally:
            for task in tasks:
                task.cancel()
        assert self.sent > 100
        assert self.lost == []


class Floor:
    """The fewest ready endpoints there ever were."""

    def __init__(self, stage):
        self.stage, self.least = stage, 99

    async def watch(self):
        while True:
            self.least = min(self.least, await ready_endpoints(self.stage))
            await asyncio.sleep(0.05)
