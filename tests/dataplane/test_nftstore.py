"""What is kept of sets: no more than what they have."""

from __future__ import annotations

import tracemalloc

from tidegate.dataplane.netlink import attribute, name_attribute
from tidegate.dataplane.nftstore import SetStore

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
