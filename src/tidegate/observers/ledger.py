"""The answer to ``GET /v1/ledger``: the newest retirements of one node's pods, bounded.

Read by other versions than the one that wrote it: keys that are not known are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidegate.drain.ledger import Entry

LEDGER_PATH = "/v1/ledger"
ENTRIES_MAX = 500
BYTES_MAX = 1024 * 1024


class Told(msgspec.Struct, frozen=True):
    """``entries`` with their amendments, oldest first; ``left_off`` older ones did not fit."""

    node: str
    entries: tuple[Entry, ...] = ()
    left_off: int = 0


def encode(node: str, entries: Iterable[Entry]) -> bytes:
    """The newest that fit."""
    rows = list(entries)
    kept: list[Entry] = []
    size = 0
    for one in reversed(rows[-ENTRIES_MAX:]):
        size += len(msgspec.json.encode(one))
        if size > BYTES_MAX:
            break
        kept.append(one)
    return msgspec.json.encode(Told(node, tuple(reversed(kept)), len(rows) - len(kept)))


def decode(body: bytes, node: str) -> Told:
    """Raises ``ValueError`` for anything but the answer of ``node``."""
    told = msgspec.json.decode(body, type=Told)
    if told.node != node:
        raise ValueError(f"this is the ledger of {told.node!r}")
    return told
