"""Messages and attributes of netlink (include/uapi/linux/netlink.h), as bytes.

Everything here raises ``Malformed`` for what does not add up, and nothing else: hostile bytes end there.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
HEADER_BYTES = _HEADER.size
NLMSG_ERROR, NLMSG_DONE = 2, 3
DUMP_INTR = 0x10
"""NLM_F_DUMP_INTR: what is dumped changed meanwhile, so that the dump is of no moment."""
_KIND = 0x3FFF
"""Above it are NLA_F_NESTED and NLA_F_NET_BYTEORDER."""


class Malformed(ValueError):
    """Bytes that no kernel wrote, or that were cut short."""


class Message(NamedTuple):
    """One message; ``body`` begins behind its header."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def request(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message to the kernel."""
    return _HEADER.pack(HEADER_BYTES + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) & 3)


def messages(data: bytes) -> list[Message]:
    """The messages of one datagram. Raises ``Malformed``."""
    found = []
    at, end = 0, len(data)
    while at < end:
        if end - at < HEADER_BYTES:
            raise Malformed(f"{end - at} bytes behind the last message")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if not HEADER_BYTES <= length <= end - at:
            raise Malformed(f"a message of {length} bytes where {end - at} are left")
        found.append(Message(kind, flags, sequence, data[at + HEADER_BYTES : at + length]))
        at += length + 3 & ~3
    return found


def error_of(message: Message) -> int:
    """The errno of an NLMSG_ERROR or NLMSG_DONE, 0 for none. Raises ``Malformed``."""
    if len(message.body) < 4:
        if message.kind == NLMSG_DONE and not message.body:
            return 0
        raise Malformed("an error message without an error")
    return -int.from_bytes(message.body[:4], "little", signed=True)


def listed(data: bytes) -> list[tuple[int, bytes]]:
    """The attributes in ``data``, in order. Raises ``Malformed``."""
    found = []
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not 4 <= length <= end - at:
            raise Malformed(f"an attribute of {length} bytes where {end - at} are left")
        found.append((kind & _KIND, data[at + 4 : at + length]))
        at += length + 3 & ~3
    if at < end:
        raise Malformed(f"{end - at} bytes behind the last attribute")
    return found


def leading_texts(body: bytes) -> tuple[str, str, int] | None:
    """The strings of attributes 1 and 2, where ``body`` (of nfnetlink) begins with these, and where the next attribute
    is; None for any other. Most of what is told of a commit needs no more."""
    if len(body) < 12:
        return None
    second = 4 + (_ATTRIBUTE.unpack_from(body, 4)[0] + 3 & ~3)
    if second + 4 > len(body):
        return None
    end = second + (_ATTRIBUTE.unpack_from(body, second)[0] + 3 & ~3)
    return _two_texts(body[4:end]) if end <= len(body) else None


@lru_cache(maxsize=256)
def _two_texts(data: bytes) -> tuple[str, str, int] | None:
    """A chain's rules are told one after the other."""
    at, found = 0, []
    for expected in (1, 2):
        if at + 4 > len(data):
            return None
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + 4 : at + length]
        if kind != expected or not 5 <= length <= len(data) - at or value.find(0) != length - 5:
            return None
        found.append(value[:-1].decode(errors="surrogateescape"))
        at += length + 3 & ~3
    return found[0], found[1], 4 + at


def last_nested(body: bytes, at: int, kind: int) -> bytes | None:
    """The value of attribute ``kind`` where it stands at ``at`` of ``body`` and nothing behind it; else None."""
    if at + 4 > len(body):
        return None
    length, found = _ATTRIBUTE.unpack_from(body, at)
    return body[at + 4 :] if found & _KIND == kind and length == len(body) - at else None


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by their kind. Raises ``Malformed``, also for one that stands twice."""
    found = listed(data)
    by_kind = dict(found)
    if len(by_kind) != len(found):
        raise Malformed("an attribute stands twice")
    return by_kind


def number(attributes: dict[int, bytes], kind: int, default: int | None = None) -> int:
    """An attribute that is a number, in network order. Raises ``Malformed`` where it is absent without a default."""
    value = attributes.get(kind)
    if value is None:
        if default is None:
            raise Malformed(f"attribute {kind} is missing")
        return default
    if len(value) not in (1, 2, 4, 8):
        raise Malformed(f"attribute {kind} is a number of {len(value)} bytes")
    return int.from_bytes(value, "big")


def text(attributes: dict[int, bytes], kind: int) -> str:
    """An attribute that is a string. Raises ``Malformed``."""
    value = attributes.get(kind)
    if value is None or not value.endswith(b"\0") or b"\0" in value[:-1]:
        raise Malformed(f"attribute {kind} is no string")
    return value[:-1].decode(errors="surrogateescape")


def name_attribute(kind: int, name: str) -> bytes:
    """A string, as ``text`` reads it."""
    return attribute(kind, name.encode(errors="surrogateescape") + b"\0")
