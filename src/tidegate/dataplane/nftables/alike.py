"""Expressions of rules as the kernel tells them: which are the same in thousands of rules, but for what.

A node of 10,000 Services has 100,000 rules of three patterns, and attribute by attribute each takes 100 microseconds.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from struct import Struct, pack

from tidegate.dataplane.netlink import Malformed, attributes, text

FOUR_BYTES = pack("=HH", 8, 1)
_COUNTER, _COMPARISON = pack("=HH", 12, 1) + b"counter\0", pack("=HH", 8, 1) + b"cmp\0"
_COUNTED = _COUNTER + pack("=HH", 28, 2)
_COUNTER_BYTES = 40
_LOOKS_UP = b"lookup\0"
_LOOKUP, _NAMED = pack("=HH", 11, 1) + b"lookup\0\0", Struct("=HHHH")
"""And behind it: its attributes, and in front of the name of a set."""
_IMMEDIATE = pack("=HH", 14, 1) + b"immediate\0\0\0"
_JUMP, _JUMP_BYTES = Struct("=HH8sHHHH8sHH"), 48
"""Behind its name: its attributes, no register, what it holds, a verdict, which one, and in front of a chain's name."""
_NO_REGISTER = pack("=HH", 8, 1) + bytes(4)
_JUMPS = frozenset(pack("=HH", 8, 1) + (code & 0xFFFFFFFF).to_bytes(4, "big") for code in (-3, -4))


def _read_expression(raw: bytes) -> tuple[str, dict[int, bytes]]:
    given = attributes(raw)
    return text(given, 1), attributes(given.get(2, b""))


_known_expression = lru_cache(maxsize=512)(_read_expression)
_ENDING_IN_VALUES = {"cmp": 3, "immediate": 2}


@lru_cache(maxsize=512)
def _but_its_value(head: bytes) -> tuple[str, dict[int, bytes], int, bytes] | None:
    """What is known of a comparison or a constant whose last four bytes are (the end of) its value: its name, its
    attributes, which of them ends in the value, and how that begins; None for all else."""
    try:
        (name, given), (_, other_given) = (_read_expression(head + end) for end in (bytes(4), b"\xff" * 4))
    except Malformed:
        return None
    kind = _ENDING_IN_VALUES.get(name, 0)
    if [one for one in given if given[one] != other_given.get(one)] != [kind]:
        return None
    return name, given, kind, given[kind][:-4]


def expression_of(raw: bytes) -> tuple[str, dict[int, bytes]]:
    """The name and the attributes of one expression: most are the same, or but for a value, in thousands of rules.
    Raises ``Malformed``."""
    found = _but_its_value(raw[:-4])
    if found is None:
        return _known_expression(raw)
    name, given, kind, head = found
    return name, {**given, kind: head + raw[-4:]}


@lru_cache(maxsize=512)
def _is_hole(head: bytes) -> bool:
    """Whether ``head``, and four bytes more that are one value, are a comparison with it or the loading of it."""
    found = _but_its_value(head)
    return found is not None and found[3] == FOUR_BYTES


def apart(raw: bytes) -> tuple[bytes, bytes | None]:
    """What is alike in expressions that mean the same but for one constant, or but for what they have counted, and the
    constant, if there is one."""
    begins = raw[:8]
    if begins == _COUNTER[:8] and raw[:12] == _COUNTER:
        return _COUNTER, None
    if begins == _IMMEDIATE[:8] and (found := _ending_in_chain(raw)) is not None:
        return found
    if begins == _LOOKUP[:8] and (found := _of_own_map(raw)) is not None:
        return found
    if (begins == _COMPARISON or begins == _IMMEDIATE[:8]) and _is_hole(raw[:-4]):
        return raw[:-4], raw[-4:]
    return raw + b"=", None


def _ending_in_chain(raw: bytes) -> tuple[bytes, bytes] | None:
    """Of a jump or a goto, which it is, and where to; None for one that is not laid out as usual."""
    size = len(raw)
    if size < _JUMP_BYTES + 4 or raw[:16] != _IMMEDIATE:
        return None
    whole, _, register, data, _, verdict_, _, code, length, kind = _JUMP.unpack_from(raw, 16)
    end = _JUMP_BYTES - 4 + length
    name = raw[_JUMP_BYTES:end]
    if (whole, data, verdict_) != (size - 16, size - 28, size - 32) or size - end not in range(4):
        return None
    if register != _NO_REGISTER or code not in _JUMPS or kind != 2 or name.find(0) != len(name) - 1:
        return None
    return _IMMEDIATE + code, name[:-1]


def _of_own_map(raw: bytes) -> tuple[bytes, bytes] | None:
    """Of a look into an anonymous map, all but its name, and that; None for any other."""
    if raw[:12] != _LOOKUP or len(raw) < 24:
        return None
    whole, _, length, kind = _NAMED.unpack_from(raw, 12)
    name = raw[20 : 16 + length]
    if whole != len(raw) - 12 or kind != 1 or not name.startswith(b"__map") or name.find(0) != length - 5:
        return None
    return _LOOKUP + raw[16 + (length + 3 & ~3) :], name[:-1]


def lasting_digest(expressions: bytes) -> bytes:
    """Two rules of one digest mean the same as long as nobody changes a set; empty for one that looks something up.
    What they have counted is left out."""
    if _LOOKS_UP in expressions:
        return b""
    at = expressions.find(_COUNTED)
    if at >= 0:
        expressions = expressions[: at + len(_COUNTED)] + expressions[at + _COUNTER_BYTES :]
    return hashlib.blake2b(expressions, digest_size=16).digest()
