"""What the stories of the gate on a real kubelet are told with: workloads, Tidegate as real pods, clients, a judge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.realcluster import apart, judge
from tests.realcluster.judge import Load, answers, eventually, held_calls, line
from tests.realcluster.kubelet_node import NODE, POD_NETWORK, KubeletNode
from tests.realcluster.pod_image import APP_IMAGE, APP_PORT

from tidegate.agent import addon
from tidegate.kube.api import (
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
    Api,
    Deletion,
    Patch,
    Resource,
    Selection,
)
from tidegate.kube.connect import open_api
from tidegate.kube.errors import ApiError
from tidegate.lab.controllers.kinds import PLAIN
from tidegate.model.names import AGENT_PORT, GATE_PATH, GATE_PORT, SYSTEM_NAMESPACE, DrainResult, decode_result
from tidegate.observers.coordinator import LEASE_NAME

Manifest = dict[str, Any]
KINDS = {one.kind: one for one in (PODS, SERVICES, SERVICEACCOUNTS, *PLAIN)}
"""What Tidegate's manifests are made of."""
PODS_OF_EACH = 3
SYNC_SECONDS = 1.5
"""kube-proxy's minSyncPeriod of 1 s, and a sync."""
GATE: Manifest = {"httpGet": {"path": f"{GATE_PATH}app", "port": GATE_PORT}}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CAPABILITIES = ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT"]
"""Rules, conntrack; entering a pod's network namespace; seeing other users' processes; the last is the test's own."""


def sleeping(seconds: int) -> Manifest:
    return {"sleep": {"seconds": seconds}}


WAYS: dict[str, Manifest | None] = {"plain": None, "sleep-5": sleeping(5), "sleep-15": sleeping(15), "gate": GATE}


def pod_template(name: str, pre_stop: Manifest | None, grace: int = 30, **container: Any) -> Manifest:
    app = {
        "name": "app",
        "image": APP_IMAGE,
        "imagePullPolicy": "Never",
        "readinessProbe": {"httpGet": {"path": "/", "port": APP_PORT}, "periodSeconds": 1},
        "securityContext": RESTRICTED,
        **({"lifecycle": {"preStop": pre_stop}} if pre_stop else {}),
        **container,
    }
    spec = {
        "nodeName": NODE,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace,
        "containers": [app],
    }
    return {"metadata": {"labels": {"app": name}}, "spec": spec}


@dataclass
class Life:
    """One pod as its watch and its own process tell it; instants of the loop's clock."""

    name: str
    uid: str
    ip: str
    deleted_at: float = 0.0
    stopped_at: float = 0.0
    gone_at: float = 0.0
    result: DrainResult | None = None
    is_followed: bool = False
    opened: dict[str, int] = field(default_factory=dict)
    """Connections opened to it through a ClusterIP, as the node's own kernel had counted them by "deletion" and
    "result" (both as the watch told of them)."""

    @property
    def held_seconds(self) -> float:
        """From its deletion to its SIGTERM, at which this app ends."""
        return self.stopped_at - self.deleted_at


