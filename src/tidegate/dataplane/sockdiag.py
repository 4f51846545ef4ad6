"""``sock_diag`` answers -> sockets: the kernel's socket table without its TIME_WAIT part.

Why beside ``/proc/net/tcp``: on a busy node nine of ten lines there are TIME_WAIT, and only reading them took tens of
milliseconds (measured: 35,000 lines under the demo's load). Here the kernel leaves them out. Shapes are those of
include/uapi/linux/inet_diag.h and netlink.h, in host byte order but for ports and addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_address

from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import STATES, Socket
from tidegate.model.endpoint import Endpoint, canonical

AF_INET, AF_INET6 = 2, 10
_WIDTHS = {AF_INET: 4, AF_INET6: 16}
_IPPROTO_TCP = 6
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_FIN_WAIT2, _TIME_WAIT, _CLOSE, _NEW_SYN_RECV = 5, 6, 7, 12
_WANTED_STATES = ((1 << (_NEW_SYN_RECV + 1)) - 2) & ~(1 << _FIN_WAIT2) & ~(1 << _TIME_WAIT) & ~(1 << _CLOSE)
"""FIN_WAIT2 carries nothing either: all of it was taken. What waits for its peer's FIN is listed so, by thousands."""

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48x")
_MESSAGE = struct.Struct("=BBBB2s2s16s16s12xIIIII")
_WHERE = "sock_diag"


class Incomplete(Exception):
    """More of the answer is to come."""


def request(family: int) -> bytes:
    """The question for all TCP sockets of one address family in our network namespace that may carry something yet."""
    body = _REQUEST.pack(family, _IPPROTO_TCP, 0, 0, _WANTED_STATES)
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body


def ends(datagram: bytes) -> bool:
    """Whether this is the last of an answer, or nothing that one can go on from. Looks at headers only: a table of
    thousands comes in dozens of datagrams, and to parse all of it for each took an agent 20 s."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, _, _, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size or kind in (_NLMSG_DONE, _NLMSG_ERROR):
            return True
        at += (length + 3) & ~3
    return not datagram


def parse(answer: bytes, about: frozenset[bytes] | None = None) -> tuple[Socket, ...] | Unreadable:
    """All sockets of a whole answer; with ``about`` (``packed``) those that listen or have one of these addresses at
    either end: a machine's table has tens of thousands, 20 us each. Never raises but ``Incomplete``.

    A dump that the kernel says was interrupted (a socket moved while it was walked) is unreadable: ask again.
    """
    sockets: list[Socket] = []
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, flags, _, _ = _HEADER.unpack_from(answer, at)
        if length < _HEADER.size or at + length > len(answer):
            return Unreadable("a message is cut short", _WHERE)
        if flags & _NLM_F_DUMP_INTR:
            return Unreadable("the table changed while it was read", _WHERE)
        body = answer[at + _HEADER.size : at + length]
        if kind == _NLMSG_DONE:
            return tuple(sockets)
        if kind == _NLMSG_ERROR:
            return Unreadable(f"the kernel answered with error {_error(body)}", _WHERE)
        if kind != _SOCK_DIAG_BY_FAMILY or len(body) < _MESSAGE.size:
            return Unreadable(f"a message of type {kind} and {len(body)} bytes", _WHERE)
        at += (length + 3) & ~3
        if about is not None and not _concerns(body, about):
            continue
        socket = _socket(body)
        if isinstance(socket, Unreadable):
            return socket
        sockets.append(socket)
    raise Incomplete


def packed(addresses: Iterable[str]) -> frozenset[bytes]:
    """Addresses as messages have them, an IPv4 one also as it is mapped into IPv6."""
    found: list[bytes] = []
    for address in map(ip_address, addresses):
        found.append(address.packed)
        if address.version == 4:
            found.append(bytes(10) + b"\xff\xff" + address.packed)
    return frozenset(found)


def _concerns(body: bytes, about: frozenset[bytes]) -> bool:
    """What is not understood concerns everybody."""
    family, state, _, _, _, _, source, destination, *_ = _MESSAGE.unpack_from(body)
    width = _WIDTHS.get(family)
    is_open = state not in STATES or STATES[state] == "LISTEN"
    return width is None or is_open or source[:width] in about or destination[:width] in about


def _error(body: bytes) -> int:
    return -int.from_bytes(body[:4], "little", signed=True) if len(body) >= 4 else 0


def _socket(body: bytes) -> Socket | Unreadable:
    family, state, _, _, sport, dport, source, destination, _, _, unsent, _, inode = _MESSAGE.unpack_from(body)
    name = "SYN_RECV" if state == _NEW_SYN_RECV else STATES.get(state)
    width = _WIDTHS.get(family)
    if name is None or width is None:
        return Unreadable(f"state {state}, family {family}", _WHERE)

    return Socket(_endpoint(source[:width], sport), _endpoint(destination[:width], dport), name, unsent, inode)


def _endpoint(address: bytes, port: bytes) -> Endpoint:
    return Endpoint(canonical(str(ip_address(address))), int.from_bytes(port, "big"))
