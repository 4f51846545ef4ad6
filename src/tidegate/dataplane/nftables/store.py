"""The sets of one table of nftables, kept current by what the kernel tells of commits.

To find a set by its name the kernel walks the list of all sets: 0.3 ms of 10,000, and a Service has one of its own.
Anonymous sets never change, so each is fetched once, or heard of once when it is made, and kept compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from tidegate.dataplane.netlink import Malformed, attributes, last_nested, number, text
from tidegate.dataplane.nftables.sets import ANONYMOUS, CONCAT, INTERVAL, MAP, KernelSet, listed_elements, set_among
from tidegate.dataplane.rules import NotUnderstood

_LIST_SET, _LIST_ELEMENTS = 2, 3
_NAME, _DESC, _HANDLE = 2, 9, 16
_DESC_SIZE = 1
_AS_IT_IS, _COMPRESSED = b"=", b"z"
PLAIN_BYTES_MAX = 256
"""To compress five rows takes 20 microseconds and saves 100 bytes; chain names are longer."""
NUMBERED_MAX = 64


class _Header(NamedTuple):
    """``size``: how many elements it was made for, 0 for any. Anonymous sets of one shape share it, unnamed."""

    shape: KernelSet
    handle: int
    size: int


@lru_cache(maxsize=64)
def _unnamed(flags: int, key_bytes: int) -> KernelSet:
    return KernelSet("", flags, key_bytes)


@dataclass(eq=False, slots=True)
class SetStore:
    """``fetch`` reads the elements of a set (the lists of NFT_MSG_NEWSETELEM, one behind the other)."""

    fetch: Callable[[str], bytes]
    _headers: dict[str, _Header] = field(default_factory=dict)
    _packed: dict[str, bytes] = field(default_factory=dict)
    _fresh: dict[str, bytes] = field(default_factory=dict)
    _named: dict[str, KernelSet] = field(default_factory=dict)

    def add(self, body: bytes, is_new: bool) -> None:
        """An NFT_MSG_NEWSET. ``is_new``: its elements will be heard of from here on. Raises ``Malformed``."""
        given = attributes(body[4:])
        name, handle = text(given, _NAME), number(given, _HANDLE)
        known = self._headers.get(name)
        if known is not None and known.handle == handle:
            return
        described = attributes(given.get(_DESC, b""))
        size = number(described, _DESC_SIZE, 0)
        self.forget(name)
        shape = set_among(given, described, ())
        if shape.is_anonymous:
            shape = _unnamed(shape.flags, shape.key_bytes)
        self._headers[name] = _Header(shape, handle, size)
        if is_new and shape.is_anonymous:  # of a named one each commit of its elements would be added for ever
            self._fresh[name] = b""

    def end(self, body: bytes) -> None:
        """An NFT_MSG_DELSET; not of a set that has its name since. Raises ``Malformed``."""
        given = attributes(body[4:])
        name = text(given, _NAME)
        header = self._headers.get(name)
        if header is not None and number(given, _HANDLE, header.handle) == header.handle:
            self.forget(name)

    def forget(self, name: str) -> None:
        for of in (self._headers, self._packed, self._fresh, self._named):
            of.pop(name, None)

    def is_anonymous(self, name: str) -> bool:
        header = self._headers.get(name)
        return header is not None and header.shape.is_anonymous

    def hear(self, body: bytes) -> None:
        """An NFT_MSG_NEWSETELEM or its opposite. Raises ``Malformed``."""
        given = attributes(body[4:])
        name = text(given, _LIST_SET)
        self._named.pop(name, None)
        if name in self._fresh:
            self._fresh[name] += given.get(_LIST_ELEMENTS, b"")

    def hear_plain(self, name: str, body: bytes, at: int) -> bool:
        """The same of a message whose elements are all there is from ``at`` on; whether this is one."""
        elements = last_nested(body, at, _LIST_ELEMENTS)
        if elements is None:
            return False
        self._named.pop(name, None)
        if name in self._fresh:
            self._fresh[name] += elements
        return True

    def find(self, name: str) -> KernelSet:
        """A set with its elements. Raises ``NotUnderstood`` when there is none of the name."""
        found = self._named.get(name)
        if found is not None:
            return found
        header = self._headers.get(name)
        if header is None:
            raise NotUnderstood(f"@{name} is not there")
        if not header.shape.is_anonymous:
            self._named[name] = found = self._filled(header, self.fetch(name))
            return found
        packed = self._packed.get(name)
        if packed is not None:
            return self._filled(header, packed[1:] if packed[:1] == _AS_IT_IS else zlib.decompress(packed[1:]))
        raw = self._fresh.pop(name, b"")
        filled = self._filled(header, raw) if raw else None
        if filled is None or len(filled.elements) != header.size or header.shape.flags & (INTERVAL | CONCAT):
            raw = self.fetch(name)
            filled = self._filled(header, raw)
            self._pack(name, raw)
        else:
            self._packed[name] = _AS_IT_IS + raw  # somebody waits for the answer: there is no time to compress it
        return filled

    def _pack(self, name: str, raw: bytes) -> None:
        self._packed[name] = _AS_IT_IS + raw if len(raw) <= PLAIN_BYTES_MAX else _COMPRESSED + zlib.compress(raw, 1)

    def numbered(self) -> Iterator[tuple[str, int]]:
        """The anonymous maps not yet fetched whose keys may be the numbers from 0 on, as behind a random number, and
        how many elements each was made for."""
        for name, header in self._headers.items():
            shape, is_known = header.shape, name in self._packed or name in self._fresh
            is_plain = shape.key_bytes == 4 and shape.flags & (ANONYMOUS | MAP | INTERVAL | CONCAT) == ANONYMOUS | MAP
            if is_plain and not is_known and 0 < header.size <= NUMBERED_MAX:
                yield name, header.size

    def supply(self, name: str, count: int, raw: bytes) -> None:
        """The ``count`` elements of a set, fetched beforehand; all, unless it is another by now: the kernel names each
        anonymous set by the lowest number that is free. One of that size is the one there is, or is heard of yet."""
        header = self._headers.get(name)
        if header is not None and header.size == count:
            self._fresh.pop(name, None)
            self._pack(name, raw)

    @staticmethod
    def _filled(header: _Header, raw: bytes) -> KernelSet:
        try:
            shape = header.shape
            return KernelSet(shape.name, shape.flags, shape.key_bytes, tuple(listed_elements(raw)))
        except Malformed as error:
            raise NotUnderstood(f"@{header.shape.name}: {error}") from error
