"""Ask this machine's kernel for its TCP sockets by netlink; no privilege is needed."""

from __future__ import annotations

import socket

from tidegate.dataplane import sockdiag
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Socket

_NETLINK_SOCK_DIAG = 4
_SECONDS = 1.0
_CHUNK = 1 << 18
_ANSWER_BYTES_MAX = 64 << 20
_TRIES = 3
"""An interrupted dump is asked for again; under constant change the answer stays unreadable."""


def read(family: int, about: frozenset[bytes] | None = None) -> tuple[Socket, ...] | Unreadable:
    """All TCP sockets of ``family`` (2 or 10) of our network namespace but those that carry nothing any
    more (TIME_WAIT, FIN_WAIT2); ``about`` as ``dataplane.sockdiag.parse`` has it. Never raises."""
    answer: tuple[Socket, ...] | Unreadable = Unreadable("never asked", "sock_diag")
    for _ in range(_TRIES):
        answer = _ask(family, about)
        if not isinstance(answer, Unreadable):
            break
    return answer


def _ask(family: int, about: frozenset[bytes] | None) -> tuple[Socket, ...] | Unreadable:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(_SECONDS)
            netlink.sendto(sockdiag.request(family), (0, 0))
            datagrams: list[bytes] = []
            while sum(map(len, datagrams)) < _ANSWER_BYTES_MAX:
                datagrams.append(netlink.recv(_CHUNK))
                if sockdiag.ends(datagrams[-1]):
                    return sockdiag.parse(b"".join(datagrams), about)
    except OSError as error:
        return Unreadable(f"{error}", "sock_diag")
    except sockdiag.Incomplete:
        return Unreadable("the answer is cut short", "sock_diag")
    return Unreadable("the answer does not end", "sock_diag")
