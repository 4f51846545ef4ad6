"""What is kept of sets: no more than what they have."""

from __future__ import annotations

import sys
import tracemalloc

from tidegate.dataplane.netlink import attribute, name_attribute
from tidegate.dataplane.nftables.sets import ANONYMOUS, MAP
from tidegate.dataplane.nftables.store import SetStore

HEAD = bytes((2, 0, 0, 0))
MESSAGES, ELEMENTS_BYTES = 1000, 1024


def number(kind, value, size=4):
    return attribute(kind, value.to_bytes(size, "big"))


def test_a_named_set_that_was_made_while_we_listen_is_not_kept_commit_for_commit():
    """Its elements are fetched when somebody looks; what is told of them only says that they changed."""
    store = SetStore(lambda name: b"")
    store.add(HEAD + name_attribute(1, "t") + name_attribute(2, "s") + number(5, 4) + number(16, 7, 8), is_new=True)
    told = HEAD + name_attribute(1, "t") + name_attribute(2, "s") + attribute(3, bytes(ELEMENTS_BYTES))
    store.hear(told)
    tracemalloc.start()
    for _ in range(MESSAGES):
        store.hear(told)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < MESSAGES * ELEMENTS_BYTES / 10
    assert not store.find("s").elements


def made(handle, size):
    told = name_attribute(1, "t") + name_attribute(2, "__map0") + number(3, ANONYMOUS | MAP) + number(5, 4)
    return HEAD + told + attribute(9, number(1, size)) + number(16, handle, 8)


def rows(count):
    """The elements 0 to below ``count`` of a map."""
    keys = (attribute(1, attribute(1, at.to_bytes(4, sys.byteorder))) for at in range(count))
    return b"".join(attribute(1, key + attribute(2, attribute(1, bytes([10, 0, 0, 9])))) for key in keys)


def test_what_was_fetched_for_a_map_is_not_taken_for_all_of_a_larger_one_that_has_its_name_since():
    """The kernel gives the lowest number that is free: a commit between the list of sets and the asking for their
    elements, and of nine endpoints five were known, the others routed to unseen."""
    store = SetStore(lambda name: rows(3))
    store.add(made(handle=7, size=2), is_new=False)
    [(name, count)] = store.numbered()
    store.add(made(handle=8, size=3), is_new=True)
    store.supply(name, count, rows(count))
    assert len(store.find(name).elements) == 3


def test_what_was_fetched_for_a_map_is_all_of_it():
    store = SetStore(lambda name: rows(0))
    store.add(made(handle=7, size=2), is_new=False)
    [(name, count)] = store.numbered()
    store.supply(name, count, rows(count))
    assert len(store.find(name).elements) == 2
