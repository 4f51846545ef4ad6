"""API server rates from one Python client, beside a real kube-apiserver's (v1.36, TLS, etcd, same 2 cores).

The lab keeps its objects in memory and speaks plain HTTP: the comparison says that a lab is not the bottleneck of
what is tested against it, and nothing about Kubernetes. Two clients: bare aiohttp (what the real figures were taken
with) and ``KubeClient`` (what Tidegate's processes use), both on the standard library's event loop. Pods name a
scheduler that does not exist, so that the server and its watchers are measured and no container starts.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.figures import Figure, at_least, at_most, percentile
from bench.ground import BenchLab, cpu_seconds, lab, rss_mib
from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, NAMESPACES, PODS, SERVICES, JsonObject, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.model.endpointslice import SERVICE_LABEL

COUNT = 400
ROUNDS = 3
"""The best round counts: the others show what else the machine was doing."""
LISTED = 5_000
WATCHED = 300
RELABELLED = 30
RELABEL_MS_MAX = 10.0

REAL = {
    ("create", 1): 351, ("create", 8): 682, ("patch", 1): 179, ("patch", 8): 378, ("get", 1): 617, ("get", 8): 2205,
}  # fmt: skip
"""Per second: one aiohttp client, keep-alive, against a real control plane (etcd, TLS) on two cores."""
REAL_ADDED_MS = 2.7
REAL_RELABEL_MS = 28.0
TIMES = 2.0
"""How many times the real figure is wanted."""


def pod(name: str) -> JsonObject:
    """About what a Deployment's pod looks like when it is created."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "rates", "pod-template-hash": "7d4b9c6f5"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [
                {
                    "name": "app",
                    "image": "registry.example/app:1.2.3",
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "env": [{"name": "LEVEL", "value": "info"}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }
            ],
        },
    }


Call = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Client:
    """The three calls that are counted, by one client."""

    name: str
    create: Call
    patch: Call
    get: Call


def bare(session: aiohttp.ClientSession, server: str, namespace: str) -> Client:
    """aiohttp and nothing else."""
    pods = f"{server}/api/v1/namespaces/{namespace}/pods"
    merge = {"content-type": "application/merge-patch+json"}

    async def create(name: str) -> None:
        async with session.post(pods, json=pod(name)) as answer:
            assert answer.status == 201, await answer.text()
            await answer.read()

    async def patch(name: str) -> None:
        body = json.dumps({"metadata": {"labels": {"touched": str(time.perf_counter_ns())}}})
        async with session.patch(f"{pods}/{name}", data=body, headers=merge) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

    async def get(name: str) -> None:
        async with session.get(f"{pods}/{name}") as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

    return Client("aiohttp", create, patch, get)


def ours(api: KubeClient, namespace: str) -> Client:
    """Through ``KubeClient``, answers decoded."""

    async def create(name: str) -> None:
        await api.create(PODS, pod(name), namespace)

    async def patch(name: str) -> None:
        body = {"metadata": {"labels": {"touched": str(time.perf_counter_ns())}}}
        await api.patch(PODS, name, Patch(body), namespace)

    async def get(name: str) -> None:
        await api.get(PODS, name, namespace)

    return Client("KubeClient", create, patch, get)


async def rate(call: Call, names: list[str], ways: int) -> float:
    """Calls per second with so many at a time."""
    left: Iterator[str] = iter(names)

    async def work() -> None:
        for name in left:
            await call(name)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(ways)))
    return len(names) / (time.perf_counter() - begun)


async def rates(client: Client, count: int, is_judged: bool) -> list[Figure]:
    """Create, patch and get, sequential and 8-way."""
    figures = []
    for ways in (1, 8):
        rounds = [
            [f"{client.name.lower()}-{ways}-{number}-{index}" for index in range(count)] for number in range(ROUNDS)
        ]
        for verb, call in (("create", client.create), ("patch", client.patch), ("get", client.get)):
            found, real = max([await rate(call, names, ways) for names in rounds]), REAL[verb, ways]
            title, note = f"{verb}, {ways}-way, {client.name}", f"real {real}/s: {found / real:.1f} times"
            wanted = at_least(title, found, "/s", TIMES * real, note)
            figures.append(wanted if is_judged else Figure(title, found, "/s", note=note))
    return figures


@dataclass(slots=True)
class Arrivals:
    """When a watch showed what; callers wait for a name."""

    at: dict[str, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, name: str) -> None:
        self.at.setdefault(name, time.perf_counter())
        self.changed.set()

    async def of(self, name: str) -> float:
        while name not in self.at:
            self.changed.clear()
            await self.changed.wait()
        return self.at[name]


async def added(api: KubeClient, namespace: str, count: int) -> list[float]:
    """Milliseconds from sending a create to seeing ADDED, one at a time."""
    arrivals = Arrivals()
    since = (await api.list(PODS, Selection(namespace))).resource_version

    async def watch() -> None:
        async for event in api.watch(PODS, Selection(namespace), since):
            if event.type == "ADDED":
                arrivals.saw(event.object["metadata"]["name"])

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.1)
    taken = []
    for index in range(count):
        begun = time.perf_counter()
        _, at = await asyncio.gather(api.create(PODS, pod(f"seen-{index}"), namespace), arrivals.of(f"seen-{index}"))
        taken.append((at - begun) * 1e3)
    watching.cancel()
    return taken


