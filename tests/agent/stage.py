"""A whole virtual lab with Tidegate in it, an echo Deployment, and a camera on every pod's end.

``lies(stage)`` is the judge of every scenario: from the kernels' own journal, was any ``verified`` pod still routed
to when it was told to stop?
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

from tidegate import vtime
from tidegate.agent import coordinator, process
from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, PODS, SERVICES, Deletion, Patch, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, Unreachable
from tidegate.lab.config import LabConfig
from tidegate.lab.faults import Fault
from tidegate.lab.virtual import VirtualLab
from tidegate.model.names import DRAIN, DRAIN_RESULT
from tidegate.rehearse.addons import TIDEGATE

NS = "demo"


def deployment(replicas=3, grace=60, gate=True, containers=("echo",), env=(), annotations=()):
    def container(index, name):
        port = 8080 + index
        made = {
            "name": name,
            "image": "tidegate/echo:v1",
            "env": [{"name": "PORT", "value": str(port)}, *({"name": k, "value": v} for k, v in env)],
            "ports": [{"name": f"http{index}" if index else "http", "containerPort": port}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1},
        }
        if gate:
            made["lifecycle"] = {"preStop": {"httpGet": {"path": f"/gate/{name}", "port": 15299}}}
        return made

    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo", "namespace": NS},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "echo"}},
            "template": {
                "metadata": {"labels": {"app": "echo"}, "annotations": dict(annotations)},
                "spec": {
                    "terminationGracePeriodSeconds": grace,
                    "containers": [container(index, name) for index, name in enumerate(containers)],
                },
            },
        },
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "echo", "namespace": NS},
    "spec": {
        "selector": {"app": "echo"},
        "ports": [{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}],
    },
}


class Switch:
    """An exchange that can be turned off: the API server of everything but the lab itself."""

    def __init__(self, exchange):
        self.exchange, self.is_off = exchange, False

    async def __call__(self, request):
        if self.is_off:
            raise Unreachable("the API is down")
        return await self.exchange(request)


@contextlib.contextmanager
def switched(monkeypatch, kind=Switch):
    """``with switched(monkeypatch) as turn: turn(True)`` turns off the API as agents and coordinator reach it."""
    made = []

    def opened(module):
        original = module.open_api

        @contextlib.asynccontextmanager
        async def through(server="", **how):
            async with original(server, **how) as api:
                one = kind(api._exchange)
                made.append(one)
                yield KubeClient(one, server)

        monkeypatch.setattr(module, "open_api", through)

    opened(process)
    opened(coordinator)

    def turn(is_off):
        for one in made:
            one.is_off = is_off

    yield turn


class Stage:
    """The running scenario."""

    def __init__(self, lab):
        self.lab = lab
        self.api = lab.api
        self.client = KubeClient(lab.lab.exchange, "lab")
        self.annotations = {}
        self.names = {}

    @property
    def now(self):
        return asyncio.get_running_loop().time()

    async def film(self):
        """Remember every pod's last annotations: they are gone with the pod."""
        version = (await self.api.list(PODS)).resource_version
        async for event in self.api.watch(PODS, Selection(NS), version):
            metadata = event.object["metadata"]
            self.names[metadata["name"]] = metadata["uid"]
            self.annotations[metadata["name"]] = metadata.get("annotations") or {}

    def result(self, name):
        """The recorded result of a pod, None without a record."""
        text = self.annotations.get(name, {}).get(DRAIN_RESULT)
        return None if text is None else json.loads(text)

    def drain_state(self, name):
        text = self.annotations.get(name, {}).get(DRAIN)
        return None if text is None else json.loads(text)["state"]

    async def pods(self):
        found = (await self.api.list(PODS, Selection(NS))).items
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    async def ready(self, count):
        """Until ``count`` pods are ready and the proxies have had a quiet moment."""
        for _ in range(600):
            if sum(map(is_ready, await self.pods())) >= count:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the pods never got ready")
        await asyncio.sleep(2.5)

    async def delete(self, name, grace=None):
        await self.api.delete(PODS, name, NS, Deletion(grace_seconds=grace))

    async def gone(self, name, within=120.0):
        """Seconds until the pod is gone."""
        began = self.now
        while self.now - began < within:
            try:
                await self.api.get(PODS, name, NS)
            except ApiError:
                await asyncio.sleep(0.01)
                return self.now - began
            await asyncio.sleep(0.02)
        raise AssertionError(f"{name} is still there after {within} s")

    async def end(self, name, grace=None):
        """Delete a pod and wait for its end: (recorded result, seconds from DELETE to SIGTERM)."""
        began = vtime.now().timestamp()
        await self.delete(name, grace)
        await self.gone(name)
        return self.result(name), self.told_to_stop(name) - began

    def told_to_stop(self, name):
        return min(e["at"] for e in self.lab.journal() if e["event"] == "signal-sent" and e["pod"] == name)

    def fault(self, kind, node, seconds=0.0):
        self.lab.lab.faults.apply(Fault(kind, node, seconds))

    def kill(self, name, number=signal.SIGKILL):
        """End a container's process, named "pod/container"."""
        found = [p for p in self.lab.lab.ground.runtime._processes if p.name == name and p.alive]
        assert found, name
        for one in found:
            one.signal(number)

    async def scale(self, replicas):
        await self.api.patch(DEPLOYMENTS, "echo", Patch({"spec": {"replicas": replicas}}), NS)


