"""One rule of nftables as the kernel tells it (NFT_MSG_NEWRULE), taken apart but not understood."""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack

from tidegate.dataplane.netlink import attributes, last_nested, leading_texts, number, text

_TABLE, _CHAIN, HANDLE, EXPRESSIONS, POSITION, _USERDATA = 1, 2, 3, 4, 6, 7
HANDLE_HERE, POSITION_HERE = pack("=HH", 12, HANDLE), pack("=HH", 12, POSITION)


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
    expressions = given.get(EXPRESSIONS, b"")
    return RawRule(text(given, _TABLE), text(given, _CHAIN), number(given, HANDLE), expressions, comment)


def expressions_of(body: bytes, at: int = 0) -> bytes:
    """The expressions alone; ``at``: where it goes on behind the chain's name, as far as that is known. Raises
    ``Malformed``."""
    found = _plain_expressions(body, at) if at else None
    return rule_of(body).expressions if found is None else found[0]


def _plain_rule(body: bytes) -> RawRule | None:
    """One with nothing beside its expressions, as nearly all are; None for another."""
    led = leading_texts(body)
    found = None if led is None else _plain_expressions(body, led[2])
    return None if led is None or found is None else RawRule(led[0], led[1], found[1], found[0])


def _plain_expressions(body: bytes, at: int) -> tuple[bytes, int] | None:
    """And the handle, of such a rule."""
    if body[at : at + 4] != HANDLE_HERE:
        return None
    at += 12
    expressions = last_nested(body, at + 12 if body[at : at + 4] == POSITION_HERE else at, EXPRESSIONS)
    return None if expressions is None else (expressions, int.from_bytes(body[at - 8 : at], "big"))


def _comment(userdata: bytes) -> str:
    """What nft keeps beside a rule for people: rows of type, length, value (libnftnl/udata.h)."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == 0:
            return userdata[at + 2 : at + 2 + length].partition(b"\0")[0].decode(errors="replace")
        at += 2 + length
    return ""
