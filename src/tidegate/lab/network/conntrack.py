"""Which UDP flows a proxy makes the kernel forget, after the commit that changed their Service.

pkg/proxy/conntrack/cleanup.go of v1.36: what was dialled as the address of a UDP Service and is answered by nobody
who serves it. A Service without any serving endpoint keeps its flows; an endpoint that is terminating and serves, too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.lab.kernel.client import KernelError
from tidegate.lab.kernel.tables import Routing, ServiceEntry
from tidegate.lab.network.seam import Run

_LIST = ("conntrack", "-L", "-f", "ipv4", "-p", "udp")
_TUPLE = r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)"
_FLOW = re.compile(rf"^udp\s.*?{_TUPLE}.*?{_TUPLE}")


@dataclass(frozen=True, slots=True)
class Flows:
    """All flows that were dialled as one address and are answered by one."""

    dialled: str
    dialled_port: int
    answering: str
    answering_port: int

    @property
    def deletion(self) -> tuple[str, ...]:
        """The command that makes the kernel forget them."""
        dialled = ("--orig-dst", self.dialled, "--orig-port-dst", str(self.dialled_port))
        answering = ("--reply-src", self.answering, "--reply-port-src", str(self.answering_port))
        return ("conntrack", "-D", "-f", "ipv4", "-p", "udp", *dialled, *answering)


def changed(old: Iterable[ServiceEntry], new: Iterable[ServiceEntry]) -> bool:
    """Whether the endpoints of a UDP Service differ: a sync without such a change cleans nothing up."""
    return _udp_endpoints(old) != _udp_endpoints(new)


def _udp_endpoints(entries: Iterable[ServiceEntry]) -> dict[tuple[str, str], object]:
    return {
        (entry.key, entry.port_name): entry.routing
        for entry in entries
        if entry.protocol == "UDP" and isinstance(entry.routing, Routing) and entry.routing.serving
    }


def stale(listing: str, entries: Iterable[ServiceEntry]) -> tuple[Flows, ...]:
    """Those of ``conntrack -L`` that nobody who serves them answers, each once."""
    by_address: dict[tuple[str, int], frozenset[str]] = {}
    by_node_port: dict[int, frozenset[str]] = {}
    for entry in entries:
        if entry.protocol != "UDP" or not isinstance(entry.routing, Routing) or not entry.routing.serving:
            continue
        serving = frozenset(entry.routing.serving)
        for address in (entry.cluster_ip, *entry.routing.load_balancer_ips, *entry.routing.external_ips):
            by_address[address, entry.port] = serving
        if entry.node_port:
            by_node_port[entry.node_port] = serving
    found: dict[Flows, None] = {}
    for line in listing.splitlines():
        match = _FLOW.match(line)
        if match is None:
            continue
        flows = Flows(match[2], int(match[4]), match[5], int(match[7]))
        answering = f"{flows.answering}:{flows.answering_port}"
        for served in (by_address.get((flows.dialled, flows.dialled_port)), by_node_port.get(flows.dialled_port)):
            if served is not None and answering not in served:
                found[flows] = None
    return tuple(found)


class UdpFlows:
    """The flows of one node, as its proxy looks after them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: tuple[ServiceEntry, ...] = ()

    def must_clean(self, entries: tuple[ServiceEntry, ...]) -> bool:
        """Whether a sync of ``entries`` cleans up at its end. Asked once: a sync that then fails never does."""
        seen, self._seen = self._seen, entries
        return changed(seen, entries)

    async def clean(self, entries: Iterable[ServiceEntry]) -> None:
        """List once, delete once. What went wrong is the agents' to see: the real one logs it and goes on.

        ``conntrack -D`` exits 1 where it finds nothing: the flow ended meanwhile. The real one walks the table with a
        filter, to which that is no error, so one such flow keeps no other.
        """
        try:
            listing = await self._run(_LIST, b"")
        except KernelError:
            return
        for flows in stale(listing.decode(), entries):
            with contextlib.suppress(KernelError):
                await self._run(flows.deletion, b"")
