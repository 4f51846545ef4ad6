"""Where the rules of nftables are read from, and the numbers of its messages.

include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

SUBSYSTEM = 10 << 8
NEW_TABLE, DEL_TABLE, NEW_CHAIN, DEL_CHAIN, NEW_RULE, DEL_RULE = 0, 2, 3, 5, 6, 8
NEW_SET, DEL_SET, NEW_ELEMENT, DEL_ELEMENT, NEW_GENERATION = 9, 11, 12, 14, 15
FAMILIES = {
    1: ("inet", (4, 6)),
    2: ("ip", (4,)),
    10: ("ip6", (6,)),
    3: ("arp", ()),
    5: ("netdev", ()),
    7: ("bridge", ()),
}


class Changed(Exception):
    """What was to be read is not there any more: the rules changed meanwhile."""


class Source(Protocol):
    """Reads the kernel. Every method raises ``OSError``, ``Malformed``, and ``Changed``."""

    def tables(self) -> list[bytes]: ...

    def chains(self) -> Iterator[bytes]: ...

    def rules(self, family: int, table: str, chain: str) -> Iterator[bytes]: ...

    def every_rule(self, family: int, table: str) -> Iterator[bytes]: ...

    def sets(self) -> Iterator[bytes]: ...

    def elements(self, family: int, table: str, name: str) -> bytes: ...

    def numbered(self, family: int, table: str, wanted: list[tuple[str, int]]) -> Iterator[tuple[str, bytes]]: ...
