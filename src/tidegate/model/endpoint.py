"""An endpoint: the address, port and protocol under which a pod serves a Service."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

CANONICAL_KEPT = 16_384
"""Addresses remembered: parsing them was three quarters of decoding a slice (bench/watch_decode.py)."""


@lru_cache(CANONICAL_KEPT)
def canonical(address: str) -> str:
    """An IP address in its one canonical spelling; IPv4-mapped IPv6 becomes IPv4. Raises ``ValueError``."""
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """``address:port``. Port 0 stands for every port of the address (a pod-network pod owns its whole address)."""

    address: str
    port: int = 0
    protocol: str = "TCP"

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port or '*'}"

    @classmethod
    def parse(cls, text: str, protocol: str = "TCP") -> Endpoint:
        """From ``1.2.3.4:80`` or ``[::1]:80``. Raises ``ValueError``."""
        host, separator, port = text.rpartition(":")
        if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"not an address and port: {text!r}")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if (":" in bare) != (bare != host):
            raise ValueError(f"not an address and port: {text!r}")
        return cls(canonical(bare), int(port), protocol)

    def covers(self, other: Endpoint) -> bool:
        """Whether traffic to ``other`` is traffic to this endpoint (port 0 on either side means any port)."""
        if self.address != other.address:
            return False
        return not self.port or not other.port or (self.port, self.protocol) == (other.port, other.protocol)
