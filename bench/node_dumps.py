"""Node dumps: the milliseconds from a node's raw dump to what leads to one pod, 10,000 Services of five endpoints.

Written here in the shapes of real kube-proxies (tests/golden/dataplane); printing them is the kernel's and nft's
business and not in these figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from bench.figures import Figure, at_most
from tidegate.dataplane import conntrack, iptables, nft
from tidegate.dataplane.facts import Facts
from tidegate.dataplane.frontends import Asking
from tidegate.model.endpoint import Endpoint

SERVICES = 10_000
ENDPOINTS = 5
CONNECTIONS = 50_000
MS_MAX = 200.0
ROUNDS = 5
OF = 5_000
"""The Service asked about: POD is one of its endpoints."""
_OWN = {"family": "ip", "table": "kube-proxy"}


def vip(service: int) -> str:
    return f"10.{96 + service // 60_000}.{service // 250 % 250}.{service % 250 + 1}"


def pod(service: int, at: int) -> str:
    number = service * ENDPOINTS + at
    return f"10.{128 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"


POD = Endpoint(pod(OF, 3), 8080)


def chain_of(service: int) -> str:
    return f"service-{'ABCDEFGH'[service % 8] * 8}-ns-{service // 100}/svc-{service}/tcp/http"


def nft_json(is_affine: bool, shown: range = range(SERVICES)) -> bytes:
    """`nft -j list ruleset`: one rule per Service (1.36), or a chain per endpoint (1.31 to 1.35, and affinity).

    With ``shown``, `nft -j list map|chain`: the map of all Services, but the chains of these only.
    """
    key = {"concat": [_payload("ip", "daddr"), {"meta": {"key": "l4proto"}}, _payload("th", "dport")]}
    rows = [[{"concat": [vip(one), "tcp", 80]}, _goto(chain_of(one))] for one in range(SERVICES)]
    chains: dict[str, list[list[Any]]] = {
        "nat-prerouting": [[{"jump": {"target": "services"}}]],
        "nat-output": [[{"jump": {"target": "services"}}]],
        "services": [[{"vmap": {"key": key, "data": "@service-ips"}}]],
    }
    for service in shown:
        chains |= _per_endpoint(service) if is_affine else {chain_of(service): [_one_rule(service)]}
    objects: list[Any] = [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}]
    objects.append({"table": {"family": "ip", "name": "kube-proxy", "handle": 1}})
    addresses = [vip(service) for service in range(SERVICES)]
    objects.append({"set": {**_OWN, "name": "cluster-ips", "type": "ipv4_addr", "elem": addresses}})
    objects.append({"map": {**_OWN, "name": "service-ips", "type": "ipv4_addr", "map": "verdict", "elem": rows}})
    for name in chains:
        hook = {"type": "nat", "hook": name.removeprefix("nat-"), "prio": -100, "policy": "accept"}
        objects.append({"chain": {**_OWN, "name": name, "handle": 1, **(hook if name.startswith("nat-") else {})}})
    for name, rules in chains.items():
        objects += [{"rule": {**_OWN, "chain": name, "handle": 1, "expr": rule}} for rule in rules]
    return msgspec.json.encode({"nftables": objects})


def _payload(protocol: str, name: str) -> Any:
    return {"payload": {"protocol": protocol, "field": name}}


def _goto(chain: str) -> Any:
    return {"goto": {"target": chain}}


def _numgen() -> Any:
    return {"numgen": {"mode": "random", "mod": ENDPOINTS, "offset": 0}}


def _tcp() -> Any:
    return {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}


def _one_rule(service: int) -> list[Any]:
    rows = [[at, {"concat": [pod(service, at), 8080]}] for at in range(ENDPOINTS)]
    return [_tcp(), {"dnat": {"family": "ip", "addr": {"map": {"key": _numgen(), "data": {"set": rows}}}}}]


def _per_endpoint(service: int) -> dict[str, list[list[Any]]]:
    names = [f"endpoint{chain_of(service)[7:]}__{pod(service, at)}/8080" for at in range(ENDPOINTS)]
    rows = [[at, _goto(name)] for at, name in enumerate(names)]
    found = {chain_of(service): [[{"vmap": {"key": _numgen(), "data": {"set": rows}}}]]}
    for at, name in enumerate(names):
        found[name] = [[_tcp(), {"dnat": {"addr": pod(service, at), "port": 8080}}]]
    return found


def iptables_save() -> str:
    """`iptables-save -t nat` in large-cluster mode."""
    chains, services, rules = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING", "KUBE-SERVICES"], [], []
    for service in range(SERVICES):
        chains.append(f"KUBE-SVC-{service:016}")
        services.append(f"-A KUBE-SERVICES -d {vip(service)}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{service:016}")
        for at in range(ENDPOINTS):
            chance = f"-m statistic --mode random --probability 0.{at + 2}0000000000 " if at < ENDPOINTS - 1 else ""
            chains.append(f"KUBE-SEP-{service:015}{at}")
            rules.append(f"-A KUBE-SVC-{service:016} {chance}-j KUBE-SEP-{service:015}{at}")
            rules.append(
                f"-A KUBE-SEP-{service:015}{at} -p tcp -m tcp -j DNAT --to-destination {pod(service, at)}:8080"
            )
    heads = [f":{chain} {'ACCEPT' if '-' not in chain else '-'} [0:0]" for chain in chains]
    jumps = ["-A PREROUTING -j KUBE-SERVICES", "-A OUTPUT -j KUBE-SERVICES"]
    lines = ["# Generated by iptables-save v1.8.9 (nf_tables)", "*nat", *heads, *jumps, *services, *rules, "COMMIT", ""]
    return "\n".join(lines)


def connections() -> str:
    """`conntrack -L`."""
    lines = []
    for number in range(CONNECTIONS):
        state = ("ESTABLISHED", "TIME_WAIT", "SYN_SENT")[number % 3]
        source, port = f"10.200.{number // 250 % 250}.{number % 250 + 1}", 1024 + number % 60_000
        service = number % SERVICES
        lines.append(
            f"tcp      6 110 {state} src={source} dst={vip(service)} sport={port} dport=80 "
            f"src={pod(service, 0)} dst={source} sport=8080 dport={port} [ASSURED] mark=0 use=1\n"
        )
    return "".join(lines)


def best(parse: Callable[[], Facts]) -> float:
    """Milliseconds of this process, best of ``ROUNDS``: the rest is other work on the machine. The facts are clean."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        facts = parse()
        found.append((time.process_time() - begun) * 1000)
        assert facts.unreadable == ()
    return min(found)