def is_ready(pod):
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def lies(stage):
    """Pods recorded ``verified`` that some node's kernel routed to when they were told to stop, or ever after."""
    tables, ips, stopped, found = {}, {}, {}, []
    verified = {name for name in stage.annotations if (stage.result(name) or {}).get("result") == "verified"}
    for entry in sorted(stage.lab.journal(), key=lambda entry: entry["at"]):
        if entry["event"] == "process-started":
            ips[entry["pod"]] = entry["ip"]
            stopped.pop(entry["ip"], None)  # the address is somebody else's now
        elif entry["event"] == "table-committed":
            tables[entry["node"]] = {to.rpartition(":")[0] for all_ in entry["services"].values() for to in all_}
            back = sorted(stopped.keys() & tables[entry["node"]])
            found += [f"{stopped[ip]} was routed to by {entry['node']} after its end" for ip in back]
        elif entry["event"] == "signal-sent" and entry["pod"] in verified:
            ip = ips[entry["pod"]]
            found += [f"{entry['pod']} was routed to by {node}" for node, to in sorted(tables.items()) if ip in to]
            stopped[ip] = entry["pod"]
    return found


@contextlib.asynccontextmanager
async def staged(manifest=None, seed=0, addons=(TIDEGATE,), comes_up=True, **config):
    manifest = manifest or deployment()
    async with VirtualLab(LabConfig(seed=seed, addons=addons, **config)) as lab:
        stage = Stage(lab)
        await stage.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
        await stage.api.create(SERVICES, SERVICE)
        filming = asyncio.create_task(stage.film())
        await stage.api.create(DEPLOYMENTS, manifest)
        if comes_up:
            await stage.ready(manifest["spec"]["replicas"])
        try:
            yield stage
            assert lies(stage) == []
        finally:
            filming.cancel()


def play(story, manifest=None, seed=0, limit=400, **options):
    """Run ``async def story(stage)`` in a lab of its own; no scenario may hold a false ``verified``."""

    async def whole():
        async with staged(manifest, seed, **options) as stage:
            return await story(stage)

    return vtime.run(whole(), seed=seed, limit_seconds=limit)


async def first(stage):
    """The name of one pod, always the same for a seed."""
    return min(pod["metadata"]["name"] for pod in await stage.pods())


async def node_of(stage, name):
    return (await stage.api.get(PODS, name, NS))["spec"]["nodeName"]


async def other_node(stage, name):
    """A node that does not run the pod, nor the coordinator."""
    own = await node_of(stage, name)
    return next(node for node in ("node-3", "node-2", "node-1") if node != own)
