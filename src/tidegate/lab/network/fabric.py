"""The namespaces of network ``kernel``: one for the lab itself, one for each node, client and pod.

    fabric   the lab process: API server 10.b.0.1, bridge "fabric"
      |-- node-i    eth0 10.b.0.(10+i), bridge "cni0" 10.(b+1).i.1, netfilter rules
      |     `-- pod    eth0 10.(b+1).i.x/32
      `-- client    eth0 10.b.0.2 to .9

As a bridge CNI lays it out, with one difference: a pod's address is a /32, so that pods of one node reach each other
through their node too and no answer takes a way around its connection tracking (others need br_netfilter for that).
Who is gone is looked for in vain on the bridge: a client's SYNs are lost, and after 3 s its host is unreachable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tidegate.lab.config import Addressing
from tidegate.lab.network.namespaces import Namespace, leave_for_new
from tidegate.lab.network.netlink import Links

_FABRIC, _CNI, _PORT = "fabric", "cni0", "eth0"
_EVERYTHING = "0.0.0.0/0"
CLIENT = "client"
CLIENT_HOSTS = range(2, 10)
"""The client's addresses: several, for what goes by the client's address."""
_SYSCTLS = {
    "net/ipv6/conf/default/disable_ipv6": "1",  # a lab's data path is IPv4: no router solicitations, no DAD
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",  # a pod that is its own endpoint goes in and out by one link
    "net/ipv4/conf/default/send_redirects": "0",
    # Where br_netfilter is loaded, a bridge translates what passes it, and a pod that is its own endpoint would have
    # to be sent back out of the port it came from.
    "net/bridge/bridge-nf-call-iptables": "0",
}
_OF_NODES = {
    "net/ipv4/ip_forward": "1",
    # As kube-proxy sets them (pkg/proxy/apis/config/v1alpha1/defaults.go): half-closed connections stay to be seen.
    "net/netfilter/nf_conntrack_tcp_timeout_established": "86400",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait": "3600",
}


def _set(sysctls: dict[str, str]) -> None:
    """In the namespace the thread is in; what this kernel does not have is not needed."""
    for name, value in sysctls.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", name).write_text(value)


def _made(name: str) -> Namespace:
    namespace = Namespace.make(name)
    with namespace.inside(), Links() as links:
        _set(_SYSCTLS)
        links.up("lo")
    return namespace


@dataclass(slots=True)
class Pod:
    """One pod's network: its namespace, and the name of its end in the node's."""

    namespace: Namespace
    link: str


def _forget(made: asyncio.Future[Pod]) -> None:
    """Nobody waits for it any more: its links end with its namespace."""
    if not made.cancelled() and made.exception() is None:
        made.result().namespace.close()


class Node:
    """One node's namespaces: its own and its pods'."""

    def __init__(self, name: str, namespace: Namespace, gateway: str) -> None:
        self.name = name
        self.namespace = namespace
        self.gateway = gateway
        """Its address towards its pods: where probes come from, as with every bridge."""
        self._pods: dict[str, Pod] = {}
        self._links = 0

    async def add_pod(self, address: str) -> Namespace:
        """In a thread: links are made and unmade behind one lock of the whole machine's kernel. Raises ``OSError``."""
        self._links += 1
        making = asyncio.ensure_future(asyncio.to_thread(self._add_pod, address, f"veth{self._links}"))
        try:
            pod = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_forget)
            raise
        self._pods[address] = pod
        return pod.namespace

    def _add_pod(self, address: str, link: str) -> Pod:
        namespace = _made(address)
        try:
            with self.namespace.inside(), Links() as links:
                links.veth(link, _PORT, address, namespace.fileno())
                links.join(link, _CNI)
            with namespace.inside(), Links() as links:
                links.up(_PORT)
                links.address(_PORT, address, 32)
                links.route(f"{self.gateway}/32", _PORT)
                links.route(_EVERYTHING, _PORT, self.gateway)
        except BaseException:
            namespace.close()
            raise
        return Pod(namespace, link)

    async def remove_pod(self, address: str) -> None:
        """Its sockets end with it; who dials it from now on waits for nobody."""
        pod = self._pods.pop(address, None)
        if pod is not None:
            await asyncio.to_thread(self._remove, pod)
            pod.namespace.close()

    def _remove(self, pod: Pod) -> None:
        with contextlib.suppress(OSError), self.namespace.inside(), Links() as links:
            links.delete(pod.link)

    def pod(self, address: str) -> Namespace | None:
        pod = self._pods.get(address)
        return pod.namespace if pod is not None else None


class Fabric:
    """All of a lab's namespaces. The process that builds it stays in the innermost, with every thread it starts."""

    def __init__(self, addressing: Addressing) -> None:
        self.addressing = addressing
        self.nodes: dict[str, Node] = {}
        self.client: Namespace
        self.client_addresses = tuple(f"{_base(addressing.node_network)}.{host}" for host in CLIENT_HOSTS)

    @classmethod
    def build(cls, addressing: Addressing, names: tuple[str, ...]) -> Fabric:
        """Put the calling thread into a new namespace, with one for each node of ``names`` and the client around it.

        Raises ``OSError``; then the thread may be in an empty namespace, for its process to end in.
        """
        fabric = cls(addressing)
        leave_for_new()
        _set(_SYSCTLS)
        numbers = range(1, len(names) + 1)
        with Links() as links:
            links.up("lo")
            links.bridge(_FABRIC, addressing.api_host)
            links.address(_FABRIC, addressing.api_host, 24)
            for number in numbers:
                links.route(addressing.pod_network(number), _FABRIC, addressing.node(number))
            fabric.client = fabric._attach(links, CLIENT, fabric.client_addresses[0])
            for number, name in enumerate(names, start=1):
                namespace = fabric._attach(links, name, addressing.node(number))
                gateway = f"{addressing.pod_prefix(number)}.1"
                fabric.nodes[name] = Node(name, namespace, gateway)
        for number, node in enumerate(fabric.nodes.values(), start=1):
            fabric._furnish(node, number)
        with fabric.client.inside(), Links() as links:
            for address in fabric.client_addresses:
                links.address(_PORT, address, 24)
        return fabric

    def _attach(self, links: Links, name: str, address: str) -> Namespace:
        """A namespace with a link to the fabric's bridge, up but without an address."""
        namespace = _made(name)
        links.veth(name, _PORT, address, namespace.fileno())
        links.join(name, _FABRIC)
        with namespace.inside(), Links() as inner:
            inner.up(_PORT)
        return namespace

    def _furnish(self, node: Node, number: int) -> None:
        addressing = self.addressing
        with node.namespace.inside(), Links() as links:
            _set(_OF_NODES)
            links.address(_PORT, addressing.node(number), 24)
            links.bridge(_CNI, node.gateway)
            links.address(_CNI, node.gateway, 24)
            links.route(_EVERYTHING, _PORT, addressing.api_host)  # ClusterIPs are looked up before they are translated
            for other in range(1, len(self.nodes) + 1):
                if other != number:
                    links.route(addressing.pod_network(other), _PORT, addressing.node(other))

    def at(self, address: str) -> Namespace | None:
        """The namespace of a node or a pod."""
        for number, node in enumerate(self.nodes.values(), start=1):
            namespace = node.namespace if address == self.addressing.node(number) else node.pod(address)
            if namespace is not None:
                return namespace
        return None


def path(namespace: Namespace) -> str:
    """What opens a namespace that this process holds, for root, while this process lives."""
    return f"/proc/{os.getpid()}/fd/{namespace.fileno()}"


def _base(network: str) -> str:
    return network.rpartition(".")[0]
