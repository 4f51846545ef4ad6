"""What a story of verbs is played in, drawn from its seed: Deployments, and Services that partly share their pods."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, PODS, SERVICES, Api, JsonObject, Selection
from tidegate.rehearse.spectator import is_ready

NS = "verbs"
PORT = 8080
READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Scene:
    """``is_steady``: nobody scales, updates or deletes beside the verbs, so nothing but they end a pod."""

    replicas: dict[str, int]
    services: dict[str, dict[str, str]]
    is_gated: bool
    is_steady: bool
    nodes: int
    zones: int
    floor: int


def draw(rng: random.Random) -> Scene:
    """A scene; the same state of ``rng`` gives the same."""
    names = ("echo", "side") if rng.random() < 0.4 else ("echo",)
    return Scene(
        replicas={name: rng.choice((2, 3, 4)) for name in names},
        services={"echo": {"app": "echo"}, "web": {"tier": "web"}},
        is_gated=rng.random() < 0.5,
        is_steady=rng.random() < 0.5,
        nodes=rng.choice((3, 4)),
        zones=rng.choice((0, 0, 2)),
        floor=rng.choice((1, 1, 2)),
    )


async def build(api: Api, scene: Scene) -> None:
    """Everything created, every pod ready, and a quiet moment for the proxies."""
    await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
    for name, selector in scene.services.items():
        await api.create(SERVICES, _service(name, selector))
    for name, replicas in scene.replicas.items():
        await api.create(DEPLOYMENTS, _deployment(name, replicas, scene.is_gated))
    await all_ready(api, sum(scene.replicas.values()))
    await asyncio.sleep(2.0)


async def all_ready(api: Api, count: int) -> None:
    """Raises ``TimeoutError``."""
    async with asyncio.timeout(READY_SECONDS):
        while sum(map(is_ready, (await api.list(PODS, Selection(NS))).items)) < count:
            await asyncio.sleep(0.2)


def _service(name: str, selector: dict[str, str]) -> JsonObject:
    ports = [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}]
    spec = {"selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NS}, "spec": spec}


def _deployment(name: str, replicas: int, is_gated: bool) -> JsonObject:
    container: JsonObject = {
        "name": "echo",
        "image": "tidegate/echo:v1",
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1},
    }
    if is_gated:
        container["lifecycle"] = {"preStop": {"httpGet": {"path": "/gate/echo", "port": 15299}}}
    labels = {"app": name, "tier": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NS},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 60, "containers": [container]},
            },
        },
    }
