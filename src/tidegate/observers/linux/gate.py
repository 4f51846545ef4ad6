"""The gate's redirect on a real node: what the node dials on the gate's port of one of its pods goes to the holder.

In the output hook only: a pod that dials another's gate port is not redirected, and is refused there. Priority -110 is
just before kube-proxy's -100. The table is ours alone; whoever takes it away finds it put back.
"""

from __future__ import annotations

from contextlib import closing

from tidegate.dataplane.netlink import Malformed
from tidegate.dataplane.nftables.source import Changed
from tidegate.observers.linux.commands import output
from tidegate.observers.linux.generation import Generations
from tidegate.observers.linux.nftables import Questions

OWN_TABLE = ("inet", "tidegate")
PRIORITY = -110
_INET = 1
_HEAD_BYTES = 4
"""struct nfgenmsg, in which the kernel tells the generation of now."""


class Gate:
    """Keeps the table as it was made."""

    def __init__(self) -> None:
        self._made: tuple[bytes, ...] = ()
        self._wanted = ""
        self._generation = -1

    def ensure(self, generations: Generations, networks: tuple[str, ...], port: int, to_port: int) -> None:
        """Make the table, unless it stands as it was made. Raises ``CommandFailed``, ``OSError``."""
        wanted = script(networks, port, to_port)
        generation = generations.now()
        if wanted == self._wanted and generation == self._generation:
            return
        if wanted != self._wanted or _shown() != self._made:
            output("nft", "-f", "-", text=wanted)
            self._made, self._wanted = _shown(), wanted
            generation = generations.now()
        self._generation = generation


def script(networks: tuple[str, ...], port: int, to_port: int) -> str:
    """One transaction: the table as it has to be, whatever it was."""
    table = " ".join(OWN_TABLE)
    rules = [
        f"    {'ip6' if ':' in network else 'ip'} daddr {network} tcp dport {port} redirect to :{to_port}"
        for network in networks
    ]
    chain = f"    type nat hook output priority {PRIORITY}; policy accept;"
    body = ["  chain output {", chain, *rules, "  }"]
    return "\n".join([f"table {table}", f"delete table {table}", f"table {table} {{", *body, "}", ""])


def remove() -> None:
    """Take the table away: what an uninstall does. Raises ``CommandFailed``."""
    table = " ".join(OWN_TABLE)
    output("nft", "-f", "-", text=f"table {table}\ndelete table {table}\n")


def _shown() -> tuple[bytes, ...]:
    """The chain and its rules as the kernel has them; nothing when they are not there. ``nft`` would
    read everybody's rules for it."""
    try:
        with closing(Questions()) as questions:
            chain = questions.chain(_INET, OWN_TABLE[1], "output")
            shown = (chain, *questions.rules(_INET, OWN_TABLE[1], "output"))
            return tuple(body[_HEAD_BYTES:] for body in shown)
    except (Changed, Malformed):
        return ()
