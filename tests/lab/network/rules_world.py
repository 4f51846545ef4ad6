"""A node's rules in a network namespace of the test's own; the golden cases as Services and EndpointSlices."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tidegate.lab.kernel.client import KernelError
from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.lab.network.seam import NodePlace
from tidegate.lab.proxy import rules

GOLDEN = Path(__file__).parents[2] / "golden" / "dataplane"
PLACE = NodePlace("n1", ("10.77.0.2",), "10.244.0.0/16", "10.96.0.0/16")
"""The node of the golden dumps."""

_TOOLS = ("ip", "nft", "conntrack", "iptables-restore")
_numbers = itertools.count()


def needs_root():
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    reason = f"needs {', '.join(missing)}" if missing else "needs root: it makes network namespaces"
    return pytest.mark.skipif(bool(missing) or os.geteuid() != 0, reason=reason)


class Namespace:
    """A network namespace; ``runs`` are the commands that were run in it, with their inputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs: list[tuple[tuple[str, ...], bytes]] = []
        self.is_failing = False
        """The kernel refuses every transaction: nft's for its last command, iptables' that of the nat table."""

    async def run(self, command: Sequence[str], stdin: bytes) -> bytes:
        self.runs.append((tuple(command), stdin))
        if self.is_failing and command[0] == "nft" and stdin:
            stdin += b"delete chain ip kube-proxy no-such-chain\n"
        if self.is_failing:
            stdin = stdin.replace(b"*nat\n", b"*nat\n-X KUBE-NOBODY\n")
        return await asyncio.to_thread(self.call, command, stdin)

    def call(self, command: Sequence[str], stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command], input=stdin, capture_output=True, check=False
        )
        if done.returncode:
            raise KernelError(done.stderr.decode().strip() or f"{command[0]} exited with {done.returncode}")
        return done.stdout

    def table(self) -> list[dict[str, Any]]:
        """The kernel's table, as nft prints it."""
        return json.loads(self.call(["nft", "-j", "list", "table", "ip", "kube-proxy"]))["nftables"]

    @property
    def transactions(self) -> list[str]:
        return [stdin.decode() for command, stdin in self.runs if command[:2] == ("nft", "-f")]


@contextlib.contextmanager
def namespace():
    name = f"tgr-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Namespace(name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def golden(name: str) -> list[dict[str, Any]]:
    """A real dump of ``nft -j list ruleset``, the table ``ip kube-proxy`` of it."""
    objects = json.loads(gzip.decompress((GOLDEN / f"{name}-nft-json.gz").read_bytes()))["nftables"]
    return [one for one in objects if next(iter(one.values())).get("family") == "ip"]


def golden_slices(name: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}-endpointslices.json").read_text())["items"]
    return items


def _service(name: str, address: str, port: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "default", "name": name}
    return {"metadata": metadata, "spec": {"clusterIP": address, "ports": [port], **spec}}


_HTTP = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
_AFFINITY = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10_800}}}
_BALANCED = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
SERVICES = {
    "kubernetes": _service("kubernetes", "10.96.0.1", {"name": "https", "port": 443, "protocol": "TCP"}),
    "web": _service("web", "10.96.1.1", _HTTP),
    "np": _service("np", "10.96.1.2", {**_HTTP, "nodePort": 30080}, type="NodePort", **_AFFINITY),
    "dns": _service("dns", "10.96.1.3", {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 8080}),
    "lb": _service("lb", "10.96.1.4", {**_HTTP, "nodePort": 30081}, healthCheckNodePort=32000, **_BALANCED)
    | {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}},
}
"""As the manifests behind the golden dumps had them."""


def golden_entries(name: str) -> tuple[ServiceEntry, ...]:
    """What the proxy of node n1 makes of a golden case's objects."""
    slices = golden_slices(name)
    services = sorted({one["metadata"]["labels"]["kubernetes.io/service-name"] for one in slices})
    return rules.routed([SERVICES[service] for service in services], slices, rules.Place(PLACE.name))


_IGNORED = frozenset({"handle", "expires", "prio_name"})


def normal(objects: Sequence[dict[str, Any]], *, keeps_empty_chains: bool = True) -> dict[str, Any]:
    """A table in one form: without handles, counters and clients of affinity sets; rules by chain, in their order."""
    found: dict[str, Any] = {}
    for one in objects:
        kind, raw = next(iter(one.items()))
        if kind == "metainfo":
            continue
        value = _plain(raw)
        if kind == "rule":
            found[f"chain {value['chain']}"]["rules"].append({"expr": value["expr"], "comment": value.get("comment")})
            continue
        if "elem" in value:
            value["elem"] = sorted(map(json.dumps, value["elem"]))
        if value["name"].startswith("affinity-"):
            value.pop("elem", None)
        found[f"{kind} {value['name']}"] = {**value, "rules": []} if kind == "chain" else value
    is_kept = lambda key, value: keeps_empty_chains or not ("/" in key and value.get("rules") == [])  # noqa: E731
    return {key: value for key, value in sorted(found.items()) if is_kept(key, value)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key not in _IGNORED}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


ONLY_REAL = (
    "-m nfacct --nfacct-name  ct_state_invalid_dropped_pkts ",  # counters of dropped packets, made by netlink
    "-m nfacct --nfacct-name  localhost_nps_accepted_pkts ",  # and of NodePorts on 127.0.0.1, by a rule of their own
)
_MAP_ORDER = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL")
"""Chains whose order is that of a Go map; one rule says of itself that it must be the last."""


def saved_chains(saved: str) -> dict[str, list[str]]:
    """What iptables-save says, in one form: rules by table and chain."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            found[f"{table} {line[1:].split(' ')[0]}"] = []
        elif line.startswith("-A ") and ONLY_REAL[1] not in line:
            found[f"{table} {line.split(' ')[1]}"].append(line.replace(ONLY_REAL[0], ""))
    for name, lines in found.items():
        if name.endswith(_MAP_ORDER):
            lines.sort(key=lambda line: ("NOTE: this must be the last rule" in line, line))
    return found
