"""``ipvsadm -Ln``, ``ipvsadm -Sn`` and ``/proc/net/ip_vs`` -> ``Facts``.

A real server of weight 0 gets no new connections: kube-proxy leaves it there until the old ones have ended. Of a
virtual server with persistence (ClientIP affinity) that holds only where ``net.ipv4.vs.expire_quiescent_template`` is
1 (kube-proxy sets it; no dump shows it), else known clients still go there.

ipvs is not atomic and carries no Service names: the fence is known by its ClusterIP, and is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

from tidegate.dataplane.facts import Facts, Route, Unreadable
from tidegate.dataplane.frontends import EVERYTHING, Asking, narrowed, read_fence
from tidegate.model.endpoint import Endpoint, canonical

VIA = "virtual-server"
_SERVER = re.compile(r"(TCP|UDP|SCTP)\s+(\S+)\s+(\w+)((?:\s+\S+)*)\s*")
_REAL = re.compile(r"\s+->\s+(\S+)\s+(Masq|Route|Tunnel|Local)\s+(\d+)\s+(\d+)\s+(\d+)\s*")
_SAVED = {"-t": "TCP", "-u": "UDP", "--sctp-service": "SCTP"}


@dataclass(slots=True)
class _Virtual:
    protocol: str
    address: Endpoint
    is_persistent: bool
    servers: list[tuple[Endpoint, int]] = field(default_factory=list)


def parse(dump: str, source: str = "", asking: Asking = EVERYTHING, expires_quiescent: bool = False) -> Facts:
    """Facts from one dump of ipvs. ``expires_quiescent``: the sysctl was read and is 1. Never raises."""
    try:
        virtuals = list(_virtuals(dump))
    except ValueError as error:
        return Facts(source, "ipvs", unreadable=(Unreadable(f"not a list of ipvsadm: {error}"),))
    unreadable = []
    routes = []
    for virtual in virtuals:
        live = tuple(server for server, weight in virtual.servers if weight > 0)
        routes.append(Route(VIA, virtual.address.address, virtual.address.port, virtual.protocol, live))
        if virtual.is_persistent and len(live) < len(virtual.servers) and not expires_quiescent:
            unreadable.append(
                Unreadable(
                    "has servers of weight 0 and persistence: known clients go on to them, unless the sysctl "
                    "net.ipv4.vs.expire_quiescent_template is 1",
                    f"virtual server {virtual.address}",
                )
            )
    fence, more = read_fence(routes, asking.fences)
    return Facts(source, "ipvs", 0.0, narrowed(routes, asking), fence, (), (*unreadable, *more))


def _virtuals(dump: str) -> Iterable[_Virtual]:
    lines = [line for line in dump.split("\n") if line.strip()]
    if lines and lines[0].startswith("IP Virtual Server version"):
        return _listed(lines)
    if lines and lines[0].startswith("-A "):
        return _saved(lines)
    raise ValueError("it begins with neither `IP Virtual Server version` nor `-A`")


def _listed(lines: list[str]) -> Iterable[_Virtual]:
    if len(lines) < 3 or not lines[1].startswith("Prot LocalAddress:Port") or not lines[2].strip().startswith("-> "):
        raise ValueError("its heading is not complete")
    found: list[_Virtual] = []
    for number, line in enumerate(lines[3:], start=4):
        if real := _REAL.fullmatch(line):
            if not found:
                raise ValueError(f"line {number}: a real server of no virtual server")
            found[-1].servers.append((_endpoint(real[1], found[-1].protocol), int(real[3])))
        elif virtual := _SERVER.fullmatch(line):
            is_persistent = "persistent" in virtual[4]
            found.append(_Virtual(virtual[1], _endpoint(virtual[2], virtual[1]), is_persistent))
        else:
            raise ValueError(f"line {number}: {line[:80]!r}")
    return found


def _saved(lines: list[str]) -> Iterable[_Virtual]:
    found: dict[tuple[str, str], _Virtual] = {}
    for number, line in enumerate(lines, start=1):
        verb, *words = line.split()
        if len(words) < 2 or words[0] not in _SAVED:
            raise ValueError(f"line {number}: {line[:80]!r}")
        key = words[0], words[1]
        protocol = _SAVED[words[0]]
        if verb == "-A" and key not in found:
            found[key] = _Virtual(protocol, _endpoint(words[1], protocol), "-p" in words[2:])
        elif verb == "-a" and key in found and "-r" in words and "-w" in words:
            server, weight = (words[words.index(option) + 1] for option in ("-r", "-w"))
            found[key].servers.append((_endpoint(server, protocol), int(weight)))
        else:
            raise ValueError(f"line {number}: {line[:80]!r}")
    return found.values()


def _endpoint(text: str, protocol: str) -> Endpoint:
    """``10.0.0.1:80``, ``[fd00::1]:80``, or as /proc has it ``0A000001:0050`` and ``[fd00:0000:...]:0050``."""
    host, _, port = text.rpartition(":")
    if re.fullmatch(r"[0-9A-F]{8}", host) and re.fullmatch(r"[0-9A-F]{4}", port):
        return Endpoint(canonical(str(ip_address(bytes.fromhex(host)))), int(port, 16), protocol)
    if re.fullmatch(r"\[(?:[0-9a-f]{4}:){7}[0-9a-f]{4}\]", host) and re.fullmatch(r"[0-9A-F]{4}", port):
        return Endpoint(canonical(host[1:-1]), int(port, 16), protocol)
    return Endpoint.parse(text, protocol)
