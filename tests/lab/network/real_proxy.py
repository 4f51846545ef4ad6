"""A real kube-proxy in a network namespace, and the part of an API server that it asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .packets_world import inside
from .rules_world import PLACE, Namespace

PORT = 18080
BINARY = Path(os.environ.get("KUBEBUILDER_ASSETS", "/nonexistent")) / "kube-proxy"
_CIDR = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "ServiceCIDR",
    "metadata": {"name": "kubernetes", "uid": "cidr"},
    "spec": {"cidrs": [PLACE.service_network]},
}
_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": PLACE.name, "uid": "node"},
    "status": {"addresses": [{"type": "InternalIP", "address": PLACE.addresses[0]}]},
}


class Answering:
    """Lists and watches of objects that ``show`` replaces; each moment is one resourceVersion higher."""

    def __init__(self) -> None:
        self._objects: dict[str, list[dict[str, Any]]] = {"servicecidrs": [_CIDR], "nodes": [_NODE]}
        self._version = 1
        self._watchers: list[tuple[str, asyncio.StreamWriter]] = []
        self._callers: list[asyncio.StreamWriter] = []

    def show(self, services: list[dict[str, Any]], slices: list[dict[str, Any]]) -> None:
        """The API's state is this from now on: tells every watcher what changed."""
        self._version += 1
        for plural, wanted in (("services", services), ("endpointslices", slices)):
            old = {one["metadata"]["name"]: one for one in self._objects.get(plural, [])}
            new = {one["metadata"]["name"]: self._stamped(one) for one in wanted}
            for name in {**old, **new}:
                kind = "DELETED" if name not in new else "MODIFIED" if name in old else "ADDED"
                self._tell(plural, kind, new.get(name) or self._stamped(old[name]))
            self._objects[plural] = list(new.values())

    def _stamped(self, obj: dict[str, Any]) -> dict[str, Any]:
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}

    def _tell(self, plural: str, kind: str, obj: dict[str, Any]) -> None:
        for watched, writer in self._watchers:
            if watched == plural:
                _write_event(writer, kind, obj)

    def close(self) -> None:
        """Hang up on everybody."""
        for writer in self._callers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                method, target, _ = head.split("\r\n", 1)[0].split(" ")
                lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                await reader.readexactly(int(lengths[0].partition(":")[2]) if lengths else 0)
                if self._answer(method, urlsplit(target), writer):
                    await reader.read()
        writer.close()

    def _answer(self, method: str, target: Any, writer: asyncio.StreamWriter) -> bool:
        """Whether the answer is a watch, which goes on."""
        parts, query = target.path.strip("/").split("/"), parse_qs(target.query)
        plural = next((part for part in parts if part in ("services", "endpointslices", "servicecidrs", "nodes")), "")
        if method != "GET" or not plural:
            _write_body(writer, 201 if method == "POST" else 404, {"kind": "Status", "apiVersion": "v1", "code": 404})
            return False
        objects = [self._stamped(one) for one in self._objects.get(plural, [])]
        if parts[-1] != plural:
            _write_body(writer, 200, objects[0])
        elif "watch" not in query:
            form = {"services": "Service", "endpointslices": "EndpointSlice", "servicecidrs": "ServiceCIDR"}
            group = {"endpointslices": "discovery.k8s.io/v1", "servicecidrs": "networking.k8s.io/v1"}.get(plural, "v1")
            metadata = {"resourceVersion": str(self._version)}
            kind = f"{form.get(plural, 'Node')}List"
            _write_body(writer, 200, {"apiVersion": group, "kind": kind, "metadata": metadata, "items": objects})
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._watchers.append((plural, writer))
            if "sendInitialEvents" in query:
                self._send_all(plural, objects, writer)
            return True
        return False

    def _send_all(self, plural: str, objects: list[dict[str, Any]], writer: asyncio.StreamWriter) -> None:
        """A list as a watch (KEP-3157): the bookmark says that it is complete."""
        for one in objects:
            _write_event(writer, "ADDED", one)
        kinds = {"services": ("v1", "Service"), "nodes": ("v1", "Node")}
        more = {
            "endpointslices": ("discovery.k8s.io/v1", "EndpointSlice"),
            "servicecidrs": ("networking.k8s.io/v1", "ServiceCIDR"),
        }
        group, kind = {**kinds, **more}[plural]
        metadata = {"resourceVersion": str(self._version), "annotations": {"k8s.io/initial-events-end": "true"}}
        _write_event(writer, "BOOKMARK", {"apiVersion": group, "kind": kind, "metadata": metadata})


def _write_event(writer: asyncio.StreamWriter, kind: str, obj: dict[str, Any]) -> None:
    line = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
    writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")


def _write_body(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    writer.write(head.encode() + raw)


@contextlib.asynccontextmanager
async def real_proxy(node: Namespace, mode: str, folder: Path) -> AsyncIterator[Answering]:
    """kube-proxy of ``KUBEBUILDER_ASSETS`` in ``node``, in ``mode`` (nftables, iptables), syncing every 20 ms."""
    node.call(
        [
            "sh",
            "-c",
            f"ip link set lo up; ip link add d0 type veth peer name d1; ip addr add {PLACE.addresses[0]}/24 dev d0",
        ]
    )
    node.call(["sh", "-c", "ip link set d0 up; ip link set d1 up; ip route add default dev d0"])
    api = Answering()
    with inside(node):
        listening = socket.create_server(("127.0.0.1", PORT))
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{PORT}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": PLACE.name,
        "clusterCIDR": PLACE.pod_network,
        "clientConnection": {"kubeconfig": str(folder / "kubeconfig"), "contentType": "application/json"},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "20ms"},
        "iptables": {"minSyncPeriod": "20ms"},
    }
    (folder / "config").write_text(json.dumps(configuration))
    server = await asyncio.start_server(api.serve, sock=listening)
    log = (folder / "kube-proxy.log").open("wb")
    command = ["ip", "netns", "exec", node.name, str(BINARY), f"--config={folder / 'config'}"]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield api
    finally:
        process.kill()
        process.wait()
        server.close()
        api.close()
        await asyncio.sleep(0.05)  # for those who were being answered to notice
        log.close()
