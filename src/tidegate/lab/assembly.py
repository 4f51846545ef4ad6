"""One lab from its parts: the same for real and for virtual time; only the ground under it differs."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tidegate import vtime
from tidegate.kube.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    INGRESSCLASSES,
    INGRESSES,
    LEASES,
    NAMESPACES,
    PODDISRUPTIONBUDGETS,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
    Api,
    JsonObject,
    Resource,
)
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Exchange, Request, Response
from tidegate.lab import api_errors, control
from tidegate.lab.apiserver.access import EVERYONE, Subject
from tidegate.lab.apiserver.local import LocalApi
from tidegate.lab.apiserver.server import ApiServer
from tidegate.lab.apiserver.streams import Backends
from tidegate.lab.config import LabConfig, LabFacts
from tidegate.lab.controllers.run import run_controllers
from tidegate.lab.events import Recorder, Source
from tidegate.lab.faults import Faults, as_json
from tidegate.lab.journal import Journal
from tidegate.lab.kernel.client import KernelClient, control_path
from tidegate.lab.kubelet.credentials import Credentials
from tidegate.lab.kubelet.kubelet import Kubelet
from tidegate.lab.kubelet.seams import Seams
from tidegate.lab.network.network import Loopback, Network
from tidegate.lab.proxy.proxy import Proxy
from tidegate.lab.proxy.unbound import Unbound
from tidegate.lab.runtime.execute import Executor
from tidegate.lab.runtime.logs import LogBook
from tidegate.lab.runtime.spec import Runtime
from tidegate.lab.scheduler import run_scheduler

_RBAC = "rbac.authorization.k8s.io"
_ROLES = Resource(_RBAC, "v1", "roles", "Role"), Resource(_RBAC, "v1", "rolebindings", "RoleBinding")
_ADDON_KINDS = {
    resource.kind: resource
    for resource in (
        NAMESPACES, SERVICEACCOUNTS, CONFIGMAPS, SECRETS, SERVICES, ENDPOINTSLICES, LEASES,
        PODDISRUPTIONBUDGETS, DEPLOYMENTS, PODS, INGRESSCLASSES, INGRESSES, *_ROLES,
    )
}  # fmt: skip


def _no_log(line: str) -> None:
    del line


@dataclass(frozen=True, slots=True)
class Ground:
    """What a runtime provides to a lab."""

    runtime: Runtime
    book: LogBook
    journal: Journal
    kernel_folder: Path
    """Where the kernel process has its sockets, and agents theirs."""
    state_folder: Path
    kubelet_pid: int = field(default_factory=os.getpid)
    logs_folder: str = ""
    """Container logs; "" keeps them in memory."""
    log: Callable[[str], None] = _no_log
    """The lab's own log, line by line."""
    network: Network | None = None
    """None: loopback addresses, with the kernel process of ``kernel_folder``."""


