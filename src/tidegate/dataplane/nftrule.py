"""One rule of nftables as the kernel tells it (NFT_MSG_NEWRULE), taken apart but not understood."""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack

from tidegate.dataplane.netlink import attributes, last_nested, leading_texts, number, text

_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS, _USERDATA = 1, 2, 3, 4, 7
_HANDLE_HERE, _POSITION_HERE = pack("=HH", 12, _HANDLE), pack("=HH", 12, 6)


@dataclass(frozen=True, slots=True)
class RawRule:
    """One rule, not yet understood."""

    table: str
    chain: str
    handle: int
    expressions: bytes
    comment: str = ""


def rule_of(body: bytes) -> RawRule:
    """From an NFT_MSG_NEWRULE. Raises ``Malformed``."""
    if (plain := _plain_rule(body)) is not None:
        return plain
    given = attributes(body[4:])
    comment = _comment(given[_USERDATA]) if _USERDATA in given else ""
    expressions = given.get(_EXPRESSIONS, b"")
    return RawRule(text(given, _TABLE), text(given, _CHAIN), number(given, _HANDLE), expressions, comment)


def _plain_rule(body: bytes) -> RawRule | None:
    """One with nothing beside its expressions, as nearly all are; None for another."""
    led = leading_texts(body)
    if led is None or body[led[2] : led[2] + 4] != _HANDLE_HERE:
        return None
    at = led[2] + 12
    expressions = last_nested(body, at + 12 if body[at : at + 4] == _POSITION_HERE else at, _EXPRESSIONS)
    if expressions is None:
        return None
    return RawRule(led[0], led[1], int.from_bytes(body[at - 8 : at], "big"), expressions)


def _comment(userdata: bytes) -> str:
    """What nft keeps beside a rule for people: rows of type, length, value (libnftnl/udata.h)."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == 0:
            return userdata[at + 2 : at + 2 + length].partition(b"\0")[0].decode(errors="replace")
        at += 2 + length
    return ""
