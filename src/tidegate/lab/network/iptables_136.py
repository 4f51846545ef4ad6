"""The rules of kube-proxy 1.36 in iptables mode. Pure.

After pkg/proxy/iptables/proxier.go of v1.36.2, compared with dumps of the real one: every sync writes the chains that
dispatch (KUBE-SERVICES, KUBE-NODEPORTS, ...) as a whole, and the chains of those Services that changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from tidegate.lab.kernel.tables import ServiceEntry
from tidegate.lab.network.port import MARK_BIT, Port, digest
from tidegate.lab.network.seam import NodePlace

MARK = f"{1 << MARK_BIT:#x}"
LARGE = 1_000
"""Endpoints above which a cluster is large: no comments in the chains of Services, and stale chains stand longer."""

OWN_CHAINS = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")
FILTER_CHAINS = ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL")
NAT_CHAINS = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ")

_NEW = "-m conntrack --ctstate NEW "
_OUTSIDE = '-m comment --comment "kubernetes externally-visible service portals"'
_PORTALS = '-m comment --comment "kubernetes service portals"'
_FIREWALL = '-m comment --comment "kubernetes load balancer firewall"'
JUMPS = (
    ("filter", "INPUT", f"{_NEW}{_OUTSIDE} -j KUBE-EXTERNAL-SERVICES"),
    ("filter", "FORWARD", f"{_NEW}{_OUTSIDE} -j KUBE-EXTERNAL-SERVICES"),
    ("filter", "INPUT", '-m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS'),
    ("filter", "FORWARD", f"{_NEW}{_PORTALS} -j KUBE-SERVICES"),
    ("filter", "OUTPUT", f"{_NEW}{_PORTALS} -j KUBE-SERVICES"),
    ("filter", "FORWARD", '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'),
    ("filter", "INPUT", f"{_NEW}{_FIREWALL} -j KUBE-PROXY-FIREWALL"),
    ("filter", "OUTPUT", f"{_NEW}{_FIREWALL} -j KUBE-PROXY-FIREWALL"),
    ("filter", "FORWARD", f"{_NEW}{_FIREWALL} -j KUBE-PROXY-FIREWALL"),
    ("nat", "OUTPUT", f"{_PORTALS} -j KUBE-SERVICES"),
    ("nat", "PREROUTING", f"{_PORTALS} -j KUBE-SERVICES"),
    ("nat", "POSTROUTING", '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'),
    ("filter", "INPUT", "-j KUBE-FIREWALL"),
    ("filter", "OUTPUT", "-j KUBE-FIREWALL"),
)
"""(table, hook, rule), each put before all others of its hook, in this order."""

FORWARDING = (
    "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
    f'-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark {MARK}/{MARK} -j ACCEPT',
    '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" '
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
)
LOCALNET = (
    '-A KUBE-FIREWALL -m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8 '
    "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)
MASQUERADING = (
    f"-A KUBE-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN",
    f"-A KUBE-POSTROUTING -j MARK --xor-mark {MARK}",
    '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    f"-A KUBE-MARK-MASQ -j MARK --or-mark {MARK}",
)
LAST = (
    "-A KUBE-SERVICES -m comment --comment "
    '"kubernetes service nodeports; NOTE: this must be the last rule in this chain" '
    "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
)


@dataclass(slots=True)
class Part:
    """The rules of one service port: those of the dispatching chains by table, and its own chains."""

    filter: list[str] = field(default_factory=list)
    nat: list[str] = field(default_factory=list)
    chains: dict[str, list[str]] = field(default_factory=dict)


class IptablesPort(Port):
    """A service port under the names of its chains."""

    @cached_property
    def _hash(self) -> str:
        return digest(self.label + self.protocol)[:16]

    @property
    def cluster_chain(self) -> str:
        return f"KUBE-SVC-{self._hash}"

    @property
    def local_chain(self) -> str:
        return f"KUBE-SVL-{self._hash}"

    @property
    def external_chain(self) -> str:
        return f"KUBE-EXT-{self._hash}"

    @property
    def firewall_chain(self) -> str:
        return f"KUBE-FW-{self._hash}"

    @property
    def internal_chain(self) -> str:
        return self.local_chain if self.routing.is_internal_local else self.cluster_chain

    @property
    def has_firewall(self) -> bool:
        routing = self.routing
        return bool(routing.is_reachable and routing.load_balancer_ips and routing.source_ranges)

    def endpoint_chain(self, endpoint: str) -> str:
        """Changes with the Service's port name, the protocol and the endpoint."""
        return f"KUBE-SEP-{digest(self.label + self.protocol + endpoint)[:16]}"

    def says(self, form: str) -> str:
        """A match that is a comment: ``form`` with the port's label for its ``%s``."""
        return f'-m comment --comment "{form % self.label}"'

    def to(self, port: int, address: str = "") -> str:
        """A match on the frontend ``address:port``, or on that port of any address."""
        asked = f" -d {address}" if address else ""
        return f"-m {self.protocol} -p {self.protocol}{asked} --dport {port}"


def part(entry: ServiceEntry, place: NodePlace, *, is_large: bool) -> Part:
    """The rules of one service port. Raises ``TableError``."""
    port = IptablesPort.of(entry)
    found = Part()
    _internal(found, port)
    _outside(found, port)
    if port.routing.health_check_port:
        comment = port.says("%s health check node port")
        asked = f"-m tcp -p tcp --dport {port.routing.health_check_port}"
        found.filter.append(f"-A KUBE-NODEPORTS {comment} {asked} -j ACCEPT")
    for rule in _chain_rules(port, place, is_large=is_large):
        found.chains.setdefault(rule.split(" ", 2)[1], []).append(rule)
    return found


