"""The rules of nftables of this network namespace, read over netlink by ourselves.

``nft`` fills its cache with the whole rule set whatever it is asked for, 4 to 6 s at 10,000 Services. The kernel tells
one chain in 20 microseconds.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

from tidegate.dataplane.netlink import (
    DUMP_INTR,
    HEADER_BYTES,
    NLMSG_DONE,
    NLMSG_ERROR,
    Malformed,
    Message,
    attribute,
    error_of,
    messages,
    name_attribute,
    request,
)
from tidegate.dataplane.nftables.sets import list_of
from tidegate.dataplane.nftables.source import SUBSYSTEM, Changed

_NETLINK_NETFILTER = 12
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS = 1, 4, 7, 10, 13
_REQUEST, _DUMP = 1, 0x300
_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES = 270, 1, 7
_SO_RCVBUFFORCE = 33
_ACK = 4
_NESTED = 0x8000
_ACK_KINDS = (NLMSG_DONE, NLMSG_ERROR)
SECONDS = 10.0
CHUNK_BYTES = 1 << 16
"""The kernel's own limit of one datagram of a dump is 32 KiB."""
ANSWER_BYTES_MAX = 1 << 30
"""110,000 rules are 40 MiB."""
ANSWER_BYTES = 8192
"""The kernel counts some 5 KiB of the buffer for each element that it tells alone."""
ANSWERS_BYTES = 2 << 20
BACKLOG_BYTES = 48 << 20
"""What the kernel keeps of commits until we look, the agent every 2 s at the least. More, and it says that it lost
some, and everything is read again: 8 s of CPU. A sync of kube-proxy in iptables mode with 10,000 Services takes 9 MiB
(of 16 the second was lost, 64 held 6 of them), and there may be one each second. It is the kernel's memory, and soon
free."""