@dataclass
class Scene:
    """A namespace on the real node."""

    api: Api
    node: KubeletNode
    namespace: str
    lives: dict[str, Life] = field(default_factory=dict)
    """By uid, of every pod that was seen Ready."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def create(self, resource: Resource, name: str, body: Manifest) -> Manifest:
        metadata = {"name": name, "namespace": self.namespace, **body.pop("metadata", {})}
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        return await self.api.create(resource, {**head, **body, "metadata": metadata})

    async def pod(self, name: str, pre_stop: Manifest | None, grace: int = 30, **container: Any) -> Manifest:
        """A pod of its own, Ready."""
        return await self.pod_of(name, pod_template(name, pre_stop, grace, **container))

    async def pod_of(self, name: str, template: Manifest) -> Manifest:
        """A pod of its own of this template, Ready."""
        await self.create(PODS, name, template)
        return await eventually(lambda: self._ready(name), f"pod {name} is Ready")

    async def deployment(self, name: str, replicas: int, pre_stop: Manifest | None, **container: Any) -> str:
        """One with a Service, all Ready and routed; the Service's address."""
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": pod_template(name, pre_stop, **container),
        }
        made = await self.create(SERVICES, name, service(name))
        await self.create(DEPLOYMENTS, name, {"spec": spec})
        address = str(made["spec"]["clusterIP"])
        await eventually(lambda: self.is_rolled_out(name), f"deployment {name} is there")
        await eventually(lambda: answers(address), f"service {name} is routed")
        return address

    async def is_rolled_out(self, name: str) -> bool:
        found = await self.api.get(DEPLOYMENTS, name, self.namespace)
        status, wanted = found.get("status") or {}, found["spec"]["replicas"]
        is_seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return is_seen and counts == [wanted] * 3

    async def roll(self, name: str) -> None:
        """Another template: every pod of it is replaced."""
        change = {"metadata": {"annotations": {"rolled": "once more"}}}
        await self.api.patch(DEPLOYMENTS, name, Patch({"spec": {"template": change}}), self.namespace)

    async def delete(self, pod: Manifest, grace: int | None = None) -> Life:
        """Ask for its end, and see in the watch that it was asked for."""
        life = self.lives[pod["metadata"]["uid"]]
        await self.api.delete(PODS, life.name, self.namespace, Deletion(grace))

        async def is_seen() -> bool:
            return life.deleted_at > 0

        await eventually(is_seen, f"the deletion of {life.name} is seen")
        return life

    async def stopped(self, life: Life) -> None:
        """Its app has ended; the API hears of that up to a second later."""

        async def has_stopped() -> bool:
            return life.stopped_at > 0

        await eventually(has_stopped, f"the app of {life.name} has ended")

    async def gone(self, life: Life, seconds: float = 20) -> None:
        async def is_gone() -> bool:
            return life.gone_at > 0

        await eventually(is_gone, f"pod {life.name} is gone", seconds)

    def lives_of(self, name: str) -> list[Life]:
        """The pods of a Deployment that have been deleted, the first first."""
        found = [one for one in self.lives.values() if one.name.startswith(f"{name}-") and one.deleted_at]
        return sorted(found, key=lambda one: one.deleted_at)

    async def _ready(self, name: str) -> Manifest | None:
        pod = await self.api.get(PODS, name, self.namespace)
        life = self.lives.get(pod["metadata"]["uid"])
        return pod if is_ready(pod) and life is not None and life.is_followed else None

    async def watch(self) -> None:
        """Follow every pod's life, for ever."""
        loop = asyncio.get_running_loop()
        async for event in self.api.watch(PODS, Selection(self.namespace)):
            pod = event.object
            if not (uid := pod["metadata"].get("uid")):
                continue
            if uid not in self.lives:
                if not is_ready(pod):
                    continue
                self.lives[uid] = Life(pod["metadata"]["name"], uid, pod["status"]["podIP"])
                self._start(self._follow(self.lives[uid]))
            life = self.lives[uid]
            if life.result is None:
                life.result = decode_result(pod["metadata"].get("annotations") or {})
                if life.result is not None:
                    self._start(self._count(life, "result"))
            if pod["metadata"].get("deletionTimestamp") and not life.deleted_at:
                life.deleted_at = loop.time()
                self._start(self._count(life, "deletion"))
            if event.type == "DELETED":
                life.gone_at = loop.time()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _count(self, life: Life, moment: str) -> None:
        life.opened[moment] = (await asyncio.to_thread(judge.opened)).get(life.ip, 0)

    async def _follow(self, life: Life) -> None:
        """Until its app has ended: at once on SIGTERM."""
        loop = asyncio.get_running_loop()
        pids = await asyncio.to_thread(self.node.inside, life.uid)
        end = os.pidfd_open(pids[0])
        life.is_followed = True

        def ended() -> None:
            life.stopped_at = loop.time()
            loop.remove_reader(end)
            os.close(end)

        loop.add_reader(end, ended)


