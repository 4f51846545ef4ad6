"""An API server to ask over its exchange, for the stories of this folder."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tidegate import vtime
from tidegate.kube.exchange import Request, Response, parse_target
from tidegate.lab.apiserver.local import LocalApi
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.apiserver.streams import Backends

POD = "/api/v1/namespaces/default/pods"
SERVICE = "/api/v1/namespaces/default/services"
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments"
CONFIGMAP = "/api/v1/namespaces/default/configmaps"
MERGE, STRATEGIC, JSON_PATCH = (
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@dataclass
class Answer:
    """One answer, decoded."""

    status: int
    headers: dict[str, str]
    body: Any = None
    raw: bytes = b""

    @property
    def reason(self) -> str:
        return self.body["reason"]

    @property
    def message(self) -> str:
        return self.body["message"]


@dataclass
class World:
    """A server and the ways to ask it."""

    backends: Backends = field(default_factory=Backends)

    def __post_init__(self) -> None:
        self.server = ApiServer(random.Random(7), backends=self.backends)
        self.api = LocalApi(self.server)

    async def send(self, method: str, target: str, body: Any = None, **headers: str) -> Response:
        path, query = parse_target(target)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        return await self.server.exchange(Request(method, path, query, sent, data))

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        response = await self.send(method, target, body, **headers)
        raw = await response.read()
        is_json = response.headers["content-type"].startswith("application/json")
        return Answer(response.status, dict(response.headers), json.loads(raw) if is_json else None, raw)

    async def get(self, target: str, **headers: str) -> Any:
        answer = await self.ask("GET", target, **headers)
        assert answer.status == 200, answer.raw
        return answer.body

    async def create(self, target: str, body: Any) -> Any:
        answer = await self.ask("POST", target, body, content_type="application/json")
        assert answer.status == 201, answer.raw
        return answer.body

    async def patch(self, target: str, body: Any, style: str = MERGE) -> Any:
        answer = await self.ask("PATCH", target, body, content_type=style)
        assert answer.status == 200, answer.raw
        return answer.body

    async def delete(self, target: str, body: Any = None) -> Any:
        answer = await self.ask("DELETE", target, body)
        assert answer.status == 200, answer.raw
        return answer.body

    async def schedule(self, name: str, node: str = "node-1") -> None:
        await self.create(f"{POD}/{name}/binding", {"metadata": {"name": name}, "target": {"name": node}})

    async def watch(self, target: str) -> Watch:
        response = await self.send("GET", f"{target}{'&' if '?' in target else '?'}watch=true")
        assert response.status == 200
        return Watch(response)


class Watch:
    """Lines of one watch stream."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._pending = b""

    async def next(self) -> tuple[str, Any]:
        while b"\n" not in self._pending:
            self._pending += await anext(self._response.chunks)
        line, _, self._pending = self._pending.partition(b"\n")
        event = json.loads(line)
        return event["type"], event["object"]

    async def names(self, count: int) -> list[tuple[str, str]]:
        """The next events as (type, name)."""
        found = []
        for _ in range(count):
            kind, obj = await self.next()
            found.append((kind, obj["metadata"].get("name", "")))
        return found

    async def rest(self) -> list[tuple[str, Any]]:
        """Everything until the server ends the stream."""
        found = []
        try:
            while True:
                found.append(await self.next())
        except StopAsyncIteration:
            return found

    async def close(self) -> None:
        await self._response.close()


def story(tell: Callable[[World], Awaitable[None]], backends: Backends | None = None) -> None:
    """Run one story against a fresh server under virtual time."""

    async def told() -> None:
        await tell(World(backends or Backends()))

    vtime.run(told())


def pod(name: str = "p", labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    labels = {"app": "web"} if labels is None else labels
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec},
    }


def deployment(name: str = "d", replicas: int = 2) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def configmap(name: str = "m", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