class Lab:
    """A lab's control plane, kubelets and proxies. ``await run()`` until cancelled; ``ready`` is set when it is up."""

    def __init__(self, config: LabConfig, ground: Ground) -> None:
        self.config = config
        self.ground = ground
        self.ready = asyncio.Event()
        self.faults = Faults(config.node_names)
        backends = Backends(logs=ground.book.logs, execute=Executor(ground.runtime, ground.book))
        self.kernel = KernelClient(control_path(ground.kernel_folder))
        self.network: Network = ground.network or Loopback(self.kernel, ground.kernel_folder)
        backends.forward = self.network.dial_pod
        self.server = ApiServer(self._rng("apiserver"), config.addressing, backends)
        self.api: Api = LocalApi(self.server)
        troubled = api_errors.with_errors(
            self.server.exchange, self.faults, self.server.registry, self._rng("api-errors")
        )
        self.exchange: Exchange = control.with_control(troubled, self.faults, self.status, self.server.access)

    def _rng(self, part: str) -> random.Random:
        return random.Random(f"{self.config.seed}/{part}")

    def register_token(self, name: str, rules: Sequence[str], namespace: str = "") -> str:
        """Let the holder of a token, which is returned, do what ``rules`` say and nothing else.

        A rule is "get,list:pods,pods/log,deployments.apps"; ``namespace`` confines all of them. Raises ``RuleError``.
        """
        return self.server.access.register(name, rules, namespace)

    def exchange_as(self, token: str) -> Exchange:
        """The API as the holder of ``token`` has it."""

        async def asked(request: Request) -> Response:
            headers = {**request.headers, "authorization": f"Bearer {token}"}
            return await self.exchange(replace(request, headers=headers))

        return asked

    def status(self) -> dict[str, Any]:
        """What `lab status` shows beside what the API has."""
        addressing = self.config.addressing
        return {
            "name": self.config.name,
            "server": addressing.host_server,
            "network": addressing.network,
            "proxy": self.config.proxy,
            "seed": self.config.seed,
            "ready": self.ready.is_set(),
            "addons": [addon.name for addon in self.config.addons],
            "nodes": [
                {"name": name, "address": addressing.node(index), "namespace": self.network.path(name)}
                for index, name in enumerate(self.config.node_names, start=1)
            ],
            "clients": [
                {"name": one.name, "addresses": list(one.addresses), "namespace": one.path}
                for one in self.network.clients()
            ],
            "faults": [as_json(fault) for fault in self.faults.active()],
        }

    async def run(self) -> None:
        """Everything of the lab but the kernel process, which must be there already."""
        await self._register_nodes()
        async with vtime.Nursery() as nursery:
            nursery.start(run_controllers(self.api, self.config), name="controllers")
            scheduler = LocalApi(self.server, Subject("system:kube-scheduler", EVERYONE))
            nursery.start(run_scheduler(scheduler), name="scheduler")
            kubelets = [self._kubelet(index, nursery) for index in range(1, self.config.nodes + 1)]
            for kubelet in kubelets:
                nursery.start(kubelet.run(), name=f"kubelet {kubelet.name}")
            recorder = Recorder(self.api, Source("tidegate-lab"))
            nursery.start(recorder.run(), name="events of the nodes' kernels")
            unbound = Unbound(recorder, self.ground.log)
            for name in self.config.node_names:
                nursery.start(self._proxy(name, unbound).run(), name=f"proxy {name}")
            for kubelet in kubelets:
                await kubelet.registered.wait()
            await self._install()
            await self._serve_dns(nursery)
            self.ready.set()

    async def _register_nodes(self) -> None:
        addressing = self.config.addressing
        for index, name in enumerate(self.config.node_names, start=1):
            await self.network.register(name, addressing.node(index), f"{addressing.pod_prefix(index)}.")

    def _kubelet(self, index: int, nursery: vtime.Nursery) -> Kubelet:
        name = self.config.node_names[index - 1]
        recorder = Recorder(self.api, Source("kubelet", name))
        nursery.start(recorder.run(), name=f"events of {name}")

        ground, network = self.ground, self.network.on(name)
        seams = Seams(
            LocalApi(self.server, Subject(f"system:node:{name}", ("system:nodes", *EVERYONE))),
            ground.runtime,
            ground.journal,
            recorder,
            network.dial_hook,
            ground.book,
            ground.logs_folder,
            network,
            Credentials(self.api, ground.state_folder / "pods", *self._secured()),
        )
        return Kubelet(index, self.config, seams)

    def _secured(self) -> tuple[str, str]:
        """Where pods find the API by their own credentials, and who signed its certificate."""
        config = self.config
        return (config.addressing.tls_server if config.authority else config.addressing.server), config.authority

    def _proxy(self, name: str, unbound: Unbound) -> Proxy:
        rng = self._rng(f"proxy/{name}")
        ground = self.ground
        network = self.network.on(name)
        return Proxy(self.api, name, self.config, network, rng, self.faults, ground.log, unbound, ground.journal)

    async def _serve_dns(self, nursery: vtime.Nursery) -> None:
        if not self.config.dns:
            return
        from tidegate.lab.dns.server import DnsServer, manifests  # late: its wire format is an extra

        for manifest in manifests(self.config):
            await self._create(manifest)
        for index, node in enumerate(self.config.node_names[: self.config.dns], start=1):
            address = self.config.addressing.dns(index)
            server = DnsServer(self.api, node, address, self.faults, self.config.dns_cache_seconds)
            nursery.start(server.run(), name=f"dns {node}")

    async def _install(self) -> None:
        """Create what the add-ons bring; what is there already stays."""
        facts = LabFacts(
            self.config,
            self.network.kernel_socket,
            str(self.ground.kernel_folder),
            self.ground.kubelet_pid,
            str(self.ground.state_folder),
        )
        for addon in self.config.addons:
            for manifest in addon.manifests(facts):
                await self._create(manifest)

    async def _create(self, manifest: JsonObject) -> None:
        try:
            await self.api.create(_ADDON_KINDS[manifest["kind"]], manifest)
        except ApiError as error:
            if not error.is_conflict:
                raise