async def listed(session: aiohttp.ClientSession, server: str, count: int) -> list[Figure]:
    """One list of so many pods: bare bytes, and pages through ``KubeClient``."""
    taken, size, found = [], 0, 0
    for _ in range(3):
        begun = time.perf_counter()
        async with session.get(f"{server}/api/v1/pods") as answer:
            body = await answer.read()
        taken.append(time.perf_counter() - begun)
        size, found = len(body), body.count(b'"uid":"')
    assert found >= count
    note = f"{size / 1e6:.1f} MB of JSON, best of 3; real 17.7 MB in 0.18-0.29 s"
    async with open_api(server) as api:
        begun = time.perf_counter()
        await api.list(PODS)
        paged = time.perf_counter() - begun
    return [
        Figure(f"list {found:,} pods, aiohttp", min(taken), "s", note=note),
        Figure(f"list {found:,} pods, KubeClient, pages of 500, decoded", paged, "s", note="real 1.5 s with json"),
    ]


def deployment(replicas: int) -> JsonObject:
    labels = {"app": "relabelled"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "echo", "image": "tidegate/echo:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "relabelled"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


SERVICE: JsonObject = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "relabelled"},
    "spec": {"selector": {"app": "relabelled"}, "ports": [{"port": 8080, "targetPort": 8080}]},
}


async def relabelled(api: KubeClient, namespace: str, rounds: int) -> list[float]:
    """Milliseconds from sending the relabel of a serving pod to seeing its slice without it. Real containers."""
    await api.create(NAMESPACES, {"metadata": {"name": namespace}})
    await api.create(SERVICES, SERVICE, namespace)
    await api.create(DEPLOYMENTS, deployment(4), namespace)
    slices: dict[str, JsonObject] = {}
    gone, ready = Arrivals(), asyncio.Event()
    wanted = ""

    def look() -> None:
        serving = {
            endpoint["targetRef"]["name"]
            for one in slices.values()
            for endpoint in one.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        }
        if wanted and wanted not in serving:
            gone.saw(wanted)
        if len(serving) >= 4:
            ready.set()
        else:
            ready.clear()

    async def watch() -> None:
        select = Selection(namespace, labels=f"{SERVICE_LABEL}=relabelled")
        async for event in api.watch(ENDPOINTSLICES, select):
            if event.type != "BOOKMARK":
                slices[event.object["metadata"]["name"]] = event.object
                look()

    watching = asyncio.create_task(watch())
    taken = []
    for _ in range(rounds):
        async with asyncio.timeout(20):
            await ready.wait()
        wanted = next(one["targetRef"]["name"] for each in slices.values() for one in each["endpoints"])
        begun = time.perf_counter()
        patch = Patch({"metadata": {"labels": {"app": "set-aside"}}})
        _, at = await asyncio.gather(api.patch(PODS, wanted, patch, namespace), gone.of(wanted))
        taken.append((at - begun) * 1e3)
        await api.delete(PODS, wanted, namespace)
        await asyncio.sleep(0.1)
    watching.cancel()
    return taken


async def measure(one: BenchLab) -> list[Figure]:
    server = one.record.server
    figures: list[Figure] = []
    async with open_api(server) as api, aiohttp.ClientSession() as session:
        taken = await relabelled(api, "relabel", RELABELLED)
        note = f"max {max(taken):.1f} ms, {len(taken)} times; real {REAL_RELABEL_MS:g} ms"
        wanted = at_most("relabel -> slice without the pod, p50", percentile(taken, 0.5), "ms", RELABEL_MS_MAX, note)
        figures.append(wanted)
        await api.create(NAMESPACES, {"metadata": {"name": "rates"}})
        before = cpu_seconds(one.process)
        begun = time.perf_counter()
        figures += await rates(bare(session, server, "rates"), COUNT, True)
        busy = (cpu_seconds(one.process) - before) / (time.perf_counter() - begun)
        figures.append(Figure("share of a core the lab process used meanwhile", busy, ""))
        figures += await rates(ours(api, "rates"), COUNT, False)
        taken = await added(api, "rates", WATCHED)
        note = f"p99 {percentile(taken, 0.99):.1f} ms; real {REAL_ADDED_MS} ms"
        wanted = at_most("create sent -> ADDED seen, p50", percentile(taken, 0.5), "ms", REAL_ADDED_MS / TIMES, note)
        figures.append(wanted)
        names = [f"more-{index}" for index in range(LISTED - 4 * ROUNDS * COUNT)]
        await rate(ours(api, "rates").create, names, 8)
        figures += await listed(session, server, LISTED)
    figures.append(Figure("RSS of the lab process with these pods", rss_mib(one.process), "MiB", note="real: 708 + 90"))
    return figures


def run() -> list[Figure]:
    with lab("bench-rates") as one:
        return asyncio.run(measure(one))
