"""Links, addresses and routes of the namespace the calling thread is in: as much of rtnetlink(7) as a lab needs.

By hand, because a pod's network is six messages: 0.3 ms of the kernel's time, where two runs of ``ip`` take 10 ms.
``dataplane.netlink`` has the same two headers. That is on purpose: lab and core share no logic, or a mistake in it
would hide itself.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address, IPv4Network
from types import TracebackType
from typing import Self

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 1, 4, 0x200, 0x400
_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_TABLE_MAIN, _PROTOCOL_STATIC, _UNICAST = 254, 4, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def mac_of(address: str) -> bytes:
    """The hardware address of who has ``address``: one that comes back later, to another pod, is no surprise in an ARP
    cache."""
    return b"\x0a\x58" + IPv4Address(address).packed


class Links:
    """``with Links() as links``: one socket, in the namespace the thread is in now. Methods raise ``OSError``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def bridge(self, name: str, address: str) -> None:
        """Add a bridge, up, with the hardware address of who has ``address``."""
        info = _attribute(_IFLA_LINKINFO, _text(_INFO_KIND, "bridge"))
        self._link(0, _text(_IFLA_IFNAME, name) + _attribute(_IFLA_ADDRESS, mac_of(address)) + info, _IFF_UP)

    def veth(self, name: str, peer: str, peer_address: str, place: int) -> None:
        """Add a pair: ``name`` here, up, and ``peer``, down, in the namespace of the descriptor ``place``."""
        there = _LINK.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, peer)
        there += _attribute(_IFLA_ADDRESS, mac_of(peer_address)) + _number(_IFLA_NET_NS_FD, place)
        info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, there))
        self._link(0, _text(_IFLA_IFNAME, name) + _attribute(_IFLA_LINKINFO, info), _IFF_UP)

    def up(self, name: str) -> None:
        self._set(name, b"", _IFF_UP)

    def join(self, name: str, bridge: str) -> None:
        """Make ``name`` a port of ``bridge``."""
        self._set(name, _number(_IFLA_MASTER, socket.if_nametoindex(bridge)), 0)

    def delete(self, name: str) -> None:
        """Of a pair, both ends."""
        self._ask(_DELLINK, _LINK.pack(0, 0, socket.if_nametoindex(name), 0, 0))

    def address(self, name: str, address: str, bits: int) -> None:
        """Give ``address``/``bits`` to a link; with its network comes a route."""
        packed = IPv4Address(address).packed
        body = _ADDRESS.pack(socket.AF_INET, bits, 0, _SCOPE_UNIVERSE, socket.if_nametoindex(name))
        self._ask(_NEWADDR, body + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed), _CREATE)

    def route(self, network: str, name: str, gateway: str = "") -> None:
        """Send what is for ``network`` ("0.0.0.0/0": everything else) out of a link, through ``gateway`` if given."""
        to = IPv4Network(network)
        scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
        body = _ROUTE.pack(socket.AF_INET, to.prefixlen, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, scope, _UNICAST, 0)
        body += _attribute(_RTA_DST, to.network_address.packed) if to.prefixlen else b""
        body += _number(_RTA_OIF, socket.if_nametoindex(name))
        body += _attribute(_RTA_GATEWAY, IPv4Address(gateway).packed) if gateway else b""
        self._ask(_NEWROUTE, body, _CREATE)

    def _link(self, index: int, attributes: bytes, flags: int) -> None:
        self._ask(_NEWLINK, _LINK.pack(0, 0, index, flags, flags) + attributes, _CREATE | _EXCLUSIVE)

    def _set(self, name: str, attributes: bytes, flags: int) -> None:
        self._ask(_NEWLINK, _LINK.pack(0, 0, socket.if_nametoindex(name), flags, flags) + attributes)

    def _ask(self, kind: int, body: bytes, flags: int = 0) -> None:
        self._number += 1
        size = _HEADER.size + len(body)
        self._socket.sendto(_HEADER.pack(size, kind, _REQUEST | _ACK | flags, self._number, 0) + body, (0, 0))
        answer = self._socket.recv(16_384)
        _, answered, _, _, _ = _HEADER.unpack_from(answer)
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if answered != _ERROR or code:
            raise OSError(-code, f"rtnetlink message {kind}: {os.strerror(-code)}")
