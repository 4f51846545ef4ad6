"""What a lab is asked to be: settings of one lab, and the add-ons composed into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Image:
    """A built-in image: every reference ``repository:TAG`` runs ``entrypoint`` ("module:function", an Entrypoint)."""

    repository: str
    entrypoint: str
    commands: tuple[tuple[str, ...], ...] = ()
    """What a container may name as its ``command`` and mean the entry point: manifests of real images do."""


LOOPBACK, KERNEL = "loopback", "kernel"
"""What a lab's data path is: this machine's loopback addresses, or network namespaces with netfilter in each."""


@dataclass(frozen=True, slots=True)
class Addressing:
    """The lab's addresses. ``block`` b owns 127.b, 127.(b+1) and 127.(b+2): two labs never meet.

    In network ``kernel`` they are 10.b, 10.(b+1), 10.(b+2), in namespaces of the lab's own; of this machine's
    addresses it has the API server's 127.b.0.1 alone.
    """

    block: int = 16
    api_port: int = 6443
    network: str = LOOPBACK

    @property
    def _octet(self) -> int:
        return 10 if self.network == KERNEL else 127

    @property
    def host(self) -> str:
        """Where the machine that the lab runs on finds the API server."""
        return f"127.{self.block}.0.1"

    @property
    def api_host(self) -> str:
        """Where nodes and pods find it."""
        return f"{self._octet}.{self.block}.0.1"

    @property
    def host_server(self) -> str:
        """URL of the API server, as a kubeconfig has it."""
        return f"http://{self.host}:{self.api_port}"

    @property
    def server(self) -> str:
        """URL of the API server, as nodes and pods have it."""
        return f"http://{self.api_host}:{self.api_port}"

    @property
    def tls_port(self) -> int:
        """Where the API server of a lab with TLS speaks it, on the same addresses; the other stays what the lab's own
        parts use."""
        return self.api_port + 1

    @property
    def tls_server(self) -> str:
        """URL of the API server, as pods of a lab with TLS have it."""
        return f"https://{self.api_host}:{self.tls_port}"

    @property
    def node_network(self) -> str:
        return f"{self._octet}.{self.block}.0.0/24"

    def node(self, index: int) -> str:
        """Address of node ``index`` (1, 2, ...)."""
        return f"{self._octet}.{self.block}.0.{10 + index}"

    def dns(self, index: int) -> str:
        """Address of the DNS server on node ``index``."""
        return f"{self._octet}.{self.block}.1.{index}"

    def pod_prefix(self, index: int) -> str:
        """First three octets of the pods on node ``index``."""
        return f"{self._octet}.{self.block + 1}.{index}"

    def pod_network(self, index: int) -> str:
        """Of the pods on node ``index``."""
        return f"{self.pod_prefix(index)}.0/24"

    @property
    def service_prefix(self) -> str:
        """First two octets of ClusterIPs."""
        return f"{self._octet}.{self.block + 2}"

    @property
    def service_prefix6(self) -> str:
        """What IPv6 ClusterIPs begin with (a /112). Nothing listens there: a lab's data path is IPv4."""
        return f"fd74:6964:6567:{self.block + 2:x}:"

    def pod6(self, address: str) -> str:
        """The IPv6 address that a dual-stack lab lists beside a pod's own; nothing listens there."""
        node, host = address.split(".")[2:]
        return f"fd74:6964:6567:{self.block + 1:x}::{int(node):x}:{int(host):x}"


@dataclass(frozen=True, slots=True)
class LabFacts:
    """What an add-on may need to know of the lab it is put into, once that lab is up."""

    config: LabConfig
    kernel_socket: str
    """The nodes' kernels' control socket; "" where each node has a real kernel's network to itself."""
    sockets_folder: str
    """A folder for UNIX sockets: its path is short."""
    kubelet_pid: int
    """The process whose connections to pods are probes."""
    state_folder: str
    """A folder the add-on's processes may write to."""


@dataclass(frozen=True, slots=True)
class Addon:
    """Images and manifests composed into a lab from outside (agents, fence): the lab itself knows none of them."""

    name: str
    images: tuple[Image, ...] = ()
    manifests: Callable[[LabFacts], list[dict[str, Any]]] = lambda facts: []


@dataclass(frozen=True, slots=True)
class LabConfig:
    """Settings of one lab."""

    name: str = "default"
    nodes: int = 3
    seed: int = 0
    addressing: Addressing = field(default_factory=Addressing)
    min_sync_seconds: float = 1.0
    """kube-proxy's minSyncPeriod (default 1 s), counted from the COMPLETION of the last sync."""
    addons: tuple[Addon, ...] = ()
    zones: int = 0
    """Zones the nodes are dealt out to in turn ("zone-1", "zone-2", ...); 0 labels no node with one."""

    addon_options: tuple[tuple[str, str], ...] = ()
    """What add-ons are told, as (name, value); nothing here means anything to the lab."""

    proxy: str = "nft-1.36"
    """Which kind of proxy the nodes run (``proxy.shapes``)."""

    dns: int = 0
    """How many DNS servers there are, on the first nodes; only in a lab on loopback addresses."""
    dns_cache_seconds: int = 30
    """How long they keep an answer at most; kubeadm sets 30. 0: no cache."""

    authority: str = ""
    """PEM of who signed the API server's certificate; "" in a lab without TLS."""

    dual_stack: bool = False
    """Pods list an IPv6 address too, which nothing listens on. Services may have both families in any lab."""

    def zone(self, index: int) -> str:
        """The zone of node ``index`` (1, 2, ...), "" in a lab without zones."""
        return f"zone-{(index - 1) % self.zones + 1}" if self.zones else ""

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"node-{index}" for index in range(1, self.nodes + 1))
