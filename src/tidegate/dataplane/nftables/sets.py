"""Sets and maps of nftables as the kernel tells them, and what a packet finds in them.

A key is a row of bytes. Which of them are a packet's address, protocol or port, whoever looks up knows
(``Column``); the others are not followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from tidegate.dataplane.netlink import Malformed, attributes, listed, number, text
from tidegate.dataplane.rules import (
    Lookup,
    Maybe,
    NotUnderstood,
    Region,
    Row,
    Step,
    Verdict,
    region_of,
)

# include/uapi/linux/netfilter/nf_tables.h
ANONYMOUS, INTERVAL, MAP, TIMEOUT, EVAL, CONCAT = 1, 4, 8, 0x10, 0x20, 0x80
_SET_NAME, _SET_FLAGS, _SET_KEY_LEN, _SET_DESC = 2, 3, 5, 9
_DESC_CONCAT = 2
_LIST_ELEMENTS = 3
_KEY, _DATA, _FLAGS, _EXPR, _KEY_END, _EXPRESSIONS = 1, 2, 3, 7, 10, 11
_INTERVAL_END, _CATCH_ALL = 1, 2
_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_CODES = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}
_HARMLESS = (b"counter\0", b"last\0")
"""Expressions of an element that let every packet by; a limit does not."""


class Element(NamedTuple):
    """``low`` and ``high`` are its key, or the ends of it; None with None is every key that no other has."""

    low: bytes | None
    high: bytes | None
    data: bytes | tuple[Step, ...] | None
    is_end: bool = False
    is_thinning: bool = False


@dataclass(frozen=True, slots=True)
class KernelSet:
    """One set or map. ``is_dynamic``: packets change it, so that its elements are only what was."""

    name: str
    flags: int
    key_bytes: int
    elements: tuple[Element, ...] = ()

    @property
    def is_dynamic(self) -> bool:
        return bool(self.flags & (TIMEOUT | EVAL))

    @property
    def is_anonymous(self) -> bool:
        return bool(self.flags & ANONYMOUS)


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` bytes of a key from ``at`` on that hold the whole of a followed field, or (None) something else."""

    field: int | None
    at: int
    width: int

    def of(self, key: bytes) -> int:
        return int.from_bytes(key[self.at : self.at + self.width], "big")


def set_of(body: bytes, elements: tuple[Element, ...]) -> KernelSet:
    """From an NFT_MSG_NEWSET. Raises ``Malformed``."""
    given = attributes(body[4:])
    return set_among(given, attributes(given.get(_SET_DESC, b"")), elements)


def set_among(given: dict[int, bytes], described: dict[int, bytes], elements: tuple[Element, ...]) -> KernelSet:
    """From the attributes of an NFT_MSG_NEWSET, and those of its description. Raises ``Malformed``."""
    flags = number(given, _SET_FLAGS, 0)
    if _DESC_CONCAT in described:
        flags |= CONCAT
    return KernelSet(text(given, _SET_NAME), flags, number(given, _SET_KEY_LEN), elements)


def list_of(body: bytes) -> bytes:
    """The elements in an NFT_MSG_NEWSETELEM, as they are. Raises ``Malformed``."""
    return attributes(body[4:]).get(_LIST_ELEMENTS, b"")


def listed_elements(raw: bytes) -> list[Element]:
    """Lists of elements, one behind the other. Raises ``Malformed``, ``NotUnderstood``."""
    return [_element(one) for _, one in listed(raw)]


_PLAIN_KEY = Struct("=HHHH").pack(12, _KEY, 8, _VALUE)
_HEADS = Struct("=HHHH")
_VERDICT_HEADS = Struct("=HHHHHH")
_JUMPS = {(code & 0xFFFFFFFF).to_bytes(4, "big"): _CODES[code] for code in (-3, -4)}


def _plain(raw: bytes) -> Element | None:
    """An element of the two shapes nearly all have, a number that leads to a value or to a chain; None for another.

    A node has 50,000 of them, and attribute by attribute each takes 30 microseconds."""
    size = len(raw)
    if size < 24 or raw[:8] != _PLAIN_KEY:
        return None
    outer, kind, inner, which = _HEADS.unpack_from(raw, 12)
    if kind != _DATA or outer != size - 12 or inner + 4 != outer:
        return None
    key = raw[8:12]
    if which == _VALUE:
        return Element(key, key, raw[20:])
    if which != _VERDICT or size < 38:
        return None
    code_size, code_kind, _, _, length, name_kind = _VERDICT_HEADS.unpack_from(raw, 20)
    verdict_kind = _JUMPS.get(raw[24:28])
    end = 28 + length
    if verdict_kind is None or (code_size, code_kind, name_kind) != (8, _CODE, _CHAIN) or size - end not in range(4):
        return None
    name = raw[32:end]
    if not name or name.find(0) != len(name) - 1:
        return None
    return Element(key, key, (Verdict(verdict_kind, name[:-1].decode(errors="surrogateescape")),))