def _refusal(port: IptablesPort) -> tuple[str, str]:
    """What becomes of a client that is sent nowhere: (comment, target)."""
    if port.routing.is_reachable:
        return port.says("%s has no local endpoints"), "DROP"
    return port.says("%s has no endpoints"), "REJECT"


def _internal(found: Part, port: IptablesPort) -> None:
    asked = port.to(port.entry.port, port.entry.cluster_ip)
    if port.has_internal:
        comment = port.says("%s cluster IP")
        found.nat.append(f"-A KUBE-SERVICES {comment} {asked} -j {port.internal_chain}")
    else:
        comment, target = _refusal(port)
        found.filter.append(f"-A KUBE-SERVICES {comment} {asked} -j {target}")


def _outside(found: Part, port: IptablesPort) -> None:
    entry, routing = port.entry, port.routing
    refused, target = _refusal(port)
    balanced = port.firewall_chain if port.has_firewall else port.external_chain
    kinds = (
        ("external", routing.external_ips, port.external_chain),
        ("loadbalancer", routing.load_balancer_ips, balanced),
    )
    for kind, addresses, chain in kinds:
        for address in addresses:
            asked = port.to(entry.port, address)
            if routing.is_reachable:
                found.nat.append(f"-A KUBE-SERVICES {port.says(f'%s {kind} IP')} {asked} -j {chain}")
            if chain == port.firewall_chain:
                comment = port.says(f"%s traffic not accepted by {chain}")
                found.filter.append(f"-A KUBE-PROXY-FIREWALL {comment} {asked} -j DROP")
            if not port.has_external:
                found.filter.append(f"-A KUBE-EXTERNAL-SERVICES {refused} {asked} -j {target}")
    if entry.node_port:
        asked = port.to(entry.node_port)
        if routing.is_reachable:
            found.nat.append(f"-A KUBE-NODEPORTS {port.says('%s')} {asked} -j {port.external_chain}")
        if not port.has_external:
            local = f"-m addrtype --dst-type LOCAL {asked}"
            found.filter.append(f"-A KUBE-EXTERNAL-SERVICES {refused} {local} -j {target}")


def _chain_rules(port: IptablesPort, place: NodePlace, *, is_large: bool) -> Iterator[str]:
    """Of the port's own chains, in nat."""
    if port.has_internal:
        asked = f"{port.says('%s cluster IP')} {port.to(port.entry.port, port.entry.cluster_ip)}"
        yield f"-A {port.internal_chain} {asked} ! -s {place.pod_network} -j KUBE-MARK-MASQ"
    if port.is_external and port.routing.is_reachable:
        yield from _external_rules(port, place)
    if port.has_firewall:
        comment = port.says("%s loadbalancer IP")
        for source in port.allowed(place.addresses[0]):
            yield f"-A {port.firewall_chain} {comment} -s {source} -j {port.external_chain}"
        other = port.says("other traffic to %s will be dropped by KUBE-PROXY-FIREWALL")
        yield f"-A {port.firewall_chain} {other}"
    if port.routing.cluster:
        yield from _choice(port, port.cluster_chain, port.routing.cluster, is_large=is_large)
    if port.routing.local:
        yield from _choice(port, port.local_chain, port.routing.local, is_large=is_large)
    comment = "" if is_large else f"{port.says('%s')} "
    for endpoint in port.reachable:
        chain = port.endpoint_chain(endpoint)
        remembered = f"-m recent --name {chain} --set " if port.entry.affinity_seconds else ""
        matched = f"-m {port.protocol} -p {port.protocol}"
        yield f"-A {chain} {comment}-s {endpoint.rpartition(':')[0]} -j KUBE-MARK-MASQ"
        yield f"-A {chain} {comment}{remembered}{matched} -j DNAT --to-destination {endpoint}"


def _external_rules(port: IptablesPort, place: NodePlace) -> Iterator[str]:
    chain = f"-A {port.external_chain}"
    if port.routing.is_external_local:
        inside, local = port.cluster_chain, "-m addrtype --src-type LOCAL"
        yield f"{chain} {port.says('pod traffic for %s external destinations')} -s {place.pod_network} -j {inside}"
        yield f"{chain} {port.says('masquerade LOCAL traffic for %s external destinations')} {local} -j KUBE-MARK-MASQ"
        yield f"{chain} {port.says('route LOCAL traffic for %s external destinations')} {local} -j {inside}"
    else:
        yield f"{chain} {port.says('masquerade traffic for %s external destinations')} -j KUBE-MARK-MASQ"
    if port.has_external:
        yield f"{chain} -j {port.local_chain if port.routing.is_external_local else port.cluster_chain}"


def _choice(port: IptablesPort, chain: str, endpoints: tuple[str, ...], *, is_large: bool) -> Iterator[str]:
    comments = {one: "" if is_large else f"{port.says(f'%s -> {one}')} " for one in endpoints}
    if port.entry.affinity_seconds:
        for endpoint in endpoints:
            to = port.endpoint_chain(endpoint)
            recent = f"-m recent --name {to} --rcheck --seconds {port.entry.affinity_seconds} --reap"
            yield f"-A {chain} {comments[endpoint]}{recent} -j {to}"
    for left, endpoint in zip(range(len(endpoints), 0, -1), endpoints, strict=True):
        chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        yield f"-A {chain} {comments[endpoint]}{chance}-j {port.endpoint_chain(endpoint)}"
