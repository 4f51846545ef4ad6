"""The sets of one table of nftables, kept current by what the kernel tells of commits.

To find a set by its name the kernel walks the list of all sets: 0.3 ms of 10,000, and a Service has one of its own.
Anonymous sets never change, so each is fetched once, or heard of once when it is made, and kept compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from tidegate.dataplane.netlink import Malformed, attributes, number, text
from tidegate.dataplane.nftsets import CONCAT, INTERVAL, KernelSet, listed_elements, set_of
from tidegate.dataplane.rules import NotUnderstood

_LIST_SET, _LIST_ELEMENTS = 2, 3
_NAME, _DESC, _HANDLE = 2, 9, 16
_DESC_SIZE = 1


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
        size = number(attributes(given.get(_DESC, b"")), _DESC_SIZE, 0)
        self.forget(name)
        shape = set_of(body, ())
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
            return self._filled(header, zlib.decompress(packed))
        raw = self._fresh.pop(name, b"")
        if (
            not raw
            or len(self._filled(header, raw).elements) != header.size
            or header.shape.flags & (INTERVAL | CONCAT)
        ):
            raw = self.fetch(name)
        self._packed[name] = zlib.compress(raw, 1)
        return self._filled(header, raw)

    @staticmethod
    def _filled(header: _Header, raw: bytes) -> KernelSet:
        try:
            return replace(header.shape, elements=tuple(listed_elements(raw)))
        except Malformed as error:
            raise NotUnderstood(f"@{header.shape.name}: {error}") from error
