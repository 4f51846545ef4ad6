"""Who answers the analyses of a story: a Prometheus, and a smoke test that asks the workload itself."""

from __future__ import annotations

import contextlib
import json

from scene import ask

from tidegate.kube import wire
from tidegate.kube.exchange import whole

PROMETHEUS, SMOKE = "127.16.0.200", "127.16.0.201"


class Metrics:
    """What Prometheus answers to any instant query: one sample, none (None), or nothing at all (off)."""

    def __init__(self):
        self.value, self.queries = "0.999", []

    async def __call__(self, request):
        self.queries.append(request.param("query"))
        result = [] if self.value is None else [{"metric": {}, "value": [1.0, self.value]}]
        answer = {"status": "success", "data": {"resultType": "vector", "result": result}}
        return whole(200, json.dumps(answer).encode())


@contextlib.asynccontextmanager
async def prometheus():
    made = Metrics()
    async with wire.serving(made, PROMETHEUS, 9090):
        yield made


class Smoke:
    """Asks ``service`` once from each node in turn; ``code`` is what it answers. ``versions`` are what it met."""

    def __init__(self, stage, service, code=200):
        self.stage, self.service, self.code = stage, service, code
        self.versions = []

    async def __call__(self, request):
        source = f"node-{1 + len(self.versions) % 2}"
        reader, writer = await ask(self.stage, source=source, service=self.service)
        answer = await reader.read()
        writer.close()
        self.versions.append(json.loads(answer.partition(b"\r\n\r\n")[2])["version"])
        return whole(self.code, b"")


@contextlib.asynccontextmanager
async def smoke(stage, service, code=200):
    made = Smoke(stage, service, code)
    async with wire.serving(made, SMOKE, 9090):
        yield made
