"""A lab of real processes behind a real proxy: the proxy, what feeds it, clients through it, and the drains.

``drained(user, proxy, count)`` is the whole: how each drain ended, and what the clients lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from stage import NS, SERVICE, deployment, is_ready

from tidegate.kube import wire
from tidegate.kube.api import DEPLOYMENTS, ENDPOINTSLICES, NAMESPACES, PODS, SERVICES, Resource, Selection
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.exchange import Request
from tidegate.kube.reflector import Reflector
from tidegate.model.names import DRAIN_RESULT

DRAINS = int(os.environ.get("TIDEGATE_REAL_DRAINS", "3"))
"""20 and more were run by hand (docs/evidence.md); the suite has to be quick."""
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
CLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", False)
SLOTS = 8


def program(name):
    """Its path: beside this Python's, or wherever the machine has it; None without one."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ingress(name, namespace, service, port, host=""):
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": service, "port": port}}}
    rule = {"http": {"paths": [path]}, **({"host": host} if host else {})}
    meta = {"name": name, "namespace": namespace}
    spec = {"ingressClassName": "traefik", "rules": [rule]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


@dataclass
class Proxy:
    """A real proxy on loopback. ``admin`` is where it is asked."""

    folder: Path
    web: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    kind = ""
    process: subprocess.Popen | None = None

    def observers(self):
        where = {"addresses": [f"127.0.0.1:{self.admin}"]}
        return {"observers": [{"name": "edge", "kind": self.kind, "where": where}]}

    def start(self, *command):
        log = (self.folder / "proxy.log").open("w")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)


class HAProxy(Proxy):
    """With a feeder of ours in the place of an ingress controller: slots, filled one after another in one pass."""

    kind = "haproxy"

    async def run(self, api, server):
        slots = "\n".join(f"  server SRV_{one} 127.0.0.1:1 disabled" for one in range(1, SLOTS + 1))
        (self.folder / "haproxy.cfg").write_text(
            f"global\n  stats socket ipv4@127.0.0.1:{self.admin} level admin\n"
            "defaults\n  mode http\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n"
            "  option http-server-close\n  retries 0\n"
            f"frontend web\n  bind 127.0.0.1:{self.web}\n  default_backend demo_echo_http\n"
            "backend tidegate-system_tidegate-fence-main_fence\n  server SRV_1 127.0.0.1:1 disabled\n"
            f"backend demo_echo_http\n{slots}\n"
        )
        self.start(program("haproxy"), "-db", "-f", "haproxy.cfg")
        self.slots: dict[str, tuple[str, int] | None] = {}
        self.news = asyncio.Event()
        watch = Reflector(api, ENDPOINTSLICES)
        watch.subscribe(lambda old, new: self.news.set())
        async with asyncio.TaskGroup() as group:  # noqa: TID251 - realtime: the wall clock's loop
            group.create_task(watch.run())
            group.create_task(self.feed(watch))

    async def feed(self, watch):
        await asyncio.sleep(0.5)
        while True:
            await self.news.wait()
            self.news.clear()
            await asyncio.sleep(0.7)  # realtime: as a controller's sync period
            await self.fill("tidegate-system_tidegate-fence-main_fence", self.ready(watch, "tidegate-fence-main"), 1)
            await asyncio.sleep(0.1)  # realtime: a pass is no transaction, and the fence comes first in this one
            await self.fill("demo_echo_http", self.ready(watch, "echo"), SLOTS)

    def ready(self, watch, service):
        return [
            (endpoint["addresses"][0], slice_["ports"][0]["port"])
            for _, slice_ in sorted(watch.objects.items())
            if slice_["metadata"]["labels"].get("kubernetes.io/service-name") == service
            and slice_["addressType"] == "IPv4"
            for endpoint in slice_.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        ]  # fmt: skip

    async def fill(self, backend, wanted, slots):
        names = [f"{backend}/SRV_{one}" for one in range(1, slots + 1)]
        for name in names:
            if self.slots.get(name) is not None and self.slots[name] not in wanted:
                await self.command(f"set server {name} state maint; set server {name} addr 127.0.0.1 port 1")
                self.slots[name] = None
        held = list(self.slots.values())
        for address in wanted:
            if address not in held:
                name = next(one for one in names if self.slots.get(one) is None)
                host, port = address
                await self.command(f"set server {name} addr {host} port {port}; set server {name} state ready")
                self.slots[name] = address

    async def command(self, text):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
        writer.write(f"{text}\n".encode())
        await reader.read()
        writer.close()