def _element(raw: bytes) -> Element:
    if (plain := _plain(raw)) is not None:
        return plain
    given = attributes(raw)
    flags = number(given, _FLAGS, 0)
    if flags & ~(_INTERVAL_END | _CATCH_ALL):
        raise Malformed(f"an element with flags {flags}")
    low = _value(given[_KEY]) if _KEY in given else None
    high = _value(given[_KEY_END]) if _KEY_END in given else low
    if (low is None) != bool(flags & _CATCH_ALL):
        raise Malformed("an element without a key")
    expressions = [given[_EXPR]] if _EXPR in given else [one for _, one in listed(given.get(_EXPRESSIONS, b""))]
    is_thinning = any(attributes(one).get(1) not in _HARMLESS for one in expressions)
    data = _data(given[_DATA]) if _DATA in given else None
    return Element(low, high, data, bool(flags & _INTERVAL_END), is_thinning)


def _value(nested: bytes) -> bytes:
    value = attributes(nested).get(_VALUE)
    if value is None:
        raise Malformed("a key without a value")
    return value


def _data(nested: bytes) -> bytes | tuple[Step, ...]:
    given = attributes(nested)
    return verdict(given[_VERDICT]) if _VERDICT in given else _value(nested)


def verdict(nested: bytes) -> tuple[Step, ...]:
    """From an NFTA_DATA_VERDICT. Raises ``Malformed``, ``NotUnderstood``."""
    given = attributes(nested)
    code = int.from_bytes(given.get(_CODE, b""), "big", signed=True) if _CODE in given else 0xDEAD
    kind = _CODES.get(code)
    if kind is None:
        raise NotUnderstood(f"verdict {code}")
    if kind == "continue":
        return ()
    return (Verdict(kind, text(given, _CHAIN) if kind in ("jump", "goto") else ""),)


Outcome = Callable[[Element], tuple[Step, ...]]


def verdict_of(element: Element) -> tuple[Step, ...]:
    """What an element of a verdict map says."""
    if not isinstance(element.data, tuple):
        raise NotUnderstood("a map element without a verdict")
    return element.data


def nothing_more(element: Element) -> tuple[Step, ...]:
    """What an element of a set says: the rest of the rule follows."""
    del element
    return ()


def looked_up(found: KernelSet, columns: tuple[Column, ...], outcome: Outcome) -> Lookup:
    """A packet's way through ``found``. Raises ``NotUnderstood``."""
    if found.is_dynamic:
        raise NotUnderstood(f"packets change @{found.name}: a dump tells only what was")
    exact: dict[tuple[int, ...], tuple[Step, ...]] = {}
    ranged: list[Row] = []
    fields = tuple(column.field for column in columns)
    is_plain = None not in fields
    for element in _whole(found):
        steps = (Maybe(), *outcome(element)) if element.is_thinning else outcome(element)
        if is_plain and element.low is not None and element.low == element.high:
            exact[tuple([column.of(element.low) for column in columns])] = steps
        else:
            ranged.append((tuple(_region(column, element) for column in columns), steps))
    ranged.sort(key=lambda row: all(column is None for column in row[0]))
    return Lookup("" if found.is_anonymous else found.name, fields, exact, tuple(ranged))


def region_in(found: KernelSet, column: Column) -> Region:
    """The values of a field for which the key is in ``found``."""
    regions = [_region(column, element) for element in _whole(found)]
    if None in regions:
        return None
    return region_of(pair for region in regions for pair in region or ())


def thins(found: KernelSet) -> bool:
    """Whether being in it is not all that a packet needs to pass."""
    return any(element.is_thinning for element in found.elements)


def _region(column: Column, element: Element) -> Region:
    if column.field is None or element.low is None or element.high is None:
        return None
    low, high = column.of(element.low), column.of(element.high)
    if high < low:
        raise NotUnderstood(f"an element from {low} to {high}")
    return ((low, high),)


def _whole(found: KernelSet) -> list[Element]:
    """The elements with both their ends: an interval of one field is told as a beginning and, maybe, an end beside."""
    for element in found.elements:
        for end in (element.low, element.high):
            if end is not None and len(end) != found.key_bytes:
                raise NotUnderstood(f"a key of {len(end)} bytes in @{found.name}, whose keys have {found.key_bytes}")
    if not found.flags & INTERVAL or found.flags & CONCAT:
        return list(found.elements)
    marks = sorted((one for one in found.elements if one.low is not None), key=lambda one: (one.low, not one.is_end))
    whole = [one for one in found.elements if one.low is None]
    for at, mark in enumerate(marks):
        if mark.is_end or mark.low is None:
            continue
        above = marks[at + 1].low if at + 1 < len(marks) else None
        last = (1 << 8 * found.key_bytes) - 1 if above is None else int.from_bytes(above, "big") - 1
        if last < int.from_bytes(mark.low, "big"):
            raise NotUnderstood(f"two elements of @{found.name} begin at one key")
        whole.append(Element(mark.low, last.to_bytes(found.key_bytes, "big"), mark.data, is_thinning=mark.is_thinning))
    return whole
