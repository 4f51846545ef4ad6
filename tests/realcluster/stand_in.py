"""Tidegate's own processes beside a real API server, in this process: one node whose data plane is a stand-in.

The stand-in copies Services and ready endpoints from real watches into tables, as every data plane does; the agent's
questions and the coordinator are the real ones, and a command line reaches them through the API server's pods/proxy.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.realcluster.fake_kubelet import NODE, fake_kubelet

from tidegate import vtime
from tidegate.agent import addon, roles
from tidegate.agent.callers import Callers
from tidegate.agent.coordinator import Coordinator, CoordinatorSettings
from tidegate.agent.issuer import AGENT_SECRET, Issuer
from tidegate.agent.ports import Doors, Ports
from tidegate.agent.questions import Questions
from tidegate.agent.witness import NodeWitness
from tidegate.dataplane.sockets import Quiet
from tidegate.kube import wire
from tidegate.kube.api import (
    ENDPOINTSLICES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    Api,
    Deletion,
    Patch,
    Resource,
)
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Reflector
from tidegate.kube.tls import Credentials
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import AGENT_PORT, COORDINATOR_PORT, SYSTEM_NAMESPACE
from tidegate.observers.asking import (
    AGENT_ASK_PORT,
    AGENT_NAME,
    ASK_ANNOTATION,
    COORDINATOR_ASK_PORT,
    COORDINATOR_NAME,
)
from tidegate.observers.coordinator import LEASE_NAME
from tidegate.observers.kernel import LabTables

LAG_SECONDS = 0.02
KINDS = {
    "ServiceAccount": SERVICEACCOUNTS,
    "Role": Resource(roles.GROUP, "v1", "roles", "Role"),
    "RoleBinding": Resource(roles.GROUP, "v1", "rolebindings", "RoleBinding"),
}


NAMESPACE_ADDRESS = "TIDEGATE_TEST_NAMESPACE_ADDRESS"


def own_address() -> str:
    """An address that is not a loopback one (an API server proxies to none of those), or "".

    There is one only in the network namespace that ``test_witnessed_apart`` makes: nothing here is ever sent to an
    address of the machine's own network.
    """
    return os.environ.get(NAMESPACE_ADDRESS, "")


@dataclass
class StandInKernel:
    """``observers.kernel.Dumps`` over two watches, IPv4 alone. ``is_frozen``: a proxy that stopped syncing."""

    api: Api
    node: str
    is_frozen: bool = False
    generation: int = 1
    _tables: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> None:
        """Sync for ever."""
        services, slices = Reflector(self.api, SERVICES), Reflector(self.api, ENDPOINTSLICES)
        due = asyncio.Event()
        for one in (services, slices):
            one.subscribe(lambda old, new: due.set())
        async with vtime.Nursery() as nursery:
            nursery.start(services.run())
            nursery.start(slices.run())
            while True:
                await due.wait()
                await asyncio.sleep(LAG_SECONDS)
                if self.is_frozen:
                    continue
                due.clear()
                tables = list(_tables(services, slices))
                if tables != self._tables:
                    self._tables, self.generation = tables, self.generation + 1

    async def dump(self) -> str:
        at = vtime.now().timestamp()
        head = {"kernel": "tidegate-lab/1", "node": self.node, "generation": self.generation, "at": at}
        return json.dumps({**head, "services": self._tables, "redirects": [], "conntrack": []})

    async def wait(self, generation: int, seconds: float) -> str:
        until = asyncio.get_running_loop().time() + seconds
        while self.generation <= generation and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.005)
        return await self.dump()


def _tables(services: Reflector, slices: Reflector) -> Iterator[dict[str, Any]]:
    for (namespace, name), service in sorted(services.objects.items()):
        if service["spec"].get("clusterIP") in (None, "", "None"):
            continue
        for port in service["spec"].get("ports") or ():
            endpoints = [
                f"{address}:{target['port']}"
                for one in slices.objects.values()
                if one["metadata"]["namespace"] == namespace
                and one["addressType"] == "IPv4"
                and one["metadata"]["labels"].get("kubernetes.io/service-name") == name
                for target in one.get("ports") or ()
                if (target.get("name") or "") == (port.get("name") or "")
                for endpoint in one.get("endpoints") or ()
                if endpoint["conditions"].get("ready")
                for address in endpoint["addresses"]
            ]
            yield {
                "namespace": namespace, "name": name, "port_name": port.get("name") or "", "protocol": "TCP",
                "cluster_ip": service["spec"].get("clusterIP") or "", "port": port["port"],
                "endpoints": sorted(endpoints),
            }  # fmt: skip


class QuietSockets:
    """Of pods that have none: nothing runs in them."""

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        return Quiet()


@contextlib.asynccontextmanager
async def tidegate_installed(api: Api, address: str, folder: str = "") -> AsyncIterator[StandInKernel]:
    """Agent and coordinator of the one fake node, listening on ``address``; all of it is taken away again. With a
    ``folder`` for certificates they ask for them and for tokens; without, they are as before there were any."""
    kernel = StandInKernel(api, NODE)
    settings = CoordinatorSettings("tidegate-coordinator", address)
    if folder:
        ask = f"https:{COORDINATOR_ASK_PORT}"
        settings = replace(settings, ask=ask, credentials=Credentials(f"{folder}/coordinator"))
    coordinator = Coordinator(api, settings, lambda line: None)
    with contextlib.suppress(ApiError):
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})
    async with contextlib.AsyncExitStack() as stack:
        kubelet = await stack.enter_async_context(fake_kubelet(api, SYSTEM_NAMESPACE))
        kubelet.node_address = address
        await _node_at(api, [{"type": "InternalIP", "address": address}])
        site = addon.Site("", ((NODE, address),), "", "", "")
        pods = [one for one in addon.manifests(site) if one["kind"] == "Pod"]
        await _accounts(api)
        for one in pods:
            annotations = one["metadata"].pop("annotations", None)  # without it: asked without a token
            if folder and annotations:
                one["metadata"]["annotations"] = {ASK_ANNOTATION: f"https:{AGENT_ASK_PORT}"}
            await api.create(PODS, one)
        questions = Questions(NodeWitness(LabTables(kernel, NODE), NODE), QuietSockets(), api, address)
        if folder:
            servers = await _under_tls(api, address, folder, questions, coordinator)
        else:
            servers = [
                await wire.serve(questions.exchange, address, AGENT_PORT),
                await wire.serve(coordinator.exchange, address, COORDINATOR_PORT),
            ]
        running = [asyncio.create_task(kernel.run()), asyncio.create_task(coordinator.run())]
        try:
            while not coordinator.lease.is_held:
                await asyncio.sleep(0.02)
            yield kernel
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for server in servers:
                await server.close()
            for one in pods:
                await api.delete(PODS, one["metadata"]["name"], SYSTEM_NAMESPACE, Deletion(0))
            await api.delete(LEASES, LEASE_NAME, SYSTEM_NAMESPACE)
            await _node_at(api, [])


async def callers_installed(api: Api) -> None:
    """The account whose tokens command lines show, and its leave to ask, as they are printed."""
    for piece in roles.callers():
        try:
            await api.create(KINDS[piece.manifest["kind"]], piece.manifest)
        except ApiError as error:
            if not error.is_conflict:  # there from the test before
                raise


async def _under_tls(
    api: Api, address: str, folder: str, questions: Questions, coordinator: Coordinator
) -> list[Ports]:
    """Certificates as the coordinator makes them and agents mount them; accounts and roles as they are printed."""
    await callers_installed(api)
    await Issuer(api, f"{folder}/coordinator", "main", lambda line: None).issue(vtime.now())
    mounted = Path(folder, "agent")
    mounted.mkdir(exist_ok=True)
    for name, text in (await api.get(SECRETS, AGENT_SECRET, SYSTEM_NAMESPACE))["data"].items():
        (mounted / name).write_bytes(base64.b64decode(text))
    credentials = coordinator.settings.credentials
    made = [
        Ports(
            Doors(address, AGENT_PORT, AGENT_ASK_PORT, (COORDINATOR_NAME,)),
            questions.exchange, Callers(api), print, Credentials(str(mounted)),
        ),
        Ports(
            Doors(address, COORDINATOR_PORT, COORDINATOR_ASK_PORT, (AGENT_NAME,)),
            coordinator.exchange, Callers(api), print, credentials,
        ),
    ]  # fmt: skip
    for one in made:
        await one.open()
    return made


async def _node_at(api: Api, addresses: list[dict[str, str]]) -> None:
    await api.patch(NODES, NODE, Patch({"status": {"addresses": addresses}}, subresource="status"))


async def _accounts(api: Api) -> None:
    """Until the namespace's service account is there: pods are refused before."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(ApiError):
                await api.get(SERVICEACCOUNTS, "default", SYSTEM_NAMESPACE)
                return
            await asyncio.sleep(0.05)
