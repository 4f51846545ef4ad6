"""The second interpreter: one packet, walked through a dump by hand, with none of the code under test.

Deliberately simple. It reads iptables-save and ``nft -j`` line by line and rule by rule, takes both ways wherever a
rule asks for something a packet here does not have, and returns every destination met. What it does not know at all
it answers with ``None`` in the set: cannot tell.
"""

from __future__ import annotations

import functools
import json
import shlex
from dataclasses import dataclass
from ipaddress import ip_address, ip_network


@dataclass(frozen=True)
class Packet:
    address: str
    protocol: str
    port: int


def through_iptables(dump: str, packet: Packet) -> set[str | None]:
    """``ip:port`` of every destination ``packet`` may get, None among them when it cannot be told."""
    chains = _iptables_chains(dump)
    found: set[str | None] = set()

    def walk(name: str, depth: int) -> bool:
        """Whether the packet may fall out of the chain's end."""
        may_leave = False
        for words in chains.get(name, []):
            if "-j" not in words and "-g" not in words:
                continue
            at = words.index("-j") if "-j" in words else words.index("-g")
            certainty = _iptables_matches(words[:at], packet)
            if certainty == "no":
                continue
            target, options = words[at + 1], words[at + 2 :]
            if target == "DNAT":
                found.add(_at(options[options.index("--to-destination") + 1], packet))
                goes_on = False
            elif target in ("ACCEPT", "DROP", "MASQUERADE"):
                goes_on = False
            elif target == "RETURN":
                if certainty == "yes":
                    return True
                goes_on = may_leave = True
            elif target in ("MARK", "LOG"):
                goes_on = True
            elif target in chains or target.startswith(("KUBE-", "CNI-", "T-")):
                back = walk(target, depth + 1) if depth < 20 else found.add(None) or True
                if words[at] == "-g":
                    may_leave |= back
                    back = False
                goes_on = back
            else:
                found.add(None)
                goes_on = True
            if not goes_on and certainty == "yes":
                return may_leave
        return True

    for hook in ("PREROUTING", "OUTPUT"):
        walk(hook, 0)
    return found


@functools.lru_cache(maxsize=8)
def _iptables_chains(dump: str) -> dict[str, list[list[str]]]:
    chains: dict[str, list[list[str]]] = {}
    is_nat = False
    for line in dump.splitlines():
        if line.startswith("*"):
            is_nat = line == "*nat"
        elif is_nat and "-A " in line:
            _, name, *words = shlex.split(line[line.index("-A ") :])
            chains.setdefault(name, []).append(words)
    return chains


_covering = functools.lru_cache(maxsize=4096)(lambda address, network: ip_address(address) in ip_network(network))


def _iptables_matches(words: list[str], packet: Packet) -> str:
    certainty = "yes"
    at = 0
    while at < len(words):
        word = words[at]
        is_negated = word == "!"
        if is_negated:
            at += 1
            word = words[at]
        value = words[at + 1] if at + 1 < len(words) else ""
        if word == "-d":
            hit = _covering(packet.address, value)
        elif word == "-p":
            hit = packet.protocol == value
        elif word == "--dport":
            low, _, high = value.partition(":")
            hit = int(low) <= packet.port <= int(high or low)
        elif word == "--dports":
            hit = str(packet.port) in value.split(",")
        elif (word == "-m" and value in ("comment", "tcp", "udp", "multiport")) or word == "--comment":
            at += 2
            continue
        else:
            if word in ("-s", "-i") or (word == "-m" and value in FREE):
                certainty = "perhaps"
            at += 1
            continue
        if hit == is_negated:
            return "no"
        at += 2
    return certainty


FREE = ("addrtype", "statistic", "recent", "mark", "nfacct", "conntrack")


def _at(text: str, packet: Packet) -> str:
    address, _, port = text.partition(":")
    return text if port and "-" not in port else f"{address}:{packet.port}"


def through_nft(dump: str, packet: Packet) -> set[str | None]:
    """The same for the IPv4 tables of ``nft -j list ruleset``."""
    tables, sets, hooks = _nft_tables(dump)
    found: set[str | None] = set()
    for table, name in hooks:
        _Nft(packet, tables[table], {key[1]: value for key, value in sets.items() if key[0] == table}, found).walk(name)
    return found


@functools.lru_cache(maxsize=8)
def _nft_tables(dump: str) -> tuple[dict, dict, list[tuple[str, str]]]:
    tables: dict[str, dict[str, list[list[dict]]]] = {}
    sets: dict[tuple[str, str], list] = {}
    hooks: list[tuple[str, str]] = []
    for one in json.loads(dump)["nftables"]:
        ((kind, given),) = one.items()
        if given.get("family") not in ("ip", "inet"):
            continue
        if kind == "chain":
            tables.setdefault(given["table"], {}).setdefault(given["name"], [])
            if given.get("type") == "nat" and given["hook"] in ("prerouting", "output"):
                hooks.append((given["table"], given["name"]))
        elif kind == "rule":
            tables.setdefault(given["table"], {}).setdefault(given["chain"], []).append(given["expr"])
        elif kind in ("set", "map"):
            sets[given["table"], given["name"]] = given.get("elem", [])
    return tables, sets, hooks


