"""The gate judged by a real kubelet; played by ``test_gate_on_kubelet`` on a machine of its own (``apart``)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.realcluster.gate_scene import GATE, pod_template, scene, service
from tests.realcluster.judge import eventually, request
from tests.realcluster.kubelet_node import POD_NETWORK

from tidegate.kube.api import EVENTS, PODS, SERVICES, Deletion
from tidegate.kube.errors import ApiError
from tidegate.model.names import GATE_PORT

REDIRECT = f"""
table ip stand-in {{
  chain out {{
    type nat hook output priority -110;
    ip daddr {POD_NETWORK} tcp dport {GATE_PORT} redirect to :{GATE_PORT}
  }}
}}
"""


@dataclass
class Call:
    """One call of the gate, as a holder sees it."""

    pod_ip: str
    port: int
    head: str
    at: float
    is_closed: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class StandIn:
    """The bare mechanism: whoever calls is held until released. Shares nothing with the holder."""

    calls: list[Call] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_IP, 80, 16)
        port, ip = struct.unpack_from("!H4s", raw, 2)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        call = Call(socket.inet_ntoa(ip), port, head, asyncio.get_running_loop().time())
        self.calls.append(call)
        closed = asyncio.create_task(reader.read())
        released = asyncio.create_task(call.released.wait())
        await asyncio.wait((closed, released), return_when=asyncio.FIRST_COMPLETED)
        if closed.done():
            call.is_closed.set()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        closed.cancel()
        released.cancel()
        writer.close()

    async def call(self, number: int) -> Call:
        async def found() -> bool:
            return len(self.calls) >= number

        await eventually(found, f"call {number} of the gate")
        return self.calls[number - 1]


@contextlib.asynccontextmanager
async def stand_in() -> AsyncIterator[StandIn]:
    held = StandIn()
    subprocess.run(["nft", "-f", "-"], input=REDIRECT, text=True, check=True)
    server = await asyncio.start_server(held.serve, "127.0.0.1", GATE_PORT)
    try:
        yield held
    finally:
        server.close()
        for one in held.calls:
            one.released.set()
        subprocess.run(["nft", "delete", "table", "ip", "stand-in"], check=True)


async def test_a_pod_of_the_node_is_served_through_a_cluster_ip_until_it_is_deleted(node):
    async with scene(node, "plain-pod") as here:
        pod = await here.pod("web", None)
        made = await here.create(SERVICES, "web", service("web"))

        async def served() -> bool:
            return await request(made["spec"]["clusterIP"]) == "ok"

        await eventually(served, "the Service is served")
        life = await here.delete(pod)
        await here.gone(life)
        assert 0 < life.held_seconds < 2


async def test_the_kubelets_call_carries_the_pods_address_and_holds_its_sigterm(node):
    async with scene(node, "mechanism") as here, stand_in() as gate:
        pod = await here.pod("web", GATE)
        life = await here.delete(pod)
        call = await gate.call(1)
        assert (call.pod_ip, call.port) == (pod["status"]["podIP"], GATE_PORT)
        assert call.head.startswith("GET /gate/app HTTP/1.1\r\n") and "kube-lifecycle/1.36" in call.head
        await asyncio.sleep(1.0)  # realtime: nothing is to happen
        assert not life.stopped_at and await request(call.pod_ip, 8080) == "ok"
        at = asyncio.get_running_loop().time()
        call.released.set()
        await here.stopped(life)
        assert 0 < life.stopped_at - at < 1
        assert len(gate.calls) == 1


async def test_without_the_redirect_the_gate_is_open_at_once_and_an_event_says_so(node):
    async with scene(node, "no-redirect") as here:
        pod = await here.pod("web", GATE)
        life = await here.delete(pod)
        await here.stopped(life)
        assert 0 < life.held_seconds < 2

        async def told() -> bool:
            events = (await here.api.list(EVENTS)).items
            return any(
                one["reason"] == "FailedPreStopHook" and one["involvedObject"]["uid"] == life.uid for one in events
            )

        await eventually(told, "a FailedPreStopHook")


async def test_a_pod_is_refused_at_the_gates_port_of_another_pod_and_of_the_node(node):
    async with scene(node, "refused") as here, stand_in() as gate:
        pod, other = await here.pod("web", GATE), await here.pod("other", None)
        [inside, *_] = node.inside(other["metadata"]["uid"])
        for address in (pod["status"]["podIP"], "10.244.9.1", "192.0.2.1"):
            dial = f"import socket; socket.create_connection(('{address}', {GATE_PORT}), 2)"
            command = ["nsenter", f"--net=/proc/{inside}/ns/net", sys.executable, "-c", dial]
            ran = subprocess.run(command, capture_output=True, text=True)
            assert ran.returncode and "refused" in ran.stderr, (address, ran.stderr)
        assert not gate.calls


@pytest.mark.parametrize("level", ["baseline", "restricted"])
async def test_pod_security_takes_a_gate_with_no_host_and_no_other(node, level):
    async with scene(node, f"security-{level}", **{"pod-security.kubernetes.io/enforce": level}) as here:
        await here.create(PODS, "gated", pod_template("gated", GATE))
        with pytest.raises(ApiError, match="probe or lifecycle host"):
            host = {"httpGet": {**GATE["httpGet"], "host": "127.0.0.1"}}
            await here.create(PODS, "by-host", pod_template("by-host", host))
        await here.api.delete(PODS, "gated", here.namespace, Deletion(0))
