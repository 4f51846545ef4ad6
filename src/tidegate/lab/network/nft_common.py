"""What the nftables layouts of kube-proxy 1.30 and 1.36 have in common.

After pkg/proxy/nftables/proxier.go of both versions, compared with dumps of the real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tidegate.lab.kernel.tables import ServiceEntry, split_address
from tidegate.lab.network.port import MARK_BIT, Port, digest
from tidegate.lab.network.seam import NodePlace
from tidegate.lab.network.table import TABLE, Ruleset, rule

MARK = f"{1 << MARK_BIT:#010x}"

_BASE_LENGTH_MAX = 240
"""Of a chain name without its prefix: NameLengthMax 256 less 16."""

_TO_SERVICE = "ip daddr . meta l4proto . th dport"
_TO_NODE_PORT = "ip daddr @nodeport-ips meta l4proto . th dport"
_BY_SERVICE = "ipv4_addr . inet_proto . inet_service : verdict"
_BY_NODE_PORT = "inet_proto . inet_service : verdict"


@dataclass(frozen=True, slots=True)
class Hook:
    """A base chain, and where it jumps to."""

    name: str
    type: str
    hook: str
    priority: int
    jumps: tuple[str, ...]


class NftPort(Port):
    """A service port under the names of its chains."""

    @cached_property
    def base(self) -> str:
        """What its chains' names have in common."""
        return hashed(self._path)

    @property
    def _path(self) -> str:
        return f"{self.entry.namespace}/{self.entry.name}/{self.protocol}/{self.entry.port_name}"

    @property
    def cluster_chain(self) -> str:
        return f"service-{self.base}"

    @property
    def local_chain(self) -> str:
        return f"local-{self.base}"

    @property
    def external_chain(self) -> str:
        return f"external-{self.base}"

    @property
    def internal_chain(self) -> str:
        """Where traffic to the ClusterIP goes."""
        return self.local_chain if self.routing.is_internal_local else self.cluster_chain

    @property
    def policies(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The chains that choose an endpoint, with those they choose from."""
        if self.routing.cluster:
            yield self.cluster_chain, self.routing.cluster
        if self.routing.local:
            yield self.local_chain, self.routing.local

    def endpoint_base(self, endpoint: str) -> str:
        """Name of an endpoint's chain and affinity set, less their prefixes."""
        address, number = split_address(endpoint)
        return hashed(f"{self._path}__{address}/{number}")


def hashed(name: str) -> str:
    """``name`` behind eight characters of its hash, cut to what nft takes (hashAndTruncate)."""
    found = f"{digest(name)[:8]}-{name}"
    return found if len(found) <= _BASE_LENGTH_MAX else f"{found[: _BASE_LENGTH_MAX - 3]}..."


class Layout:
    """A version of kube-proxy. ``is_rewritten``: every commit writes everything, changed or not."""

    hooks: tuple[Hook, ...] = ()
    is_rewritten = False

    def __init__(self, place: NodePlace) -> None:
        self.place = place
        self._parts: dict[tuple[str, ...], tuple[ServiceEntry, Ruleset]] = {}
        """By service port, the last entry and what it came to: of a thousand, a sync changes few."""

    def ruleset(self, entries: Iterable[ServiceEntry]) -> Ruleset:
        """What the table shall hold. Raises ``TableError``."""
        parts: dict[tuple[str, ...], tuple[ServiceEntry, Ruleset]] = {}
        found = Ruleset()
        for entry in entries:
            key = (entry.namespace, entry.name, entry.port_name, entry.protocol)
            known = self._parts.get(key)
            parts[key] = known if known is not None and known[0] == entry else (entry, self._part(NftPort.of(entry)))
            found.add(parts[key][1])
        self._parts = parts
        return found

    def _part(self, port: NftPort) -> Ruleset:
        found = Ruleset()
        self._destinations(found, port)
        self._external(found, port)
        self._firewall(found, port)
        self._endpoints(found, port)
        return found

    def base(self, *, is_first: bool) -> Iterator[str]:
        """The fixed part, as a full sync writes it; the first of a proxy's life also replaces another version's hooks.

        ``add`` then ``delete``: a hook cannot change its priority, and one that is not there cannot be deleted.
        """
        yield f'add table ip {TABLE} {{ comment "rules for kube-proxy" ; }}'
        for hook in self.hooks if is_first else ():
            yield f"add chain ip {TABLE} {hook.name}"
            yield f"delete chain ip {TABLE} {hook.name}"
        for hook in self.hooks:
            where = f"type {hook.type} hook {hook.hook} priority {hook.priority} ;"
            yield f"add chain ip {TABLE} {hook.name} {{ {where} }}"
            yield f"flush chain ip {TABLE} {hook.name}"
        yield from self._containers()
        chains = self._fixed_chains()
        for name in chains:
            comment = ' { comment "helper for @no-endpoint-services / @no-endpoint-nodeports" ; }'
            yield f"add chain ip {TABLE} {name}{comment if name == 'reject-chain' else ''}"
            yield f"flush chain ip {TABLE} {name}"
        for hook in self.hooks:
            for target in hook.jumps:
                yield f"add rule ip {TABLE} {hook.name} {'ct state new ' if hook.type == 'filter' else ''}jump {target}"
        for name, rules in chains.items():
            for one in rules:
                yield f"add rule ip {TABLE} {name} {one}"

    def _containers(self) -> Iterator[str]:
        for name, kind, comment in self._sets():
            yield f'add set ip {TABLE} {name} {{ type {kind} ; comment "{comment}" ; }}'
            yield f"flush set ip {TABLE} {name}"
        for name, kind, comment in (
            ("no-endpoint-services", _BY_SERVICE, "vmap to drop or reject packets to services with no endpoints"),
            (
                "no-endpoint-nodeports",
                _BY_NODE_PORT,
                "vmap to drop or reject packets to service nodeports with no endpoints",
            ),
            ("firewall-ips", _BY_SERVICE, "destinations that are subject to LoadBalancerSourceRanges"),
            ("service-ips", _BY_SERVICE, "ClusterIP, ExternalIP and LoadBalancer IP traffic"),
            ("service-nodeports", _BY_NODE_PORT, "NodePort traffic"),
        ):
            yield f'add map ip {TABLE} {name} {{ type {kind} ; comment "{comment}" ; }}'
            yield f"flush map ip {TABLE} {name}"
        for address in self.place.addresses:
            yield f"add element ip {TABLE} nodeport-ips {{ {address} }}"

    def _sets(self) -> tuple[tuple[str, str, str], ...]:
        return (
            ("cluster-ips", "ipv4_addr", "Active ClusterIPs"),
            ("nodeport-ips", "ipv4_addr", "IPs that accept NodePort traffic"),
        )

    def _fixed_chains(self) -> dict[str, list[str]]:
        return {
            "nodeport-endpoints-check": [f"{_TO_NODE_PORT} vmap @no-endpoint-nodeports"],
            "service-endpoints-check": [f"{_TO_SERVICE} vmap @no-endpoint-services"],
            "firewall-check": [f"{_TO_SERVICE} vmap @firewall-ips"],
            "services": [f"{_TO_SERVICE} vmap @service-ips", f"{_TO_NODE_PORT} vmap @service-nodeports"],
            "masquerading": [],
            "cluster-ips-check": [
                rule("ip daddr @cluster-ips reject", "Reject traffic to invalid ports of ClusterIPs")
            ],
            "reject-chain": ["reject"],
        }

    def _destinations(self, found: Ruleset, port: NftPort) -> None:
        """Which addresses lead where. No endpoint anywhere rejects; none under the policy Local drops."""
        reachable = port.routing.is_reachable
        refused = "drop" if reachable else "goto reject-chain"
        entry = port.entry
        found.put("cluster-ips", entry.cluster_ip)
        key = f"{entry.cluster_ip} . {port.protocol} . {entry.port}"
        if port.has_internal:
            found.put("service-ips", key, f"goto {port.internal_chain}")
        else:
            found.put("no-endpoint-services", key, refused, port.label)
        for address in port.routing.external_ips + port.routing.load_balancer_ips:
            key = f"{address} . {port.protocol} . {entry.port}"
            if reachable:
                found.put("service-ips", key, f"goto {port.external_chain}")
            if not port.has_external:
                found.put("no-endpoint-services", key, refused, port.label)
        if entry.node_port:
            key = f"{port.protocol} . {entry.node_port}"
            if reachable:
                found.put("service-nodeports", key, f"goto {port.external_chain}")
            if not port.has_external:
                found.put("no-endpoint-nodeports", key, refused, port.label)

    def _external(self, found: Ruleset, port: NftPort) -> None:
        if not port.is_external or not port.routing.is_reachable:
            return
        rules = found.chain(port.external_chain)
        if port.routing.is_external_local:
            masquerade, inside = self._masquerade(), port.cluster_chain
            rules.append(rule(f"ip saddr {self.place.pod_network} goto {inside}", "short-circuit pod traffic"))
            rules.append(rule(f"fib saddr type local {masquerade}", "masquerade local traffic"))
            rules.append(rule(f"fib saddr type local goto {inside}", "short-circuit local traffic"))
        else:
            rules.append(self._masquerade_all())
        if port.has_external:
            rules.append(f"goto {port.local_chain if port.routing.is_external_local else port.cluster_chain}")

    def _firewall(self, found: Ruleset, port: NftPort) -> None:
        """loadBalancerSourceRanges: who may dial the load balancer's address at all."""
        if not port.routing.source_ranges or not port.routing.load_balancer_ips:
            return
        chain, allowed = f"firewall-{port.base}", port.allowed(self.place.addresses[0])
        found.chain(chain).append(f"ip saddr != {{ {', '.join(allowed)} }} drop")
        for address in port.routing.load_balancer_ips:
            found.put("firewall-ips", f"{address} . {port.protocol} . {port.entry.port}", f"goto {chain}")

    def _masquerade(self) -> str:
        raise NotImplementedError

    def _masquerade_all(self) -> str:
        raise NotImplementedError

    def _endpoints(self, found: Ruleset, port: NftPort) -> None:
        raise NotImplementedError


def choose_chain(found: Ruleset, port: NftPort, chain: str, endpoints: tuple[str, ...]) -> None:
    """A chain that goes to one of the chains of ``endpoints``: with affinity first to where this client was sent."""
    rules = found.chain(chain)
    bases = [port.endpoint_base(endpoint) for endpoint in endpoints]
    if port.entry.affinity_seconds:
        rules += [f"ip saddr @affinity-{base} goto endpoint-{base}" for base in bases]
    rows = ", ".join(f"{number} : goto endpoint-{base}" for number, base in enumerate(bases))
    rules.append(f"numgen random mod {len(bases)} vmap {{ {rows} }}")