class _Nft:
    def __init__(self, packet: Packet, chains: dict, sets: dict, found: set[str | None]) -> None:
        self.packet = packet
        self.chains = chains
        self.sets = sets
        self.found = found

    def walk(self, name: str, depth: int = 0) -> bool:
        """Whether the packet may fall out of the chain's end."""
        if depth > 20:
            self.found.add(None)
            return True
        may_leave = False
        for rule in self.chains.get(name, []):
            ends = self.rule(rule, depth)
            may_leave |= "return" in ends
            if "on" not in ends:
                return may_leave
        return True

    def rule(self, rule: list[dict], depth: int) -> set[str]:
        """What packets like this one may do next: go ``on`` to the next rule, ``return`` from the chain, or ``end``."""
        perhaps: set[str] = set()
        for expression in rule:
            ((kind, given),) = expression.items()
            if kind == "match":
                hit = self.matches(given)
                if hit is False:
                    return perhaps | {"on"}
                perhaps |= set() if hit else {"on"}
            elif kind == "vmap":
                hits, is_certain = self.rows(given)
                ends = [self.verdict(*next(iter(hit.items())), depth) for hit in hits]
                return perhaps.union(*ends, set() if is_certain else {"on"})
            elif kind == "dnat":
                return perhaps | ({"end"} if self.dnat(given) else {"on"})
            elif kind in ("jump", "goto", "accept", "drop", "return"):
                return perhaps | self.verdict(kind, given, depth)
            elif kind not in ("counter", "mangle", "set", "log"):
                self.found.add(None)
                return perhaps | {"on"}
        return {"on"}

    def verdict(self, kind: str, given: dict | None, depth: int) -> set[str]:
        if kind in ("accept", "drop"):
            return {"end"}
        if kind == "return":
            return {"return"}
        if given["target"] not in self.chains:
            self.found.add(None)
        back = self.walk(given["target"], depth + 1)
        return {"end"} if not back else {"return"} if kind == "goto" else {"on"}

    def value(self, left: dict) -> object:
        """The packet's own value of a selector, None when it has none."""
        if left == {"meta": {"key": "l4proto"}}:
            return self.packet.protocol
        payload = left.get("payload", {})
        if payload == {"protocol": "ip", "field": "daddr"}:
            return self.packet.address
        if payload.get("field") == "dport" and payload["protocol"] in ("th", self.packet.protocol):
            return self.packet.port
        return None

    def matches(self, given: dict) -> bool | None:
        left, right = given["left"], given["right"]
        if (
            left.get("payload", {}).get("protocol") in ("tcp", "udp")
            and self.packet.protocol != left["payload"]["protocol"]
        ):
            return False
        value = self.value(left)
        if value is None:
            return None
        if isinstance(right, str) and right.startswith("@"):
            if right[1:] not in self.sets:
                self.found.add(None)
                return None
            hit = any(_covers(element, value) for element in self.sets[right[1:]])
        elif isinstance(right, dict) and "set" in right:
            hit = any(_covers(element, value) for element in right["set"])
        else:
            hit = _covers(right, value)
        return hit == (given["op"] == "==")

    def rows(self, given: dict) -> tuple[list, bool]:
        """The rows the packet may hit, and whether it certainly hits one."""
        data = given["data"]
        if isinstance(data, str):
            if data[1:] not in self.sets:
                self.found.add(None)
            rows = self.sets.get(data[1:], [])
        else:
            rows = data["set"]
        keys = given["key"].get("concat", [given["key"]])
        values = [self.value(key) for key in keys]
        hits = []
        for key, outcome in rows:
            parts = key.get("concat", [key]) if isinstance(key, dict) else [key]
            if all(value is None or _covers(part, value) for part, value in zip(parts, values, strict=True)):
                hits.append(outcome)
        numgen = given["key"].get("numgen")
        is_certain = bool(hits) if None not in values else bool(numgen and len(hits) >= numgen["mod"])
        return hits, is_certain

    def dnat(self, given: dict) -> bool:
        """Whether it certainly translates."""
        address = given["addr"]
        if isinstance(address, dict) and "map" in address:
            hits, is_certain = self.rows(address["map"])
            for hit in hits:
                self.found.add(f"{hit['concat'][0]}:{hit['concat'][1]}")
            return is_certain
        self.found.add(f"{address}:{given.get('port', self.packet.port)}")
        return True


def _covers(element: object, value: object) -> bool:
    if isinstance(element, dict) and "prefix" in element:
        prefix = element["prefix"]
        return isinstance(value, str) and _covering(value, f"{prefix['addr']}/{prefix['len']}")
    return element == value
