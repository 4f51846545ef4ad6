"""Drains under load through a real Traefik, HAProxy and Envoy: nothing lost, nothing that arrived after the release.

Per proxy a lab of its own (``tidegate lab up --ingress``), a Deployment whose pods count for themselves
(``bench.counting``), clients that send through the ingress's NodePort, half on a connection for each request, half on
kept ones; and drains of distinct pods in batches, half of them by their gate (DELETE), half by ``client.drain_pod``.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Figure, at_least, at_most, counted, holds, percentile
from bench.ground import BenchLab, lab
from bench.ingress_objects import NS, REPLICAS, deployment, plain, site
from tidegate.client import VerbOptions, drain_pod
from tidegate.kube.api import (
    DEPLOYMENTS,
    INGRESSES,
    NAMESPACES,
    PODS,
    SERVICES,
    Deletion,
    JsonObject,
    Patch,
    Selection,
)
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.model.names import DRAIN_RESULT
from tidegate.rehearse.ingress import KINDS, NODE_PORT, Kind

BATCH = 8
CLIENTS = 8
PAUSE_SECONDS = 0.03
RETIRE_SECONDS = 1.0
READ_SECONDS = 20.0
LATE_SECONDS = 1.5
"""After each batch: what comes late is lost late."""
READY_SECONDS = 60.0


@dataclass
class Tally:
    """What the clients saw. ``lost`` got no 200, a word each."""

    sent: int = 0
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def lost(self) -> int:
        return sum(count for word, count in self.statuses.items() if word != "200")

    @property
    def words(self) -> str:
        return ", ".join(f"{count} x {word}" for word, count in sorted(self.statuses.items()) if word != "200")


@dataclass
class Drained:
    """One drain: by gate or by label, how it ended, how long it took from the cut."""

    pod: str
    way: str
    result: str
    seconds: float
    reason: str = ""


async def request_once(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: str = "keep-alive"
) -> str:
    """One request; its status, or a word for what went wrong."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            writer.write(f"GET / HTTP/1.1\r\nhost: demo\r\nconnection: {connection}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            return head.split(b" ", 2)[1].decode()
    except TimeoutError:
        return "no answer"
    except (OSError, asyncio.IncompleteReadError, IndexError):
        return "broken off"


async def client(tally: Tally, host: str, port: int, keeps: bool) -> None:
    """One request after another; a kept connection is retired between two requests, never within one."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            tally.sent += 1
            tally.statuses["refused"] += 1
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        until = loop.time() + (RETIRE_SECONDS if keeps else 0.0)
        try:
            while True:
                tally.sent += 1
                said = await request_once(reader, writer, "keep-alive" if keeps else "close")
                tally.statuses[said] += 1
                await asyncio.sleep(PAUSE_SECONDS)
                if said in ("no answer", "broken off") or loop.time() >= until:
                    break
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def load(host: str, port: int = NODE_PORT) -> AsyncIterator[Tally]:
    """Clients for as long as this is open."""
    tally = Tally()
    tasks = [asyncio.create_task(client(tally, host, port, bool(number % 2))) for number in range(CLIENTS)]
    try:
        yield tally
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Scene:
    """One lab with one ingress."""

    lab: BenchLab
    kind: Kind
    api: KubeClient
    folder: Path

    @property
    def host(self) -> str:
        return f"127.{self.lab.record.block}.0.11"

    async def running(self) -> list[JsonObject]:
        pods = (await self.api.list(PODS, Selection(NS))).items
        return [one for one in pods if "deletionTimestamp" not in one["metadata"] and not _is_cut(one)]

    async def ready(self, count: int) -> list[str]:
        """Names of the ready pods, oldest first. Raises ``TimeoutError`` where there are not so many in time."""
        async with asyncio.timeout(READY_SECONDS):
            while True:
                found = [one for one in await self.running() if _is_ready(one)]
                if len(found) == count:
                    return [one["metadata"]["name"] for one in sorted(found, key=_age)]
                await asyncio.sleep(0.1)

    async def routed(self) -> None:
        """Until the ingress answers, and a while more: every pod is in it."""
        async with asyncio.timeout(READY_SECONDS):
            said = ""
            while said != "200":
                await asyncio.sleep(0.2)
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection(self.host, NODE_PORT)
                    said = await request_once(reader, writer, "close")
                    writer.close()
        await asyncio.sleep(5.0)

    async def by_gate(self, pod: str) -> Drained:
        """DELETE, and what the pod's record said last."""
        version = (await self.api.list(PODS, Selection(NS))).resource_version
        await self.api.delete(PODS, pod, NS)
        return await self.followed(pod, version)

    async def followed(self, pod: str, version: str) -> Drained:
        """A pod that is deleted after ``version``, to its end."""
        found: JsonObject = {}
        with contextlib.suppress(ApiError):
            async for event in self.api.watch(PODS, Selection(NS), version):
                if event.object["metadata"].get("name") != pod:
                    continue
                text = (event.object["metadata"].get("annotations") or {}).get(DRAIN_RESULT)
                found = json.loads(text) if text else found
                if event.type == "DELETED":
                    break
        return Drained(pod, "gate", found.get("result", "none"), found.get("seconds", 0.0), found.get("reason", ""))

    async def by_label(self, pod: str) -> Drained:
        try:
            found = await drain_pod(self.api, NS, pod, VerbOptions())
        except Exception as error:  # a refusal is a result too, and a missed one
            return Drained(pod, "label", type(error).__name__, 0.0, str(error))
        return Drained(pod, "label", found.result.value, found.seconds, found.reason)

    def late(self, pods: list[str]) -> tuple[int, int]:
        """By the pods' own count: how many told, and how many connections and requests came after their release."""
        files = [self.folder / f"{pod}.json" for pod in pods]
        counts = [json.loads(one.read_text()) for one in files if one.exists()]
        return len(counts), sum(one["connections"] + one["requests"] for one in counts)


