"""Replacement before removal: the owner makes another pod while ours still serves, and only then is it cut."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from stage import NS, deployment, first, play

from tidegate.client import VerbOptions, drain_pod
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Selection
from tidegate.kube.errors import ApiError
from tidegate.model.names import RESERVATIONS, Ending

OPTIONS = VerbOptions(seed=0)
ONE = deployment(replicas=1, gate=False)
FOUR = deployment(replicas=4, gate=False)


async def reserved(stage, name="echo"):
    service = await stage.api.get(SERVICES, name, NS)
    return json.loads((service["metadata"].get("annotations") or {}).get(RESERVATIONS, "{}"))


async def ready_endpoints(stage):
    found = set()
    for one in (await stage.api.list(ENDPOINTSLICES, Selection(NS))).items:
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


@pytest.mark.parametrize("manifest", [ONE, FOUR], ids=["1 replica", "4 replicas"])
def test_a_pod_is_drained_under_load_without_a_lost_request_and_capacity_never_dips(manifest):
    async def story(stage):
        name, floor = await first(stage), Floor(stage)
        replicas = manifest["spec"]["replicas"]
        watching = asyncio.create_task(floor.watch())
        async with Load(stage).running():
            result = await drain_pod(stage.client, NS, name, OPTIONS)
        watching.cancel()
        assert result.result is Ending.VERIFIED, result
        assert floor.least == replicas
        with pytest.raises(ApiError):
            await stage.api.get(PODS, name, NS)
        assert len(await stage.pods()) == replicas
        assert await reserved(stage) == {}

    play(story, manifest)
