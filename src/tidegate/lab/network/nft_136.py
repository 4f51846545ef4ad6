"""The layout of kube-proxy 1.36: one rule holds all endpoints of a Service, unless it has ClientIP affinity."""

from __future__ import annotations

from tidegate.lab.kernel.tables import split_address
from tidegate.lab.network.nft_common import MARK, Hook, Layout, NftPort, choose_chain
from tidegate.lab.network.table import Ruleset, rule

_CHECKS = ("service-endpoints-check", "cluster-ips-check")


class Layout136(Layout):
    """pkg/proxy/nftables of v1.36.2."""

    hooks = (
        Hook("filter-prerouting-pre-dnat", "filter", "prerouting", -110, ("firewall-check",)),
        Hook("filter-output-pre-dnat", "filter", "output", -110, ("firewall-check",)),
        Hook("filter-input", "filter", "input", 0, ("nodeport-endpoints-check", "service-endpoints-check")),
        Hook("filter-forward", "filter", "forward", 0, _CHECKS),
        Hook("filter-output", "filter", "output", 0, _CHECKS),
        Hook("nat-prerouting", "nat", "prerouting", -100, ("services",)),
        Hook("nat-output", "nat", "output", -100, ("services",)),
        Hook("nat-postrouting", "nat", "postrouting", 100, ("masquerading",)),
    )

    def _sets(self) -> tuple[tuple[str, str, str], ...]:
        kind = "ipv4_addr . ipv4_addr . inet_proto . inet_service"
        return (("hairpin-connections", kind, "service hairpin connections"), *super()._sets())

    def _fixed_chains(self) -> dict[str, list[str]]:
        chains = super()._fixed_chains()
        from_outside = f"ip daddr @cluster-ips ip saddr != {self.place.pod_network} {self._masquerade()}"
        chains["services"].insert(0, rule(from_outside, "masquerade clusterIP traffic from outside cluster"))
        chains["masquerading"] = [
            f"mark and {MARK} != 0 mark set mark xor {MARK} masquerade fully-random",
            "ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random",
        ]
        if self.place.service_network:
            unallocated = f"ip daddr {self.place.service_network} drop"
            chains["cluster-ips-check"].append(rule(unallocated, "Drop traffic to unallocated ClusterIPs"))
        return chains

    def _masquerade(self) -> str:
        return f"mark set mark or {MARK}"

    def _masquerade_all(self) -> str:
        return rule(self._masquerade(), "masquerade")

    def _endpoints(self, found: Ruleset, port: NftPort) -> None:
        for endpoint in port.routing.here:
            address, number = split_address(endpoint)
            found.put("hairpin-connections", f"{address} . {address} . {port.protocol} . {number}")
        for chain, endpoints in port.policies:
            if port.entry.affinity_seconds:
                choose_chain(found, port, chain, endpoints)
            else:
                found.chain(chain).append(_translation(port, endpoints))
        for endpoint in port.reachable if port.entry.affinity_seconds else ():
            base = port.endpoint_base(endpoint)
            found.affinity[f"affinity-{base}"] = port.entry.affinity_seconds
            found.chain(f"endpoint-{base}").extend(
                (f"update @affinity-{base} {{ ip saddr }}", f"meta l4proto {port.protocol} dnat to {endpoint}")
            )


def _translation(port: NftPort, endpoints: tuple[str, ...]) -> str:
    rows = (f"{row} : {address} . {number}" for row, (address, number) in enumerate(map(split_address, endpoints)))
    choice = f"numgen random mod {len(endpoints)} map {{ {', '.join(rows)} }}"
    return f"meta l4proto {port.protocol} dnat ip addr . port to {choice}"
