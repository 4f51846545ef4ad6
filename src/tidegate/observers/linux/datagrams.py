"""Many datagrams of one netlink socket at once.

50,000 tracked connections are 370 datagrams of the kernel's 32 KiB. Received one by one, a thread waits for Python's
lock 370 times, up to 5 ms each while another thread reads the rules; ``recvmmsg`` takes 64 of them without it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing

from tidegate.dataplane.netlink import Malformed

AT_ONCE = 64
ROOM_BYTES = 1 << 15
"""The kernel makes no datagram of a dump longer (netlink_recvmsg, max_recvmsg_len)."""
_TRUNCATED = 0x20
"""MSG_TRUNC."""


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Slot(ctypes.Structure):
    """struct mmsghdr: how long what came is."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


def received(netlink: socket.socket, seconds: float) -> Iterator[bytes]:
    """What comes, without end; for each of it at most so many seconds are waited. The socket has to have a timeout: it
    is not waited in ``recvmmsg``. Raises ``OSError``, ``Malformed``."""
    take = ctypes.CDLL(None, use_errno=True).recvmmsg
    with closing(mmap.mmap(-1, AT_ONCE * ROOM_BYTES)) as room:  # given back: malloc would keep it
        begins = ctypes.c_char.from_buffer(room)
        slots, vectors = (_Slot * AT_ONCE)(), (_Vector * AT_ONCE)()
        for at, slot in enumerate(slots):
            vectors[at] = _Vector(ctypes.addressof(begins) + at * ROOM_BYTES, ROOM_BYTES)
            slot.header.vectors, slot.header.vector_count = ctypes.pointer(vectors[at]), 1
        del begins
        while True:
            if not select.select([netlink], [], [], seconds)[0]:
                raise TimeoutError("timed out")
            count = take(netlink.fileno(), slots, AT_ONCE, 0, None)
            if count < 0:
                raise OSError(error := ctypes.get_errno(), os.strerror(error))
            for at, slot in enumerate(slots[:count]):
                if slot.header.flags & _TRUNCATED:
                    raise Malformed(f"a datagram of more than {ROOM_BYTES} bytes")
                yield room[at * ROOM_BYTES : at * ROOM_BYTES + slot.length]
