"""iptables' own matches and targets, as iptables-nft keeps them in nftables: a name, a revision and a C struct.

Structs: include/uapi/linux/netfilter/{xt_tcpudp,xt_multiport,xt_comment,nf_nat}.h, numbers in the machine's order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tidegate.dataplane.iptables import FREE_MATCHES, PASSING_TARGETS
from tidegate.dataplane.rules import (
    DPORT,
    TARGETS_MAX,
    Dnat,
    Maybe,
    NotUnderstood,
    Region,
    Step,
    Target,
    Test,
    Verdict,
    complement,
    region_of,
)

_MAP_IPS, _PROTO_SPECIFIED, _HARMLESS = 1, 2, 4 | 8 | 0x10
"""NF_NAT_RANGE_*: PROTO_RANDOM, PERSISTENT and PROTO_RANDOM_FULLY choose the source port or the endpoint."""
_OLD_RANGE = struct.Struct("=II4s4s2s2s")
_PORTS = struct.Struct("=4H")


@dataclass(frozen=True, slots=True)
class Extension:
    """One match or target of a rule for packets of ``family``."""

    name: str
    revision: int
    data: bytes
    family: int


def match_steps(given: Extension) -> list[Step]:
    """What a match asks of a packet. Raises ``NotUnderstood``."""
    if given.name in ("tcp", "udp"):
        return _ports(given)
    if given.name == "multiport":
        return _multiport(given)
    if given.name == "comment":
        return []
    if given.name in FREE_MATCHES or given.name == "iprange":
        return [Maybe()]
    raise NotUnderstood(f"match {given.name}")


def comment_of(given: Extension) -> str:
    """The text of a comment, "" of any other match."""
    return given.data.partition(b"\0")[0].decode(errors="replace") if given.name == "comment" else ""


def target_steps(given: Extension) -> list[Step]:
    """What a target does with a packet. Raises ``NotUnderstood``."""
    if given.name == "DNAT":
        return [Dnat((_target(given),))]
    if given.name == "REDIRECT":
        found = _target(given)
        return [Dnat((Target(None, None, found.port, is_here=True),))]
    if given.name in ("MASQUERADE", "SNAT"):
        return [Verdict("accept")]
    if given.name == "REJECT":
        return [Verdict("drop")]
    if given.name in PASSING_TARGETS:
        return []
    raise NotUnderstood(f"target {given.name}")


def _ports(given: Extension) -> list[Step]:
    """struct xt_tcp, xt_udp: source ports, destination ports; of TCP option and flags; what is turned round."""
    is_tcp = given.name == "tcp"
    if given.revision or len(given.data) < (12 if is_tcp else 9):
        raise NotUnderstood(f"match {given.name}, revision {given.revision}")
    first_source, last_source, low, high = _PORTS.unpack_from(given.data)
    option, mask, _, inverted = given.data[8:12] if is_tcp else (0, 0, 0, given.data[8])
    if inverted & ~0xF:
        raise NotUnderstood(f"match {given.name} turned round by {inverted}")
    steps: list[Step] = []
    if (low, high) != (0, 65535) or inverted & 2:
        region: Region = region_of([(low, high)]) if low <= high else ()
        steps.append(Test(DPORT, complement(region, 65535) if inverted & 2 else region))
    if (first_source, last_source) != (0, 65535) or option or mask or inverted & ~2:
        steps.append(Maybe())
    return steps


def _multiport(given: Extension) -> list[Step]:
    """struct xt_multiport_v1."""
    if given.revision != 1 or len(given.data) < 48 or given.data[1] > 15 or given.data[0] > 2:
        raise NotUnderstood(f"match multiport, revision {given.revision}")
    which, count = given.data[0], given.data[1]
    if which != 1:
        return [Maybe()]
    ports = struct.unpack_from("=15H", given.data, 2)[:count]
    opens_range, is_inverted = given.data[32:47], given.data[47]
    pairs, at = [], 0
    while at < count:
        width = 2 if opens_range[at] else 1
        pairs.append((ports[at], ports[min(at + width, count) - 1]))
        at += width
    region = region_of((low, high) for low, high in pairs if low <= high)
    return [Test(DPORT, complement(region, 65535) if is_inverted else region)]


def _target(given: Extension) -> Target:
    """struct nf_nat_ipv4_multi_range_compat (IPv4, DNAT before revision 2), nf_nat_range, nf_nat_range2."""
    data, is_four = given.data, given.family == 4
    if is_four and (given.name == "REDIRECT" or given.revision < 2):
        if len(data) < _OLD_RANGE.size:
            raise NotUnderstood(f"target {given.name} of {len(data)} bytes")
        count, flags, low, high, first, last = _OLD_RANGE.unpack_from(data)
        if count != 1:
            raise NotUnderstood(f"target {given.name} to {count} ranges")
    elif given.revision <= 2 and len(data) >= 40:
        flags = int.from_bytes(data[:4], "little")
        width = 4 if is_four else 16
        low, high, first, last = data[4 : 4 + width], data[20 : 20 + width], data[36:38], data[38:40]
    else:
        raise NotUnderstood(f"target {given.name}, revision {given.revision}")
    if flags & ~(_MAP_IPS | _PROTO_SPECIFIED | _HARMLESS):
        raise NotUnderstood(f"target {given.name} with flags {flags:#x}")
    port = int.from_bytes(first, "big") if flags & _PROTO_SPECIFIED else None
    if port is not None and first != last:
        port = 0
    elif port == 0:
        raise NotUnderstood(f"target {given.name} to port 0")
    if not flags & _MAP_IPS:
        return Target(None, None, port)
    ends = int.from_bytes(low, "big"), int.from_bytes(high, "big")
    if not 0 <= ends[1] - ends[0] < TARGETS_MAX:
        raise NotUnderstood(f"target {given.name} to {ends[1] - ends[0] + 1} addresses")
    return Target(*ends, port)
