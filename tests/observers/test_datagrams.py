"""Many datagrams at once: each is told as it came, in order, and none in part."""

from __future__ import annotations

import socket

import pytest

from tidegate.dataplane.netlink import Malformed
from tidegate.observers.linux.datagrams import AT_ONCE, ROOM_BYTES, received


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(1.0)
    with ours, theirs:
        yield ours, theirs


def test_datagrams_are_told_whole_and_in_order_however_many(ends):
    ours, theirs = ends
    coming = received(ours, 1.0)
    for first in range(0, 3 * AT_ONCE, 8):
        sent = [bytes([at % 256]) * (at * 37 % ROOM_BYTES) for at in range(first, first + 8)]
        for one in sent:
            theirs.send(one)
        assert [next(coming) for _ in sent] == sent


def test_one_that_is_longer_than_there_is_room_for_is_not_told_in_part(ends):
    ours, theirs = ends
    theirs.send(bytes(ROOM_BYTES))
    theirs.send(bytes(ROOM_BYTES + 1))
    coming = received(ours, 1.0)
    assert len(next(coming)) == ROOM_BYTES
    with pytest.raises(Malformed, match="more than"):
        next(coming)


def test_what_does_not_come_is_not_waited_for_longer_than_said(ends):
    with pytest.raises(TimeoutError):
        next(received(ends[0], 0.01))