async def rolled(here: Scene, way: str) -> Load:
    """A rolling update of three pods under load."""
    address = await here.deployment(way, PODS_OF_EACH, WAYS[way])
    async with Load(address) as load:
        await asyncio.sleep(SYNC_SECONDS)  # realtime: kube-proxy routes to all three
        await here.roll(way)
        await eventually(lambda: here.is_rolled_out(way), f"{way} is rolled out", 60)

        async def are_gone() -> bool:
            lives = here.lives_of(way)
            return len(lives) == PODS_OF_EACH and all(one.gone_at for one in lives)

        await eventually(are_gone, f"the pods of {way} are gone", 60)
    return load


def told(here: Scene, loads: dict[str, Load]) -> None:
    head = f"{here.node.plane.version}, {PODS_OF_EACH} pods, a new connection per request"
    print(head, judge.HEADING, *(line(way, load, here.lives_of(way)) for way, load in loads.items()), sep="\n")


@contextlib.asynccontextmanager
async def busy(pod: Manifest) -> AsyncIterator[asyncio.StreamWriter]:
    """A connection to the pod on which nothing has been asked yet: no gate is released before its deadline."""
    _, writer = await asyncio.open_connection(pod["status"]["podIP"], APP_PORT)
    try:
        yield writer
    finally:
        writer.close()


async def held(number: int = 1) -> None:
    async def are_held() -> bool:
        return held_calls() == number

    await eventually(are_held, f"{number} calls are held")


def service(name: str) -> Manifest:
    return {"spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": APP_PORT}]}}


def is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


@contextlib.asynccontextmanager
async def scene(node: KubeletNode, namespace: str, **labels: str) -> AsyncIterator[Scene]:
    """A namespace whose pods are watched. It is left to the end of the machine."""
    async with open_api(kubeconfig=str(node.plane.kubeconfig)) as api:
        here = Scene(api, node, namespace)
        await _namespace(api, namespace, labels)
        watching = asyncio.create_task(here.watch())
        try:
            yield here
        except BaseException:
            print(*(f"--- {one}\n{log(one)[-3000:]}" for one in ("agent", "holder", "coordinator")), sep="\n")
            raise
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def _namespace(api: Api, name: str, labels: dict[str, str]) -> None:
    with contextlib.suppress(ApiError):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        await api.create(NAMESPACES, body)
    await eventually(lambda: api.get(SERVICEACCOUNTS, "default", name), "pods may be created: a service account")


AGENT = f"tidegate-agent-{NODE}"


async def kill(here: Scene, container: str, number: int = signal.SIGKILL) -> None:
    """A signal to a container (agent or holder) of the node agent's pod; the kubelet starts it again once it ends."""
    pod = await here.api.get(PODS, AGENT, SYSTEM_NAMESPACE)
    [first, *_] = here.node.inside(pod["metadata"]["uid"], container)
    os.kill(first, number)


def log(container: str) -> str:
    """What a container of Tidegate's has said, of all its lives."""
    files = Path("/var/log/pods").glob(f"{SYSTEM_NAMESPACE}_*/{container}/*.log")
    return "".join(file.read_text() for file in sorted(files))


