"""One port of one Service as a kube-proxy sees it when it writes rules, whatever their shape."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from dataclasses import dataclass
from typing import Self

from tidegate.lab.kernel.tables import Routing, ServiceEntry, TableError

MARK_BIT = 14
"""masqueradeBit: packets marked with it leave with the node's address."""


@dataclass(frozen=True)
class Port:
    """After ``servicePortInfo`` of pkg/proxy/{nftables,iptables}/proxier.go."""

    entry: ServiceEntry
    routing: Routing

    @classmethod
    def of(cls, entry: ServiceEntry) -> Self:
        """Raises ``TableError`` for an entry that says too little for a real kernel."""
        if not isinstance(entry.routing, Routing) or not entry.cluster_ip:
            raise TableError(f"{entry.key}: an entry for a relay; a real kernel needs those of proxy.rules.routed")
        return cls(entry, entry.routing)

    @property
    def protocol(self) -> str:
        return self.entry.protocol.lower()

    @property
    def label(self) -> str:
        """ "namespace/name:port", as kube-proxy prints a ServicePortName."""
        name = f"{self.entry.namespace}/{self.entry.name}"
        return f"{name}:{self.entry.port_name}" if self.entry.port_name else name

    @property
    def is_external(self) -> bool:
        return bool(self.entry.node_port or self.routing.external_ips or self.routing.load_balancer_ips)

    @property
    def has_internal(self) -> bool:
        """Whether a client of the ClusterIP is sent anywhere."""
        return self.routing.is_reachable and bool(not self.routing.is_internal_local or self.routing.local)

    @property
    def has_external(self) -> bool:
        """Whether a client from outside is."""
        return self.routing.is_reachable and bool(not self.routing.is_external_local or self.routing.local)

    @property
    def reachable(self) -> tuple[str, ...]:
        """Every endpoint that some client of this node may be sent to."""
        return tuple(dict.fromkeys(self.routing.cluster + self.routing.local))

    def allowed(self, node: str) -> tuple[str, ...]:
        """Who may dial the load balancer's address: the source ranges, and with the node what comes back from it."""
        own = ipaddress.ip_address(node)
        ranges = self.routing.source_ranges
        is_own = any(own in ipaddress.ip_network(one, strict=False) for one in ranges)
        return ranges + self.routing.load_balancer_ips if is_own else ranges


def digest(text: str) -> str:
    """The hash that kube-proxy names chains by: base32 of sha256."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()
