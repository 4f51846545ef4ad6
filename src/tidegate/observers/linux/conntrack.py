"""The connections that this network namespace's kernel tracks, by the endpoint they are bound to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tidegate.dataplane import conntrack
from tidegate.dataplane.facts import Tracked, Unreadable
from tidegate.model.endpoint import Endpoint
from tidegate.observers.linux.commands import CommandFailed, output

ADDRESSES_MAX = 2
"""Of more than so many addresses all entries are listed at once and searched: one process, not one for each."""
_FAMILIES = {4: "ipv4", 6: "ipv6"}
_SOURCE = re.compile(rb" src=(\S+) ")


def read(endpoints: tuple[Endpoint, ...] | None) -> tuple[tuple[Tracked, ...], tuple[Unreadable, ...]]:
    """What is bound to ``endpoints``, or everything for None. Never raises."""
    tracked: list[Tracked] = []
    try:
        for listing in _listings(endpoints):
            found = conntrack.parse(listing.decode(errors="replace"), "conntrack")
            if found.unreadable:
                return (), found.unreadable
            tracked += found.tracked
    except CommandFailed as error:
        return (), (Unreadable(str(error), "conntrack"),)
    return tuple(tracked), ()


def _listings(endpoints: tuple[Endpoint, ...] | None) -> Iterator[bytes]:
    if endpoints is None:
        for family in _FAMILIES.values():
            yield output("conntrack", "-L", "-f", family)
        return
    for version, family in _FAMILIES.items():
        addresses = {one.address: None for one in endpoints if (":" in one.address) == (version == 6)}
        if len(addresses) <= ADDRESSES_MAX:
            for address in addresses:
                yield output("conntrack", "-L", "-f", family, "--reply-src", address)
        elif addresses:
            wanted = {address.encode() for address in addresses}
            lines = output("conntrack", "-L", "-f", family).split(b"\n")
            yield b"\n".join(line for line in lines if not wanted.isdisjoint(_SOURCE.findall(line)))