def run() -> list[Figure]:
    whole = Asking(endpoints=(POD,))
    part = Asking(endpoints=(POD,), services=frozenset({f"ns-{OF // 100}/svc-{OF}"}))
    figures = []
    dumps: list[tuple[str, Callable[..., Facts], Any, Asking, bool]] = [
        ("nft, one map and the chains of one Service", nft.parse, nft_json(True, range(OF, OF + 1)), part, True),
        ("nft 1.36, all: one rule per Service", nft.parse, nft_json(False), whole, True),
        ("nft 1.30 to 1.35, all: a chain per endpoint", nft.parse, nft_json(True), whole, False),
        ("iptables-save, all", iptables.parse, iptables_save(), whole, False),
    ]
    for name, parse, dump, asking, is_held in dumps:
        assert parse(dump, "n1", asking).routes_to(POD)
        taken, note = best(partial(parse, dump, "n1", asking)), f"{len(dump) / 1e6:.1f} MB"
        figures.append(at_most(name, taken, "ms", MS_MAX, note) if is_held else Figure(name, taken, "ms", note=note))
    table = connections()
    note = f"{CONNECTIONS:,} entries, {len(table) / 1e6:.1f} MB"
    figures.append(Figure("conntrack, all", best(partial(conntrack.parse, table, "n1", whole)), "ms", note=note))
    return figures
