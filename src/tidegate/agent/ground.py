"""What an agent stands on: its node's kernel, its pods' sockets, the gate's redirect; a lab's, or those of Linux."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tidegate import vtime
from tidegate.agent.moving import Flows
from tidegate.dataplane.sockets import Quiet
from tidegate.kube.api import NODES, SERVICES, Api, Selection
from tidegate.kube.errors import KubeError
from tidegate.kube.reflector import Reflector
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import FENCE_INSTALL, SYSTEM_NAMESPACE
from tidegate.observers import sockets
from tidegate.observers.kernel import LabKernel, LabTables, Tables
from tidegate.observers.linux import KubeletProcess, LinuxKernel, NamespacedSockets

RETRY_SECONDS = 2.0


class PodSockets(Protocol):
    """Reads the sockets of this node's pods."""

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        """Whether anything is in flight at the endpoints of one pod. Never raises."""
        ...


class Redirects(Protocol):
    """Keeps the gate's redirect (``LabKernel``, ``LinuxKernel``)."""

    async def redirect(self, port: int, target: str) -> None:
        """Raises ``KernelUnreachable``."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OwnSockets:
    """The sockets of pods that share our network namespace, as a lab's do; the kubelet's own do not count."""

    kubelet_pid: int

    async def read(self, endpoints: tuple[Endpoint, ...]) -> Quiet:
        # A tenth of a second where the machine has thousands of sockets, and the gates need their heartbeats meanwhile.
        return await vtime.to_thread(sockets.read_quiet, endpoints, self.kubelet_pid)


@dataclass(frozen=True, slots=True)
class Ground:
    """``follow`` keeps what the kernel cannot tell current, for ever. ``flows`` None: the kernel tracks no UDP."""

    tables: Tables
    redirects: Redirects
    sockets: PodSockets
    follow: Callable[[], Coroutine[None, None, None]] | None = None
    flows: Flows | None = None


def in_lab(node: str, kernel_socket: str, kubelet_pid: int) -> Ground:
    """A node of a lab."""
    kernel = LabKernel(kernel_socket, node)
    return Ground(LabTables(kernel, node), kernel, OwnSockets(kubelet_pid))


@dataclass
class LinuxGround:
    """A real node: its network namespace is ours, its process ids are ours to see."""

    api: Api
    node: str
    address: str
    kubelet_pid: int = 0
    pod_networks: tuple[str, ...] = ()
    kernel: LinuxKernel = field(init=False)
    _services: Reflector = field(init=False)
    _are_known: bool = False

    def __post_init__(self) -> None:
        self._services = Reflector(self.api, SERVICES, Selection(SYSTEM_NAMESPACE, FENCE_INSTALL))
        self.kernel = LinuxKernel(self.node, self.address, self.fences, self.pod_networks)

    @property
    def ground(self) -> Ground:
        sockets_of_pods = NamespacedSockets(KubeletProcess(self.kubelet_pid))
        return Ground(self.kernel, self.kernel, sockets_of_pods, self.follow, self.kernel)

    def fences(self) -> Mapping[str, str] | None:
        """ClusterIP -> install of each fence: iptables' rules of a large cluster name no Service, and a family that
        shows no fence has to be told from one that has none."""
        if not self._are_known:
            return None
        return {
            address: str(obj["metadata"]["labels"][FENCE_INSTALL])
            for _, obj in sorted(self._services.objects.items())
            for address in obj["spec"].get("clusterIPs") or ()
            if address != "None"
        }

    async def follow(self) -> None:
        await asyncio.gather(self._services.run(), self._know_services(), self._know_networks())

    async def _know_services(self) -> None:
        await self._services.synced()
        self._are_known = True

    async def _know_networks(self) -> None:
        """Where nobody has said which networks the node's pods have, its Node object does (spec.podCIDRs)."""
        while not self.kernel.pod_networks:
            try:
                spec = (await self.api.get(NODES, self.node)).get("spec") or {}
                self.kernel.pod_networks = tuple(spec.get("podCIDRs") or ())
            except KubeError:
                pass
            await asyncio.sleep(RETRY_SECONDS)
