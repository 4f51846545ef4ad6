"""Which data plane printed this? A saved dump of any of them -> ``Facts``."""

from __future__ import annotations

import re
from collections.abc import Callable

from tidegate.dataplane import conntrack, iptables, ipvs, nft
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.dataplane.frontends import EVERYTHING, Asking

Parser = Callable[[str, str, Asking], Facts]

FORMATS: dict[str, Parser] = {
    "nft-json": nft.parse,
    "nft": nft.parse_text,
    "iptables-save": iptables.parse,
    "ipvsadm": ipvs.parse,
    "conntrack": conntrack.parse,
}

_SIGNS = (
    ("nft-json", re.compile(r"\s*\{\s*\"nftables\"\s*:")),
    ("iptables-save", re.compile(r"(?:#[^\n]*\n|\s*\n)*\*(?:nat|filter|mangle|raw|security)\s*\n")),
    ("nft", re.compile(r"(?:#[^\n]*\n|\s*\n)*table (?:ip|ip6|inet|arp|bridge|netdev) \S+ \{")),
    ("ipvsadm", re.compile(r"\s*(?:IP Virtual Server version|-A (?:-t|-u|-f|--sctp-service) )")),
    ("conntrack", re.compile(r"\s*(?:ipv[46] +\d+ +)?(?:tcp|udp|icmp|icmpv6|sctp|unknown|gre|dccp) +\d+ ")),
)


def format_of(dump: str) -> str | None:
    """The format by how the dump begins, None when it begins like none."""
    return next((name for name, sign in _SIGNS if sign.match(dump)), None)


def read(dump: str, name: str | None = None, source: str = "", asking: Asking = EVERYTHING) -> Facts:
    """Facts from ``dump`` in format ``name``, or in the one it looks like. Never raises; an empty one is unreadable."""
    if not dump.strip():
        return Facts(source, "", unreadable=(Unreadable("the dump is empty"),))
    found = name or format_of(dump)
    if found is None:
        known = ", ".join(FORMATS)
        return Facts(source, "", unreadable=(Unreadable(f"it begins like none of {known}: {dump.lstrip()[:60]!r}"),))
    return FORMATS[found](dump, source, asking)
