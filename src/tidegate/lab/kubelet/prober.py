"""One run of a probe: ask the container, answer passed or not, in the kubelet's words.

Source: Kubernetes v1.36.2 pkg/probe/{http,tcp,exec}. A probe opens a connection of its own from the node's
address; 200-399 passes; a redirect is not followed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, parse_target
from tidegate.lab.runtime.spec import ContainerSpec, Runtime, StartError

USER_AGENT = "kube-probe/1.36"


class ProbeError(Exception):
    """The probe could not be carried out: no result, the belief stays as it is."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container's probes go."""

    pod_ip: str
    node_address: str
    container: Mapping[str, Any]
    spec: ContainerSpec
    dial: wire.Dialler
    """From the node."""

    @property
    def is_host_network(self) -> bool:
        return self.pod_ip == self.node_address


def port_number(container: Mapping[str, Any], port: int | str) -> int:
    """A port by number or by its name in the container. Raises ``ProbeError``."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise ProbeError(f"couldn't find port: {port}")


async def probe(
    runtime: Runtime, target: Target, action: Mapping[str, Any], timeout_seconds: float
) -> tuple[bool, str]:
    """Run one probe: (passed, what it said). Raises ``ProbeError``."""
    if "exec" in action:
        return await _exec(runtime, target, tuple(action["exec"].get("command") or ()), timeout_seconds)
    if "httpGet" in action:
        return await _http(target, action["httpGet"], timeout_seconds)
    if "tcpSocket" in action:
        return await _tcp(target, action["tcpSocket"], timeout_seconds)
    raise ProbeError("missing probe handler: the lab knows exec, httpGet and tcpSocket")


async def _exec(runtime: Runtime, target: Target, command: tuple[str, ...], timeout_seconds: float) -> tuple[bool, str]:
    try:
        code, output = await runtime.run(target.spec, command, timeout_seconds)
    except TimeoutError:
        return False, f'command timed out: "{" ".join(command)}" timed out after {timeout_seconds:g}s'
    except StartError as error:
        raise ProbeError(str(error)) from error
    return code == 0, output.decode(errors="replace")


async def _http(target: Target, action: Mapping[str, Any], timeout_seconds: float) -> tuple[bool, str]:
    host = action.get("host") or target.pod_ip
    port = port_number(target.container, action["port"])
    path, query = parse_target(action.get("path") or "/")
    path = path if path.startswith("/") else f"/{path}"
    headers = {"user-agent": USER_AGENT, "accept": "*/*"}
    headers |= {header["name"].lower(): header["value"] for header in action.get("httpHeaders") or []}
    peer = wire.Peer(host, port, timeout_seconds=timeout_seconds)
    url = f"{action.get('scheme', 'HTTP').lower()}://{host}:{port}{path}"
    if url.startswith("https"):
        raise ProbeError("the lab probes HTTP only")
    try:
        status, _, _ = await wire.fetch(peer, Request("GET", path, query, headers), target.dial)
    except Unreachable as error:
        return False, f'Get "{url}": {_reason(error, host, port)}'
    if 200 <= status < 400:
        return True, ""
    return False, f"HTTP probe failed with statuscode: {status}"


def _reason(error: Unreachable, host: str, port: int) -> str:
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(cause, ConnectionRefusedError):
        return f"dial tcp {host}:{port}: connect: connection refused"
    if isinstance(cause, ConnectionResetError):
        return f"read tcp {host}:{port}: read: connection reset by peer"
    return "EOF"


async def _tcp(target: Target, action: Mapping[str, Any], timeout_seconds: float) -> tuple[bool, str]:
    host = action.get("host") or target.pod_ip
    port = port_number(target.container, action["port"])
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await target.dial(host, port)
    except TimeoutError:
        return False, f"dial tcp {host}:{port}: i/o timeout"
    except OSError:
        return False, f"dial tcp {host}:{port}: connect: connection refused"
    writer.close()
    return True, ""