class Questions:
    """To nftables, one at a time; ``nftables.source.Source``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.settimeout(SECONDS)
        with suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, ANSWERS_BYTES)
        self._buffer = memoryview(bytearray(CHUNK_BYTES))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def tables(self) -> list[bytes]:
        return list(self._dump(_GET_TABLE, 0, b""))

    def chains(self) -> Iterator[bytes]:
        """Raises ``Changed`` at its end when the list was torn."""
        return self._dump(_GET_CHAIN, 0, b"")

    def chain(self, family: int, table: str, name: str) -> bytes:
        """One chain without its rules. Raises ``Changed`` when there is none."""
        where = name_attribute(1, table) + name_attribute(3, name)
        self._ask(_GET_CHAIN, _REQUEST, family, where)
        for message in self._answer():
            if message.kind != NLMSG_ERROR:
                return message.body
            raise _failure(error_of(message))
        raise Malformed("no answer about a chain")

    def rules(self, family: int, table: str, chain: str) -> Iterator[bytes]:
        """Raises ``Changed`` at its end when the list was torn."""
        return self._dump(_GET_RULE, family, name_attribute(1, table) + name_attribute(2, chain))

    def every_rule(self, family: int, table: str) -> Iterator[bytes]:
        """Of all chains, chain by chain, in one dump. Raises ``Changed`` at its end when that was torn."""
        return self._dump(_GET_RULE, family, name_attribute(1, table))

    def sets(self) -> Iterator[bytes]:
        """Without their elements. Raises ``Changed`` at its end when the list was torn."""
        return self._dump(_GET_SET, 0, b"")

    def elements(self, family: int, table: str, name: str) -> bytes:
        where = name_attribute(1, table) + name_attribute(2, name)
        return b"".join(list_of(body) for body in self._dump(_GET_ELEMENTS, family, where))

    def numbered(self, family: int, table: str, wanted: list[tuple[str, int]]) -> Iterator[tuple[str, bytes]]:
        """The elements, as of ``elements``, of those sets that have the keys from 0 to below the number beside them;
        the others are left out.

        Asked for by its keys a set is looked for once, in a dump three times (nf_tables_api.c); and many are asked for
        in one message, for each answer is there when ``send`` returns."""
        room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // ANSWER_BYTES
        batch: list[tuple[str, int]] = []
        answers = 0
        for one in wanted:
            if batch and answers + one[1] >= room:
                yield from self._numbered(family, table, batch)
                batch, answers = [], 0
            batch.append(one)
            answers += one[1] + 1
        if batch:
            yield from self._numbered(family, table, batch)

    def _numbered(self, family: int, table: str, wanted: list[tuple[str, int]]) -> Iterator[tuple[str, bytes]]:
        first = self._sequence + 1 & 0x7FFFFFFF
        if first + len(wanted) > 0x7FFFFFFF:
            first = 1
        head, asked = bytes((family, 0, 0, 0)) + name_attribute(1, table), []
        for sequence, (name, count) in enumerate(wanted, first):
            body = head + name_attribute(2, name) + _keys_below(count)
            asked.append(request(SUBSYSTEM | _GET_ELEMENTS, _REQUEST | _ACK, sequence, body))
        self._sequence = first + len(wanted) - 1
        self._socket.send(b"".join(asked))
        found: dict[int, list[bytes]] = {}
        for _ in range(sum(count + 1 for _, count in wanted)):  # more is no answer to this
            length = self._socket.recv_into(self._buffer)
            for message in messages(bytes(self._buffer[:length])):
                at = message.sequence - first
                if not 0 <= at < len(wanted):
                    continue
                if message.kind != NLMSG_ERROR:
                    found.setdefault(at, []).append(message.body)
                elif not error_of(message) and len(found.get(at, ())) == wanted[at][1]:
                    yield wanted[at][0], b"".join(map(list_of, found.pop(at)))
                if message.kind == NLMSG_ERROR and at == len(wanted) - 1:
                    return

    def _ask(self, kind: int, flags: int, family: int, where: bytes) -> None:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        self._socket.send(request(SUBSYSTEM | kind, flags, self._sequence, bytes((family, 0, 0, 0)) + where))

    def _dump(self, kind: int, family: int, where: bytes) -> Iterator[bytes]:
        """The bodies of a dump. Raises ``Changed`` when something changed in it meanwhile."""
        self._ask(kind, _REQUEST | _DUMP, family, where)
        asked = self._sequence
        is_torn, total = False, 0
        while True:
            for message in self._answer():
                if self._sequence != asked:
                    raise RuntimeError("a dump was left unread")
                is_torn |= bool(message.flags & DUMP_INTR)
                if message.kind in _ACK_KINDS:
                    if error := error_of(message):
                        raise _failure(error)
                    if is_torn:
                        raise Changed("the rules changed while they were read")
                    return
                total += len(message.body)
                if total > ANSWER_BYTES_MAX:
                    self._restart()
                    raise Malformed(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
                yield message.body

    def _answer(self) -> Iterator[Message]:
        """The next datagram that answers what was asked last."""
        while True:
            length = self._socket.recv_into(self._buffer)
            found = messages(bytes(self._buffer[:length]))
            if found and found[0].sequence == self._sequence:
                return iter(found)

    def _restart(self) -> None:
        self._socket.close()
        self.__init__()  # type: ignore[misc]


@lru_cache(maxsize=64)
def _keys_below(count: int) -> bytes:
    """NFTA_SET_ELEM_LIST_ELEMENTS with the numbers, in the machine's order, as random numbers are."""
    values = [attribute(1, at.to_bytes(4, sys.byteorder)) for at in range(count)]
    keys = [attribute(1 | _NESTED, attribute(1 | _NESTED, one)) for one in values]
    return attribute(3 | _NESTED, b"".join(keys))


def _failure(error: int) -> Exception:
    if error in (errno.ENOENT, errno.EINTR, errno.EAGAIN, errno.EBUSY):
        return Changed("what was to be read is gone")
    if error == errno.EPERM:
        return OSError(error, "nftables cannot be read (CAP_NET_ADMIN is needed)")
    return OSError(error, f"nftables cannot be read: {errno.errorcode.get(error, error)}")


class Commits:
    """What the kernel tells of every commit (NFNLGRP_NFTABLES)."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BACKLOG_BYTES)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BACKLOG_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def heard(self) -> Iterator[bytes]:
        """The datagrams that were told and not yet heard. Raises ``OSError`` (ENOBUFS: something is lost),
        ``Malformed``."""
        while True:
            try:
                data = self._socket.recv(CHUNK_BYTES)
            except BlockingIOError:
                return
            if len(data) < HEADER_BYTES:
                raise Malformed("a message without a header")
            yield data
