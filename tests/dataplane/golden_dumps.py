"""The golden dumps, and what they must say: computed from the API objects dumped beside them, never from rules."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "dataplane"
FRONTENDS = {
    "kubernetes": [("10.96.0.1", 443)],
    "web": [("10.96.1.1", 80)],
    "np": [("10.96.1.2", 80), ("node-port", 30080)],
    "dns": [("10.96.1.3", 53)],
    "lb": [("10.96.1.4", 80), ("192.0.2.10", 80), ("node-port", 30081)],
}
"""The addresses of the Services, as their manifests had them."""


def text(name: str) -> str:
    """A golden dump, by its name without its ending."""
    packed = GOLDEN / f"{name}.gz"
    return gzip.decompress(packed.read_bytes()).decode() if packed.exists() else (GOLDEN / f"{name}.txt").read_text()


def names(kind: str) -> list[str]:
    """The golden dumps of one kind (``nft-json``, ``nft``, ``iptables-save``, ...)."""
    found = (path.name.removesuffix(path.suffix) for path in GOLDEN.iterdir())
    return sorted(name for name in found if name.endswith(f"-{kind}"))


def truth(name: str, kind: str) -> dict[tuple[str, int, str], set[str]]:
    """(address or ``node-port``, port, protocol) -> endpoints, as the EndpointSlices of the same moment have it.

    Ready endpoints; where a Service has none, those that are serving and terminating (KEP-1669).
    """
    slices = json.loads((GOLDEN / f"{name.removesuffix(kind)}endpointslices.json").read_text())["items"]
    found: dict[tuple[str, int, str], set[str]] = {}
    for one in slices:
        for port in one["ports"] or []:
            ready, fallback = set(), set()
            for endpoint in one["endpoints"] or []:
                conditions = endpoint["conditions"]
                into = ready if conditions["ready"] else fallback
                if conditions["ready"] or (conditions["serving"] and conditions["terminating"]):
                    into.update(f"{address}:{port['port']}" for address in endpoint["addresses"])
            for address, number in FRONTENDS[one["metadata"]["labels"]["kubernetes.io/service-name"]]:
                if ready or fallback:
                    found[address, number, port["protocol"]] = ready or fallback
    return found


def shown(routes) -> dict[tuple[str, int, str], set[str]]:
    """Routes in the shape of ``truth``: a NodePort is one whatever address of the node a rule names."""
    return {
        ("node-port" if route.via == "node-port" else route.address, route.port, route.protocol): {
            str(endpoint) for endpoint in route.endpoints
        }
        for route in routes
    }
