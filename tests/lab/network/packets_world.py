"""One node with two pods and a client outside, each a network namespace, joined by veth pairs; sockets in them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator

from tidegate.lab.kernel.tables import Routing, ServiceEntry
from tidegate.lab.network.seam import NodePlace

from .rules_world import Namespace, namespace

NODE, CLIENT, PODS = "10.77.0.2", "10.77.0.1", ("10.244.1.11", "10.244.1.12")
PLACE = NodePlace("n1", (NODE,), "10.244.1.0/24", "10.96.0.0/16")
VIP = "10.96.1.1"
PORT = 8080
ENDPOINTS = tuple(f"{pod}:{PORT}" for pod in PODS)
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def entry(*endpoints: str, port: int = 80, protocol: str = "TCP", **changes) -> ServiceEntry:
    """A Service of these endpoints under ``VIP``; ``changes`` are the entry's, or its routing's."""
    routing = {
        "cluster": endpoints,
        "here": endpoints,
        "serving": endpoints,
        "is_reachable": bool(endpoints),
        **{key: changes.pop(key) for key in list(changes) if key in Routing.__struct_fields__},
    }
    name = changes.pop("name", "web")
    address = changes.pop("cluster_ip", VIP)
    fields = {"node_port": 0, "endpoints": endpoints, **changes}
    return ServiceEntry("default", name, "http", protocol, address, port, routing=Routing(**routing), **fields)


@contextlib.contextmanager
def inside(place: Namespace) -> Iterator[None]:
    """Sockets made meanwhile belong to ``place``. No await inside: it is the thread that moves."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{place.name}", os.O_RDONLY)
    try:
        if _libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _libc.setns(own, _CLONE_NEWNET)
        os.close(own)
        os.close(there)


class World:
    """The namespaces, and what answers in the pods: each says its pod's address, then repeats every line."""

    def __init__(self, node: Namespace, client: Namespace, pods: tuple[Namespace, ...]) -> None:
        self.node, self.client, self.pods = node, client, pods
        self._serving: list[asyncio.Server | asyncio.DatagramTransport] = []

    async def __aenter__(self) -> World:
        loop = asyncio.get_running_loop()
        self.node.call(["sh", "-c", "nft flush ruleset; conntrack -F 2>/dev/null || true"])
        for pod, address in zip(self.pods, PODS, strict=True):
            with inside(pod):
                tcp = socket.create_server((address, PORT))
                udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((address, PORT))
            udp.setblocking(False)
            self._serving.append(await asyncio.start_server(_saying(address), sock=tcp))
            transport, _ = await loop.create_datagram_endpoint(lambda address=address: _Saying(address), sock=udp)
            self._serving.append(transport)
        return self

    async def __aexit__(self, *error: object) -> None:
        for one in self._serving:
            one.close()

    async def dial(self, place: Namespace, port: int = 80, host: str = VIP):
        """A TCP connection from ``place``, and who answered it."""
        with inside(place):
            sock = socket.socket()
        sock.setblocking(False)
        try:
            async with asyncio.timeout(0.3):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock)
        return reader, writer, (await reader.readline()).decode().strip()

    async def who(self, place: Namespace, port: int = 80, host: str = VIP) -> str:
        _, writer, name = await self.dial(place, port, host)
        writer.close()
        return name

    async def whos(self, place: Namespace, times: int = 24, **to) -> set[str]:
        return {await self.who(place, **to) for _ in range(times)}


@contextlib.asynccontextmanager
async def flow(place: Namespace, host: str = VIP, port: int = 53):
    """One UDP flow, of one source port: asks who is there."""
    with inside(place):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect((host, port))
    loop = asyncio.get_running_loop()

    async def ask() -> str:
        await loop.sock_sendall(sock, b"who")
        async with asyncio.timeout(0.3):
            return (await loop.sock_recv(sock, 100)).decode()

    try:
        yield ask
    finally:
        sock.close()


def _saying(name: str):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name}\n".encode())
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    return serve


class _Saying(asyncio.DatagramProtocol):
    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, source) -> None:
        self._transport.sendto(self._name.encode(), source)


def _batch(place: Namespace, *lines: str) -> None:
    subprocess.run(["ip", "-n", place.name, "-batch", "-"], input="\n".join(lines).encode(), check=True)


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Each pod has the node as its gateway and no network of its own, as with most CNI plugins that route."""
    with namespace() as node, namespace() as client, namespace() as first, namespace() as second:
        # Linux sends a peer few ICMP errors a second, redirects counted too: a rejected client would wait instead.
        settings = ("ip_forward=1", "icmp_ratelimit=0", "conf.all.send_redirects=0", "conf.all.rp_filter=0")
        node.call(["sysctl", "-qw", *(f"net.ipv4.{one}" for one in settings)])
        _batch(node, "link set lo up", f"link add out type veth peer name eth0 netns {client.name}")
        _batch(node, f"addr add {NODE}/24 dev out", "link set out up", f"route add default via {CLIENT} onlink dev out")
        _batch(client, f"addr add {CLIENT}/24 dev eth0", "link set eth0 up", f"route add default via {NODE}")
        for number, (pod, address) in enumerate(zip((first, second), PODS, strict=True)):
            _batch(node, f"link add p{number} type veth peer name eth0 netns {pod.name}", f"link set p{number} up")
            _batch(node, f"route add {address}/32 dev p{number}")
            _batch(pod, "link set lo up", f"addr add {address}/32 dev eth0", "link set eth0 up")
            _batch(pod, f"route add {NODE}/32 dev eth0", f"route add default via {NODE} dev eth0")
        yield World(node, client, (first, second))
