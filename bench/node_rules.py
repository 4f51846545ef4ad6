"""Rules as kube-proxy writes them, for ``nft -f`` and ``iptables-nft-restore``: 10,000 Services of five endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.node_dumps import ENDPOINTS, SERVICES, chain_of, iptables_save, pod, vip

_TABLE = "ip kube-proxy"
_HEAD = f"""
add table {_TABLE}
add map {_TABLE} service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add set {_TABLE} cluster-ips {{ type ipv4_addr; }}
add chain {_TABLE} mark-for-masquerade
add rule {_TABLE} mark-for-masquerade mark set mark or 0x4000
add chain {_TABLE} services
add chain {_TABLE} nat-prerouting {{ type nat hook prerouting priority -100; }}
add chain {_TABLE} nat-output {{ type nat hook output priority -100; }}
add rule {_TABLE} nat-prerouting jump services
add rule {_TABLE} nat-output jump services
add rule {_TABLE} services ip daddr . meta l4proto . th dport vmap @service-ips
""".lstrip()


@dataclass(frozen=True, slots=True)
class Kind:
    """``whole``: all rules. ``changed``: the same for some Services with their last endpoint gone. ``rounds``: how
    often one Service is changed and changed back, and how often 500 are."""

    tool: tuple[str, ...]
    change_tool: tuple[str, ...]
    whole: Callable[[], str]
    changed: Callable[[Iterable[int], int], str]
    rounds: tuple[int, int] = (15, 4)


def _masquerade(service: int) -> str:
    return f"ip daddr {vip(service)} ip saddr != 10.128.0.0/9 jump mark-for-masquerade"


def _names(service: int) -> list[str]:
    return [f"endpoint{chain_of(service)[7:]}__{pod(service, at)}/8080" for at in range(ENDPOINTS)]


def _service(service: int, count: int, is_per_endpoint: bool) -> list[str]:
    chain = f"{_TABLE} {chain_of(service)}"
    rules = [f"add rule {chain} {_masquerade(service)}"]
    if not is_per_endpoint:
        rows = ", ".join(f"{at} : {pod(service, at)} . 8080" for at in range(count))
        to = f"numgen random mod {count} map {{ {rows} }}"
        return [*rules, f"add rule {chain} meta l4proto tcp dnat ip addr . port to {to}"]
    for at, name in enumerate(_names(service)[:count]):
        rules.append(f"add rule {_TABLE} {name} ip saddr {pod(service, at)} jump mark-for-masquerade")
        rules.append(f"add rule {_TABLE} {name} meta l4proto tcp dnat to {pod(service, at)}:8080")
    rows = ", ".join(f"{at} : goto {name}" for at, name in enumerate(_names(service)[:count]))
    return [*rules, f"add rule {chain} numgen random mod {count} vmap {{ {rows} }}"]


def _whole(is_per_endpoint: bool) -> str:
    lines = [_HEAD]
    for one in range(SERVICES):
        names = [chain_of(one), *(_names(one) if is_per_endpoint else [])]
        lines += [f"add chain {_TABLE} {name}" for name in names]
    for one in range(SERVICES):
        lines += _service(one, ENDPOINTS, is_per_endpoint)
    rows = ", ".join(f"{vip(one)} . tcp . 80 : goto {chain_of(one)}" for one in range(SERVICES))
    lines.append(f"add element {_TABLE} service-ips {{ {rows} }}")
    lines.append(f"add element {_TABLE} cluster-ips {{ {', '.join(map(vip, range(SERVICES)))} }}")
    return "\n".join(lines) + "\n"


def _changed(is_per_endpoint: bool) -> Callable[[Iterable[int], int], str]:
    def script(services: Iterable[int], count: int) -> str:
        lines = []
        for one in services:
            names = [chain_of(one), *(_names(one) if is_per_endpoint else [])]
            lines += [f"flush chain {_TABLE} {name}" for name in names]
            lines += _service(one, count, is_per_endpoint)
        return "\n".join(lines) + "\n"

    return script


def _iptables_changed(services: Iterable[int], count: int) -> str:
    """As kube-proxy's partial sync: the chains of these Services, and KUBE-SERVICES whole."""
    heads, rules = [":KUBE-SERVICES - [0:0]"], []
    for one in range(SERVICES):
        rules.append(f"-A KUBE-SERVICES -d {vip(one)}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{one:016}")
    for one in services:
        heads.append(f":KUBE-SVC-{one:016} - [0:0]")
        for at in range(count):
            chance = f"-m statistic --mode random --probability 0.{at + 2}0000000000 " if at < count - 1 else ""
            rules.append(f"-A KUBE-SVC-{one:016} {chance}-j KUBE-SEP-{one:015}{at}")
    return "\n".join(["*nat", *heads, *rules, "COMMIT", ""])


_NFT = ("nft", "-f", "-")
KINDS = {
    "nftables 1.36": Kind(_NFT, _NFT, lambda: _whole(False), _changed(False)),
    "nftables 1.30 to 1.35": Kind(_NFT, _NFT, lambda: _whole(True), _changed(True)),
    "iptables-nft": Kind(
        ("iptables-nft-restore",), ("iptables-nft-restore", "--noflush"), iptables_save, _iptables_changed, (3, 1)
    ),
}
