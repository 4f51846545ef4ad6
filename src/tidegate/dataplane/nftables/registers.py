"""The registers of a rule of nftables while it is run: which bytes of them are what of a packet.

Numbers: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from tidegate.dataplane.netlink import Malformed, number
from tidegate.dataplane.nftables.sets import Column, KernelSet, thins
from tidegate.dataplane.rules import DADDR, DPORT, PROTO

NFPROTO = -1
"""The column of a load that tells the family."""
PADDING = -2
_WORDS = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """``width`` bytes of a register: from ``at`` on of a packet's field, or (None) of what is not followed."""

    field: int | None
    at: int
    width: int


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """What a map gave for a key: the data of one of ``found``'s elements. ``at`` is its Maybe among the steps."""

    found: KernelSet
    columns: tuple[Column, ...]
    is_certain: bool
    at: int


@dataclass(frozen=True, eq=False, slots=True)
class Load:
    """What one expression put into registers."""

    pieces: tuple[Piece, ...]
    size: int
    prefix: int = -1
    """Only so many bits of its one field are in it."""
    value: bytes | None = None
    choice: Choice | None = None
    hole: int = -1
    """Which of the rule's constants ``value`` is, where another would do as well (``wire._Pattern``)."""
    numbers: tuple[int, int] = (0, 0)
    """A number from the first to below the second."""


@lru_cache(maxsize=64)
def other(length: int) -> Load:
    return Load((Piece(None, 0, length),), length)


@lru_cache(maxsize=1024)
def payload_pieces(family: int, base: int, at: int, length: int) -> tuple[Piece, ...]:
    """Which bytes of a header are followed: of the network header (base 1), of the transport header (2)."""
    if base == 1:
        known = [(16, 4, DADDR), (9, 1, PROTO)] if family == 4 else [(24, 16, DADDR), (6, 1, PROTO)]
    else:
        known = [(2, 2, DPORT)] if base == 2 else []
    pieces: list[Piece] = []
    place = at
    while place < at + length:
        for start, size, which in known:
            if start <= place < start + size:
                count = min(start + size, at + length) - place
                pieces.append(Piece(which, place - start, count))
                place += count
                break
        else:
            following = [start for start, _, _ in known if start > place]
            count = min([at + length, *following]) - place
            pieces.append(Piece(None, 0, count))
            place += count
    return tuple(pieces)


@dataclass(eq=False, slots=True)
class Registers:
    """``words``: register word -> what was loaded, and which word of it."""

    words: dict[int, tuple[Load, int]] = field(default_factory=dict)

    def put(self, given: dict[int, bytes], kind: int, load: Load) -> None:
        at = word_of(number(given, kind))
        for index in range(max(1, load.size + 3 >> 2)):
            self.words[at + index] = (load, index)

    def get(self, given: dict[int, bytes], kind: int, length: int) -> Load:
        """``length`` bytes of registers: one load, or several side by side, each padded to a word."""
        at = word_of(number(given, kind))
        load = self._whole(at)
        if load is not None and load.size == length:
            return load
        pieces: list[Piece] = []
        place = 0
        while place < length:
            load = self._whole(at + (place >> 2))
            if load is None or load.prefix >= 0 or place + load.size > length:
                pieces.append(Piece(None, 0, min(4, length - place)))
                place += 4
                continue
            pieces += load.pieces
            place += load.size
            if padding := min(-load.size & 3, length - place):
                pieces.append(Piece(PADDING, 0, padding))
                place += padding
        return Load(tuple(pieces), length)

    def _whole(self, at: int) -> Load | None:
        """The load that begins at a word, when nothing was put over the rest of it since."""
        load, index = self.words.get(at, (None, 0))
        if load is None or index or any(self.words[at + more] != (load, more) for more in range(1, load.size + 3 >> 2)):
            return None
        return load


def word_of(register: int) -> int:
    """Registers are numbered in two ways: 1 to 4 of sixteen bytes, 8 to 23 of four bytes, the same ones."""
    if 1 <= register <= 4:
        return (register - 1) * 4
    if 8 <= register < 8 + _WORDS:
        return register - 8
    raise Malformed(f"register {register}")


def size_of(which: int, family: int) -> int:
    return 1 if which == PROTO else 2 if which == DPORT else 4 if family == 4 else 16


def whole_field(load: Load, family: int) -> int | None:
    """The field that ``load`` holds the whole of, and nothing else."""
    if len(load.pieces) != 1:
        return None
    [piece] = load.pieces
    if piece.field is None or piece.field < 0 or piece.at or piece.width != size_of(piece.field, family):
        return None
    return piece.field


def columns_of(load: Load, family: int) -> tuple[Column, ...]:
    """The key in ``load``, field by field."""
    found, at = [], 0
    for piece in load.pieces:
        is_whole = piece.field is not None and piece.field >= 0 and not piece.at
        if is_whole and load.prefix < 0 and piece.width == size_of(piece.field or 0, family):
            found.append(Column(piece.field, at, piece.width))
        elif piece.field != PADDING:
            found.append(Column(None, at, piece.width))
        at += piece.width
    return tuple(found)


def prefix_of(mask: bytes) -> int | None:
    """How many bits lead a mask that is all ones and then all noughts."""
    whole = int.from_bytes(mask, "big")
    free = (~whole & ((1 << 8 * len(mask)) - 1)).bit_length()
    return 8 * len(mask) - free if whole == (1 << 8 * len(mask)) - (1 << free) else None


def is_certain(load: Load, found: KernelSet) -> bool:
    """Whether a random number has a row, whichever it is. Numbers are in the machine's order."""
    first, end = load.numbers
    if not 0 < end - first <= len(found.elements) or thins(found) or found.is_dynamic:
        return False
    keys = {int.from_bytes(one.low, "little") for one in found.elements if one.low is not None and one.low == one.high}
    return keys.issuperset(range(first, end))
