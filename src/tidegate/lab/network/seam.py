"""Between who makes the namespaces of a lab and who writes the rules into them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidegate.lab.kernel.tables import ServiceEntry

NFT_1_36 = "nft-1.36"
NFT_1_30 = "nft-1.30"
IPTABLES_1_36 = "iptables-1.36"
SHAPES = (NFT_1_36, NFT_1_30, IPTABLES_1_36)
"""As which kube-proxy the rules are laid out: its backend, and the version of Kubernetes."""

Run = Callable[[Sequence[str], bytes], Awaitable[bytes]]
"""Runs a command (no shell) inside the node's network namespace with that standard input; gives its standard output.

Raises ``kernel.client.KernelError`` with the command's complaint when it fails, ``OSError`` when it is not there.
"""


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where a node's rules are for."""

    name: str
    addresses: tuple[str, ...]
    """The node's own, IPv4, on which NodePorts answer."""
    pod_network: str
    """Of this node's pods ("10.17.1.0/24")."""
    service_network: str = ""
    """Of the lab's Services; 1.36 drops what goes to an address in it that no Service has. "": nobody knows it."""


class NodeRules(Protocol):
    """The rules of one node; keeps what it last wrote, so that a commit is a difference."""

    async def commit(self, entries: tuple[ServiceEntry, ...]) -> None:
        """Make the kernel forward ``entries`` and nothing else, in one transaction, then forget what UDP must forget.

        Raises what ``Run`` raises; then the next commit writes everything anew.
        """
        ...
