"""What reaches a pod, seen from below: the beginnings and ends of its connections, captured in its own namespace.

A second opinion on ``verified`` that shares nothing with Tidegate and nothing with the lab's rules: a packet socket in
the pod's network namespace takes TCP segments with SYN, FIN or RST and every UDP datagram, with the kernel's time.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tidegate.model.endpoint import Endpoint

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
_ETH_P_IP = 0x0800
_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_SNAP_BYTES = 128
_BUFFER_BYTES = 4 << 20
_CLONE_NEWNET = 0x40000000

# tcpdump -dd 'ip and ((tcp and tcp[13] & 7 != 0) or udp)', fragments left out: (code, jump if true, if false, operand).
_FILTER = (
    (0x28, 0, 0, 12),
    (0x15, 0, 9, _ETH_P_IP),
    (0x30, 0, 0, 23),
    (0x15, 6, 0, socket.IPPROTO_UDP),
    (0x15, 0, 6, socket.IPPROTO_TCP),
    (0x28, 0, 0, 20),
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 14),
    (0x50, 0, 0, 27),
    (0x45, 0, 1, FIN | SYN | RST),
    (0x06, 0, 0, _SNAP_BYTES),
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One packet at a pod: when (seconds since 1970, the kernel's), between whom, and which flags (0: UDP)."""

    at: float
    source: Endpoint
    destination: Endpoint
    flags: int
    is_outgoing: bool

    @property
    def is_opening(self) -> bool:
        """A client's first segment: SYN without ACK."""
        return self.flags & (SYN | ACK) == SYN and not self.is_outgoing

    @property
    def is_closing(self) -> bool:
        return bool(self.flags & (FIN | RST))


@dataclass(slots=True)
class Capture:
    """The packets of one namespace from now on. ``close`` gives its descriptor back; what was seen stays."""

    namespace: str
    segments: list[Segment] = field(default_factory=list)
    _socket: socket.socket | None = None

    @classmethod
    def of_process(cls, pid: int) -> Capture:
        """In the namespace of a running process (root). Raises ``OSError``."""
        capture = cls(os.readlink(f"/proc/{pid}/ns/net"))
        capture._socket = _socket_in(f"/proc/{pid}/ns/net")
        return capture

    def read(self) -> None:
        """Take what has come. A namespace that is gone says no more."""
        while self._socket is not None:
            try:
                data, ancillary, _, address = self._socket.recvmsg(_SNAP_BYTES, 64)
            except BlockingIOError:
                return
            except OSError:  # ENETDOWN: the pod's interface went with the pod
                continue
            found = _segment(data, _instant(ancillary), address[2] == socket.PACKET_OUTGOING)
            if found is not None:
                self.segments.append(found)

    def close(self) -> None:
        if self._socket is not None:
            self.read()
            self._socket.close()
            self._socket = None

    @property
    def dropped(self) -> int:
        """Packets that the kernel had no room for since the last look: with any, this capture proves nothing."""
        if self._socket is None:
            return 0
        _, dropped = struct.unpack("II", self._socket.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
        return int(dropped)

    def opened(self, ports: tuple[int, ...], since: float, beside: tuple[str, ...] = ()) -> Iterator[Segment]:
        """Connections begun at these ports after an instant, by anybody but ``beside`` (the kubelet's addresses)."""
        return (
            one
            for one in self.segments
            if one.at > since and one.destination.port in ports and one.is_opening and one.source.address not in beside
        )


def _socket_in(path: str) -> socket.socket:
    """A thread of its own enters the namespace: a socket belongs to the one it was made in, for ever."""
    made: list[socket.socket | OSError] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(path, "rb") as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                made.append(OSError(ctypes.get_errno(), f"setns {path}"))
                return
        try:
            made.append(_packet_socket())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _packet_socket() -> socket.socket:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    program = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    buffer = ctypes.create_string_buffer(program)
    one.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(_FILTER), ctypes.addressof(buffer))
    )
    one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    interfaces = [name for _, name in socket.if_nameindex()]
    one.bind((next((name for name in interfaces if name != "lo"), "lo"), _ETH_P_ALL))  # last: nothing comes unfiltered
    return one


def _instant(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return float(seconds + nanoseconds / 1e9)
    return 0.0


def _segment(frame: bytes, at: float, is_outgoing: bool) -> Segment | None:
    packet = frame[14:]
    if len(packet) < 28:
        return None
    size = (packet[0] & 0x0F) * 4
    source, destination = struct.unpack_from("!HH", packet, size)
    protocol = "UDP" if packet[9] == socket.IPPROTO_UDP else "TCP"
    return Segment(
        at,
        Endpoint(socket.inet_ntoa(packet[12:16]), source, protocol),
        Endpoint(socket.inet_ntoa(packet[16:20]), destination, protocol),
        packet[size + 13] if protocol == "TCP" else 0,
        is_outgoing,
    )