async def install(node: KubeletNode, folder: Path) -> None:
    """Agent, holder and coordinator as pods of the real kubelet.

    Images cannot be had: their containers change into the machine's own root, where this Python is.
    """
    kubelet = node.processes["kubelet"].pid
    site = addon.Site("", ((NODE, apart.ADDRESS),), "", str(folder), str(folder), kubelet)
    async with open_api(kubeconfig=str(node.plane.kubeconfig)) as api:
        await _namespace(api, SYSTEM_NAMESPACE, {})
        for one in addon.manifests(site):
            if one["kind"] == "Namespace":
                continue
            if one["kind"] == "Pod":
                _in_the_machines_root(one, str(node.plane.kubeconfig))
            await api.create(KINDS[one["kind"]], one)
        try:
            await eventually(lambda: _is_led(api), "the coordinator leads")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {log('coordinator')[-2000:]}") from error
    for host, port in ((apart.ADDRESS, AGENT_PORT), ("127.0.0.1", GATE_PORT)):
        await eventually(partial(is_listening, host, port), f"somebody listens on {host}:{port}")


@contextlib.asynccontextmanager
async def successor(here: Scene) -> AsyncIterator[str]:
    """The agent that a surge makes beside the one that is there; its name, once the holder asks it.

    Without the ports that the other one declares: the kubelet admits no second pod with them.
    """
    old = await here.api.get(PODS, AGENT, SYSTEM_NAMESPACE)
    [container] = [one for one in old["spec"]["containers"] if one["name"] == "agent"]
    container.pop("ports")
    env = {one["name"]: one["value"] for one in container["env"]}
    named = ("hostNetwork", "hostPID", "nodeName", "volumes", "tolerations", "automountServiceAccountToken")
    spec = {key: old["spec"][key] for key in named} | {"containers": [container], "terminationGracePeriodSeconds": 5}
    metadata = {"name": f"{AGENT}-next", "namespace": SYSTEM_NAMESPACE, "labels": old["metadata"]["labels"]}
    socket = Path(env["TIDEGATE_AGENT_SOCKET"])
    before = socket.stat().st_ino
    await here.api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    async def is_asked() -> bool:
        return socket.exists() and socket.stat().st_ino != before

    await eventually(is_asked, "the next agent has the holder's socket", 20)
    try:
        yield metadata["name"]
    finally:
        await here.api.delete(PODS, metadata["name"], SYSTEM_NAMESPACE, Deletion(1))


async def _is_led(api: Api) -> bool:
    return bool((await api.get(LEASES, LEASE_NAME, SYSTEM_NAMESPACE))["spec"].get("holderIdentity"))


def _in_the_machines_root(pod: Manifest, kubeconfig: str) -> None:
    spec = pod["spec"]
    spec |= {"hostPID": True, "automountServiceAccountToken": False}
    spec["volumes"] = [{"name": "root", "hostPath": {"path": "/"}}]
    for one in spec["containers"]:
        role = one["image"].removeprefix("tidegate/").partition(":")[0]
        command = ["chroot", "/host", sys.executable, "-m", "tidegate", "agent", role.replace("agent", "node")]
        one |= {"image": APP_IMAGE, "imagePullPolicy": "Never", "command": command}
        granted = CAPABILITIES if role == "agent" else ["SYS_CHROOT"]
        one["securityContext"] = {"capabilities": {"drop": ["ALL"], "add": granted}}
        one |= {"volumeMounts": [{"name": "root", "mountPath": "/host"}]}
        env = {entry["name"]: entry["value"] for entry in one["env"]} | {
            "KUBECONFIG": kubeconfig,
            "PATH": os.environ["PATH"],
            "TIDEGATE_HOLDER": f"127.0.0.1:{GATE_PORT}",
            "TIDEGATE_HOLDER_HOST": "127.0.0.1",
            "TIDEGATE_ORIGINAL_DESTINATION": "sockopt",
            "TIDEGATE_POD_NETWORKS": POD_NETWORK,
        }
        one["env"] = [{"name": key, "value": value} for key, value in env.items() if value]


async def is_listening(host: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True


async def is_up(node: KubeletNode) -> None:
    """Wait for the Node to be Ready."""
    async with open_api(kubeconfig=str(node.plane.kubeconfig)) as api:

        async def found() -> bool:
            return is_ready(await api.get(NODES, NODE))

        await eventually(found, "the Node is Ready")
