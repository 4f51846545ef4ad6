"""One DNS server of a lab, and the Service ``kube-system/kube-dns`` that lists them.

A component of the lab like a node's proxy, with faults of its own: frozen it neither sees nor answers, lagging it
answers what it knew, killed it loses its cache and lists anew. It listens on an address of its own of the lab's block,
at a port that needs no root.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tidegate import vtime
from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Api
from tidegate.kube.reflector import Key, Reflector, key_of
from tidegate.lab.config import LabConfig
from tidegate.lab.dns.answering import Answering
from tidegate.lab.dns.records import Records
from tidegate.lab.faults import Faults, dns_of

NAMESPACE, SERVICE, PORT = "kube-system", "kube-dns", 1053


def manifests(config: LabConfig) -> list[dict[str, Any]]:
    """The Service, and the slice that lists every server under its pod's name."""
    meta = {"name": SERVICE, "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns"}}
    ports = [{"name": "dns", "protocol": "UDP"}, {"name": "dns-tcp", "protocol": "TCP"}]
    labels = {"kubernetes.io/service-name": SERVICE, "endpointslice.kubernetes.io/managed-by": "tidegate-lab"}
    endpoints = [
        {
            "addresses": [config.addressing.dns(index)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": node,
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": f"coredns-{node}", "uid": f"coredns-{node}"},
        }
        for index, node in enumerate(config.node_names[: config.dns], start=1)
    ]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {"ports": [{**port, "port": 53, "targetPort": PORT} for port in ports]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": f"{SERVICE}-lab", "namespace": NAMESPACE, "labels": labels},
            "endpoints": endpoints, "ports": [{**port, "port": PORT} for port in ports],
        },
    ]  # fmt: skip


class DnsServer:
    """The server on one node. ``await run()`` for ever."""

    def __init__(self, api: Api, node: str, address: str, faults: Faults, cache_seconds: int) -> None:
        self._api = api
        self._name = dns_of(node)
        self._address = address
        self._faults = faults
        self._cache_seconds = cache_seconds

    async def run(self) -> None:
        while True:
            await self._faults.revived(self._name)
            incarnation = self._faults.of(self._name).incarnation
            async with vtime.Nursery() as nursery:
                nursery.start(_Incarnation(self).run(), name=self._name)
                await self._faults.killed(self._name, incarnation)
                nursery.cancel()


class _Incarnation:
    """One process of a server: its copy, its cache, its sockets."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._records = Records()
        self._answering = Answering(self._records, server._cache_seconds)
        self._queue: asyncio.Queue[tuple[float, Reflector, Key, dict[str, Any] | None]] = asyncio.Queue()

    async def run(self) -> None:
        server, loop = self._server, asyncio.get_running_loop()
        watches = [Reflector(server._api, SERVICES), Reflector(server._api, ENDPOINTSLICES)]
        async with vtime.Nursery() as nursery:
            for watch in watches:
                watch.subscribe(lambda old, new, watch=watch: self._saw(watch, old, new))  # type: ignore[misc]
                nursery.start(watch.run(), name=f"{server._name} watch")
            for watch in watches:
                await watch.synced()
            while not self._queue.empty():  # what was listed: it answers nothing before it has all of that
                self._put(*self._queue.get_nowait()[1:])
            nursery.start(self._copy(), name=f"{server._name} copy")
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(server._address, PORT)
            )
            listener = await asyncio.start_server(self._serve, server._address, PORT)
            try:
                await loop.create_future()
            finally:
                transport.close()
                listener.close()

    def _saw(self, watch: Reflector, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        either = new or old
        assert either is not None
        self._queue.put_nowait((asyncio.get_running_loop().time(), watch, key_of(either), new))

    async def _copy(self) -> None:
        """In order, each as late as the stream is."""
        server, loop = self._server, asyncio.get_running_loop()
        while True:
            arrived, watch, key, new = await self._queue.get()
            await server._faults.thawed(server._name)
            while loop.time() < (due := arrived + server._faults.of(server._name).lag_seconds):
                await server._faults.changed(server._name, due)
                await server._faults.thawed(server._name)
            self._put(watch, key, new)

    def _put(self, watch: Reflector, key: Key, new: dict[str, Any] | None) -> None:
        put = self._records.put_service if watch.resource == SERVICES else self._records.put_slice
        put(key, new)

    async def answer(self, query: bytes, *, is_datagram: bool) -> bytes | None:
        await self._server._faults.thawed(self._server._name)
        return self._answering.answer(query, asyncio.get_running_loop().time(), is_datagram=is_datagram)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                answer = await self.answer(query, is_datagram=False)
                if answer is None:
                    return
                writer.write(len(answer).to_bytes(2) + answer)
        except (OSError, EOFError):
            return
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram in a task of its own: a frozen server has them wait in its socket."""

    def __init__(self, incarnation: _Incarnation) -> None:
        self._incarnation = incarnation
        self._tasks: dict[asyncio.Task[None], None] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        for task in list(self._tasks):
            task.cancel()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, addr))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _answer(self, data: bytes, addr: Any) -> None:
        answer = await self._incarnation.answer(data, is_datagram=True)
        if answer is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)