class Traefik(Proxy):
    """Unmodified, with its Kubernetes provider on the lab's API server."""

    kind = "traefik"

    async def run(self, api, server):
        spec = {"controller": "traefik.io/ingress-controller"}
        meta = {"name": "traefik"}
        body = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": meta, "spec": spec}
        await api.create(CLASSES, body)
        await api.create(INGRESSES, ingress("echo", NS, "echo", {"number": 8080}))
        fence = ingress("fence", "tidegate-system", "tidegate-fence-main", {"name": "fence"}, "fence.invalid")
        await api.create(INGRESSES, fence)
        self.start(
            program("traefik"),
            "--api.insecure=true",
            f"--entrypoints.web.address=127.0.0.1:{self.web}",
            f"--entrypoints.traefik.address=127.0.0.1:{self.admin}",
            f"--providers.kubernetesingress.endpoint={server}",
            "--providers.kubernetesingress.ingressclass=traefik",
            # It would keep idle connections to pods for 90 s, and no such pod is ever quiet.
            "--serverstransport.maxidleconnsperhost=-1",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
        )
        await asyncio.get_running_loop().create_future()


@dataclass
class Outcome:
    """``results`` in order; ``lost`` are requests that got no 200, a sentence each."""

    results: list[dict] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sent: int = 0
    lost: list[str] = field(default_factory=list)


class Clients:
    """Half of them open a connection for each request, half keep theirs."""

    host = "127.0.0.1"

    def __init__(self, port, outcome):
        self.port, self.outcome = port, outcome

    async def run(self, keeps):
        reader = writer = None
        while True:
            request = Request("GET", "/", (), {"connection": "keep-alive" if keeps else "close"})
            self.outcome.sent += 1
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(self.host, self.port)
                async with asyncio.timeout(5):
                    status, _, _ = await wire.converse(reader, writer, request, "x")
                if status != 200:
                    self.outcome.lost.append(f"status {status}")
            except (OSError, KubeError, TimeoutError) as error:
                self.outcome.lost.append(repr(error))
                keeps_open = False
            else:
                keeps_open = keeps
            if not keeps_open and writer is not None:
                writer.close()
                writer = None
            await asyncio.sleep(0.01)  # realtime: clients of this machine


async def drained(user, proxy, count=DRAINS, is_observed=True):
    """Drain ``count`` pods one after another by their gate, under load through the proxy."""
    file = proxy.folder / "observers.yaml"
    file.write_text(yaml.safe_dump(proxy.observers()))
    observed = ("--observers", str(file)) if is_observed else ()
    up = await asyncio.to_thread(user.run, "lab", "up", "--detach", "--nodes", "2", *observed)
    up.expect(0)
    config = yaml.safe_load((user.state / "labs" / "default" / "kubeconfig").read_text())
    server, outcome = config["clusters"][0]["cluster"]["server"], Outcome()
    async with open_api(server) as api, contextlib.AsyncExitStack() as stack:
        stack.callback(proxy.stop)
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment(replicas=2))
        tasks = [asyncio.create_task(proxy.run(api, server))]
        stack.push_async_callback(ended, tasks)
        await ready(api, 2)
        clients = Clients(proxy.web, outcome)
        await routed(proxy, tasks)
        tasks += [asyncio.create_task(clients.run(keeps)) for keeps in (True, False, True, False)]
        for _ in range(count):
            name = min(await running(api), key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"]
            began = asyncio.get_running_loop().time()
            outcome.results.append(await result_of(api, name))
            outcome.seconds.append(asyncio.get_running_loop().time() - began)
            await ready(api, 2)
            await asyncio.sleep(1.5)  # realtime: what comes late is lost late
    return outcome


async def ended(tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def running(api):
    return [one for one in (await api.list(PODS, Selection(NS))).items if "deletionTimestamp" not in one["metadata"]]


async def ready(api, count):
    async with asyncio.timeout(30):
        while sum(map(is_ready, await running(api))) < count:
            await asyncio.sleep(0.05)  # realtime: pods of this machine


async def routed(proxy, tasks):
    """Until requests come through."""
    async with asyncio.timeout(30):
        while True:
            if tasks[0].done():
                tasks[0].result()
            with contextlib.suppress(KubeError):
                peer = wire.Peer("127.0.0.1", proxy.web, timeout_seconds=1.0)
                if (await wire.fetch(peer, Request("GET", "/")))[0] == 200:
                    break
            await asyncio.sleep(0.1)  # realtime: a proxy of this machine
    await asyncio.sleep(2.5)  # realtime: both pods are in it


async def result_of(api, name):
    """Delete a pod and watch it to its end: the result it had last."""
    version = (await api.list(PODS, Selection(NS))).resource_version
    await api.delete(PODS, name, NS)
    found = {}
    with contextlib.suppress(ApiError):
        async for event in api.watch(PODS, Selection(NS), version):
            if event.object["metadata"].get("name") != name:
                continue
            text = (event.object["metadata"].get("annotations") or {}).get(DRAIN_RESULT)
            found = json.loads(text) if text else found
            if event.type == "DELETED":
                break
    return found