def _is_cut(pod: JsonObject) -> bool:
    return (pod["metadata"].get("labels") or {}).get("app") != "demo"


def _is_ready(pod: JsonObject) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ())


def _age(pod: JsonObject) -> tuple[str, str]:
    return pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]


@contextlib.asynccontextmanager
async def scene(kind: Kind, folder: Path, replicas: int = REPLICAS) -> AsyncIterator[Scene]:
    """A lab with the ingress, the Deployment, and requests that come through."""
    with lab("bench-ingress", "--nodes", "2", "--port", "6643", "--ingress", kind.name) as up:
        async with open_api(up.record.server) as api:
            made = Scene(up, kind, api, folder)
            await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
            service, ingress = site(kind.name)
            await api.create(SERVICES, service)
            await api.create(INGRESSES, ingress)
            await api.create(DEPLOYMENTS, deployment(str(folder), replicas))
            await made.ready(replicas)
            await made.routed()
            yield made


async def drains(on: Scene, count: int) -> tuple[list[Drained], Tally, float]:
    """Drains in batches, under load, until ``count`` are verified; and the seconds that all of it took."""
    done: list[Drained] = []
    began = asyncio.get_running_loop().time()
    async with load(on.host) as tally:
        await asyncio.sleep(1.0)
        while (left := count - sum(one.result == "verified" for one in done)) and len(done) < 2 * count:
            batch = (await on.ready(REPLICAS))[: min(BATCH, left)]
            ways = [on.by_gate(pod) if number % 2 else on.by_label(pod) for number, pod in enumerate(batch)]
            done += await asyncio.gather(*ways)
            print(
                f"  {on.kind.name}: {len(done)} drains, {tally.lost} of {tally.sent} lost", file=sys.stderr, flush=True
            )
            await on.ready(REPLICAS)
            await asyncio.sleep(LATE_SECONDS)
    return done, tally, asyncio.get_running_loop().time() - began


async def contrast(on: Scene) -> tuple[Tally, int]:
    """The same pods without a gate, deleted: what is lost then, and what the pods count. Were it nothing, the figures
    above would prove nothing."""
    await on.api.patch(DEPLOYMENTS, "demo", Patch(plain(), "strategic"), NS)
    await asyncio.sleep(1.0)
    async with asyncio.timeout(READY_SECONDS):
        while any(one["spec"]["containers"][0].get("lifecycle") for one in await on.running()):
            await asyncio.sleep(0.3)
    pods = await on.ready(REPLICAS)
    async with load(on.host) as tally:
        await asyncio.sleep(1.0)
        for pod in pods[:6]:
            await on.api.delete(PODS, pod, NS, Deletion())
        await asyncio.sleep(6.0)
    return tally, on.late(pods[:6])[1]


def version_of(kind: Kind) -> str:
    """What the program says it is."""
    words = {"traefik": ("version",), "haproxy": ("-v",), "envoy": ("--version",)}[kind.name]
    done = subprocess.run([str(kind.path()), *words], capture_output=True, text=True, check=False)
    text = next((word for word in done.stdout.replace("/", " ").split() if word[:1].isdigit() and "." in word), "?")
    return text.partition("-")[0]


async def measured(kind: Kind, count: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with scene(kind, Path(folder)) as on:
            done, tally, seconds = await drains(on, count)
            told, late = on.late([one.pod for one in done])
            missed, late_of_missed = await contrast(on)
    name = f"{kind.name} {version_of(kind)}"
    odd = "; ".join(f"{one.pod} {one.way}: {one.result} {one.reason}" for one in done if one.result != "verified")
    verified = [one for one in done if one.result == "verified"]
    figures = [
        at_least(f"{name}: drains verified", len(verified), "", count),
        Figure(f"{name}: drains that ended otherwise", len(done) - len(verified), "", note=odd[:300]),
        at_most(f"{name}: requests lost", tally.lost, f"of {tally.sent:,}", 0, tally.words),
        at_most(f"{name}: arrived after the release, by the pods' own count", late, "", 0, f"{told} pods told"),
        holds(f"{name}: every pod told", told == len(done)),
        Figure(f"{name}: requests", tally.sent / seconds, "/s", note=f"{seconds:.0f} s in all"),
    ]
    for way in ("gate", "label"):
        took = [one.seconds for one in verified if one.way == way]
        note = f"p95 {percentile(took, 0.95):.2f} s, max {max(took, default=0):.2f} s, {counted([way] * len(took))}"
        figures.append(Figure(f"{name}: cut to release by {way}, p50", percentile(took, 0.5), "s", note=note))
    note = f"6 pods; they go on answering for a second: {missed.lost} of {missed.sent:,} lost"
    figures.append(at_least(f"{name}: so arrived where there is no gate", late_of_missed, "", 1, note))
    return figures


def run(drains: int = 100, only: tuple[str, ...] = ()) -> list[Figure]:
    """``drains`` verified ones through each proxy, one proxy after another; one whose program is not here is missed by
    name. Where a machine is too busy an agent goes silent, and its drains are ``bypassed``: they are counted apart."""
    figures: list[Figure] = []
    for kind in KINDS.values():
        if only and kind.name not in only:
            continue
        if kind.path() is None:
            figures.append(holds(f"{kind.name} is on this machine", False, kind.get))
            continue
        figures += asyncio.run(measured(kind, drains))
    return figures
