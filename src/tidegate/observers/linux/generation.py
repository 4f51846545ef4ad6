"""The generation of this network namespace's nftables rules: it changes with every commit (``NFT_MSG_GETGEN``).

Asking costs some 20 microseconds, so that a long poll looks 50 times a second. The multicast group that tells of
commits would tell each rule of them, 100,000 messages at a restart of a large node's kube-proxy.
"""

from __future__ import annotations

import socket
import struct
import threading

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWGEN, _NFT_MSG_GETGEN = 15, 16
_NFTA_GEN_ID = 1
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_SECONDS = 1.0
_EINVAL = 22
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
ABSENT = 0
"""The kernel has no nftables: generations begin at 1."""


class Generations:
    """Asks on one socket, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._asked = 0

    def now(self) -> int:
        """The generation, or ``ABSENT``. Raises ``OSError``."""
        with self._lock:
            try:
                return self._ask()
            except OSError:
                self._drop()
                raise

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _ask(self) -> int:
        if self._socket is None:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
            self._socket.settimeout(_SECONDS)
        self._asked = (self._asked + 1) & 0x7FFFFFFF
        body = _FAMILY.pack(0, 0, 0)
        kind = _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETGEN
        self._socket.sendto(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, self._asked, 0) + body, (0, 0))
        while True:
            answer = self._socket.recv(4096)
            if len(answer) >= _HEADER.size and _HEADER.unpack_from(answer)[3] == self._asked:
                return _read(answer)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _read(answer: bytes) -> int:
    length, kind, _, _, _ = _HEADER.unpack_from(answer)
    body = answer[_HEADER.size : length]
    if kind == _NLMSG_ERROR and len(body) >= 4:
        error = -int.from_bytes(body[:4], "little", signed=True)
        if error == _EINVAL:  # net/netfilter/nfnetlink.c: nobody has registered this subsystem
            return ABSENT
        raise OSError(error, "the generation of nftables cannot be read (CAP_NET_ADMIN is needed)")
    at = _FAMILY.size
    while kind == _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_NEWGEN and at + _ATTRIBUTE.size <= len(body):
        size, name = _ATTRIBUTE.unpack_from(body, at)
        if name == _NFTA_GEN_ID and size == 8:
            return int.from_bytes(body[at + 4 : at + 8], "big")
        at += max(4, size + 3 & ~3)
    raise OSError(0, f"a message of type {kind} is no answer about the generation of nftables")
