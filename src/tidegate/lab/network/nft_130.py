"""The layout of kube-proxy 1.30: a chain for each endpoint, and every sync writes the whole table anew.

Partial syncs came with 1.32 (kubernetes/kubernetes pull request 126013). UDP flows are cleaned up by the rule of 1.36.
"""

from __future__ import annotations

from tidegate.lab.network.nft_common import MARK, Hook, Layout, NftPort, choose_chain
from tidegate.lab.network.table import Ruleset, rule


class Layout130(Layout):
    """pkg/proxy/nftables of v1.30.5."""

    is_rewritten = True
    hooks = (
        Hook("filter-prerouting", "filter", "prerouting", -110, ("firewall-check",)),
        Hook("filter-input", "filter", "input", -110, ("nodeport-endpoints-check", "service-endpoints-check")),
        Hook("filter-forward", "filter", "forward", -110, ("service-endpoints-check", "cluster-ips-check")),
        Hook("filter-output", "filter", "output", -110, ("service-endpoints-check", "firewall-check")),
        Hook("filter-output-post-dnat", "filter", "output", -90, ("cluster-ips-check",)),
        Hook("nat-prerouting", "nat", "prerouting", -100, ("services",)),
        Hook("nat-output", "nat", "output", -100, ("services",)),
        Hook("nat-postrouting", "nat", "postrouting", 100, ("masquerading",)),
    )

    def _fixed_chains(self) -> dict[str, list[str]]:
        chains = super()._fixed_chains()
        chains["masquerading"] = [
            f"mark and {MARK} == 0 return",
            f"mark set mark xor {MARK}",
            "masquerade fully-random",
        ]
        return {**chains, "mark-for-masquerade": [f"mark set mark or {MARK}"]}

    def _masquerade(self) -> str:
        return "jump mark-for-masquerade"

    def _masquerade_all(self) -> str:
        return rule(self._masquerade())

    def _endpoints(self, found: Ruleset, port: NftPort) -> None:
        entry, protocol = port.entry, port.protocol
        if port.has_internal:
            asked = f"ip daddr {entry.cluster_ip} {protocol} dport {entry.port}"
            outside = f"ip saddr != {self.place.pod_network}"
            found.chain(port.internal_chain).append(f"{asked} {outside} jump mark-for-masquerade")
        for chain, endpoints in port.policies:
            choose_chain(found, port, chain, endpoints)
        for endpoint in port.reachable:
            base = port.endpoint_base(endpoint)
            rules = found.chain(f"endpoint-{base}")
            rules.append(f"ip saddr {endpoint.rpartition(':')[0]} jump mark-for-masquerade")
            if entry.affinity_seconds:
                found.affinity[f"affinity-{base}"] = entry.affinity_seconds
                rules.append(f"update @affinity-{base} {{ ip saddr }}")
            rules.append(f"meta l4proto {protocol} dnat to {endpoint}")
