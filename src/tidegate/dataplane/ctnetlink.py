"""Tracked connections as the kernel tells them over netlink -> ``Tracked``. What they mean is in ``conntrack.py``.

Numbers: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_tcp.h, nf_conntrack_sctp.h.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct

from tidegate.dataplane.conntrack import SCTP_STATES, TCP_STATES
from tidegate.dataplane.facts import Tracked
from tidegate.dataplane.netlink import DUMP_INTR, HEADER_BYTES, Malformed, attribute, attributes, number
from tidegate.model.endpoint import Endpoint

SUBSYSTEM = 1 << 8
NEW, GET, DELETE = 0, 1, 2
_NESTED = 0x8000
_ORIGINAL, _REPLY, _STATUS, _PROTOCOL_FACTS, _FILTER = 1, 2, 3, 4, 25
_TIMEOUT, _IDENTITY, _ZONE = 7, 12, 18
_ADDRESSES, _PORTS = 1, 2
_SOURCE = {2: 1, 10: 3}
_NUMBER = 1
_SOURCE_FLAG, _NUMBER_FLAG = 1, 8
_FLAGS_ORIGINAL, _FLAGS_REPLY = 4, 5
_ASSURED, _OFFLOADED = 4, 0x4000 | 0x8000
TCP, UDP, SCTP = 6, 17, 132
_SERVED = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}
_TCP = ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
        "SYN_SENT2")  # fmt: skip
_SCTP = ("NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD",
         "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED")  # fmt: skip
_PLAIN = {
    2: (56, bytes.fromhex("34000280 14000180 08000100"), 4, 84),
    10: (80, bytes.fromhex("4c000280 2c000180 14000300"), 16, 132),
}
"""Where the source of the reply stands in nearly every entry, behind which bytes, how long it is, and where the
reply's protocol stands, behind which the status does."""
_TCP_HERE = bytes.fromhex("05000100 06")
_STATUS_HERE = bytes.fromhex("08000300")
_STATE_HERE = bytes.fromhex("0180 0500 0100")
"""CTA_PROTOINFO_TCP and in it, first, CTA_PROTOINFO_TCP_STATE: the state is the next byte."""
_CLOSE, _CLOSE_INIT = 8, 4
RESET = "CLOSE"
"""The state of a ``Tracked`` that takes the next SYN of its client's port along (``_is_reset``)."""


def answered_by(address: str) -> bytes:
    """What restricts a dump to the entries that ``address`` answers (Linux 5.8; before, the kernel tells all)."""
    packed = ip_address(address).packed
    kind = _SOURCE[2 if len(packed) == 4 else 10]
    reply = attribute(_REPLY | _NESTED, attribute(_ADDRESSES | _NESTED, attribute(kind, packed)))
    return reply + _filtered(_SOURCE_FLAG)


def of_protocol(protocol: int) -> bytes:
    """What restricts a dump to the entries of one protocol."""
    ports = attribute(_PORTS | _NESTED, attribute(_NUMBER, bytes([protocol])))
    return attribute(_REPLY | _NESTED, ports) + _filtered(_NUMBER_FLAG)


def seconds_left(body: bytes) -> int:
    """How long the entry of an IPCTNL_MSG_CT_NEW stays when nothing more comes by it. Raises ``Malformed``."""
    return number(attributes(body[4:]), _TIMEOUT)


def forgetting(body: bytes) -> bytes:
    """From an IPCTNL_MSG_CT_NEW, the body of the IPCTNL_MSG_CT_DELETE of this entry and of no later one: the kernel
    compares its id (ctnetlink_del_conntrack). Raises ``Malformed``."""
    given = attributes(body[4:])
    if _ORIGINAL not in given or _IDENTITY not in given:
        raise Malformed("an entry that cannot be named")
    named = attribute(_ORIGINAL | _NESTED, given[_ORIGINAL]) + attribute(_IDENTITY, given[_IDENTITY])
    return body[:1] + bytes(3) + named + (attribute(_ZONE, given[_ZONE]) if _ZONE in given else b"")


def _filtered(reply_flags: int) -> bytes:
    flags = attribute(1, bytes(4)) + attribute(2, reply_flags.to_bytes(4, "little"))
    return attribute(_FILTER | _NESTED, flags)


def tracked(body: bytes, wanted: frozenset[bytes] | None) -> Tracked | None:
    """From an IPCTNL_MSG_CT_NEW; None for an entry that carries nothing any more, or that no Service can have. With
    ``wanted`` (addresses as bytes) also for one that none of them answers, and for one of TCP that was established
    both ways: nothing is being opened there, unless it was reset. Raises ``Malformed``."""
    plain = _PLAIN.get(body[0] if body else 0)
    if plain is not None and wanted is not None:
        at, head, size, protocol_at = plain
        is_other = body[at + 12 : at + 12 + size] not in wanted
        # A busy pod leaves thousands in TIME_WAIT; understood whole, 5,000 took 150 ms of CPU in every dump.
        if body[at : at + 12] == head and (is_other or _is_established_tcp(body, protocol_at)):
            return None
    given = attributes(body[4:])
    ends = [_ends(given, kind) for kind in (_ORIGINAL, _REPLY)]
    (source, destination, protocol), (endpoint, _, replied) = ends
    if protocol not in _SERVED:
        return None
    if replied != protocol:
        raise Malformed("an entry of two protocols")
    if wanted is not None and ip_address(endpoint[0]).packed not in wanted:
        return None
    state = _state(given, protocol)
    if not state:
        return None
    name = _SERVED[protocol]
    return Tracked(name, state, Endpoint(*source, name), Endpoint(*destination, name), Endpoint(*endpoint, name))


_HEAD = Struct("=IHH")
_ROWS = {family: Struct(f"=8s{HEADER_BYTES - 8 + at}x12s{size}s") for family, (at, _, size, _) in _PLAIN.items()}
"""Of a message with an entry of the usual layout: length, kind and flags; what stands before the reply's source; that
source."""


def not_elsewhere(data: bytes, family: int, wanted: frozenset[bytes]) -> bytes:
    """The messages of a datagram less the entries that none of ``wanted`` (addresses as bytes) answers: nearly all of
    50,000, which are not worth an object each. What is not as usual stays."""
    head, row = _PLAIN[family][1], _ROWS[family]
    taken_apart, whole, kept, place = row.unpack_from, len(data), [], 0
    usual: dict[bytes, int] = {}
    while place + row.size <= whole:
        begins, reply, address = taken_apart(data, place)
        size = usual.get(begins)
        if size is None or place + size > whole:
            length, kind, flags = _HEAD.unpack(begins)
            if length < row.size or length > whole - place:
                break
            size = length + 3 & ~3
            if kind == SUBSYSTEM | NEW and not flags & DUMP_INTR:
                usual[begins] = size
            else:
                reply = b""
        if address in wanted or reply != head:
            kept.append(data[place : place + size])
        place += size
    return b"".join(kept) + data[place:]


def _is_established_tcp(body: bytes, at: int) -> bool:
    """Only where everything stands where it usually does: else the entry is understood whole."""
    if body[at : at + 5] != _TCP_HERE or body[at + 24 : at + 28] != _STATUS_HERE or not body[at + 31] & _ASSURED:
        return False
    found = body.find(_STATE_HERE, at + 32)
    return found >= 0 and body[found + len(_STATE_HERE) : found + len(_STATE_HERE) + 1] != bytes((_CLOSE,))


_End = tuple[str, int]


def _ends(given: dict[int, bytes], kind: int) -> tuple[_End, _End, int]:
    """Source, destination and protocol of one direction."""
    whole = attributes(given.get(kind, b""))
    addresses, ports = attributes(whole.get(_ADDRESSES, b"")), attributes(whole.get(_PORTS, b""))
    protocol = number(ports, _NUMBER)
    source, destination = (_address(addresses, first, second) for first, second in ((1, 3), (2, 4)))
    return (source, number(ports, 2, 0)), (destination, number(ports, 3, 0)), protocol


def _address(given: dict[int, bytes], four: int, six: int) -> str:
    if len(value := given.get(four, b"")) == 4:
        return str(IPv4Address(value))
    if len(value := given.get(six, b"")) == 16:
        return str(IPv6Address(value))
    raise Malformed("an entry without an address")


def _state(given: dict[int, bytes], protocol: int) -> str:
    """As ``Tracked`` has it, "" for one that carries nothing any more."""
    if protocol == UDP:
        return "NONE"
    facts = attributes(given.get(_PROTOCOL_FACTS, b""))
    which, names, states = (1, _TCP, TCP_STATES) if protocol == TCP else (3, _SCTP, SCTP_STATES)
    if which not in facts:
        if number(given, _STATUS, 0) & _OFFLOADED:  # an entry in a flow table has no state of its own
            return "ESTABLISHED"
        raise Malformed(f"an entry of {_SERVED[protocol]} without a state")
    within = attributes(facts[which])
    at = number(within, 1)
    if at >= len(names):
        raise Malformed(f"{_SERVED[protocol]} in state {at}")
    if protocol == TCP and at == _CLOSE and _is_reset(given, within):
        return RESET
    return states[names[at]]


def _is_reset(given: dict[int, bytes], within: dict[int, bytes]) -> bool:
    """Whether a SYN from the same port would go the way of this connection, whatever the rules say by now.

    It does for 10 s after the endpoint sent RST (nf_conntrack_tcp_timeout_close): the kernel begins a new entry only
    where somebody had closed before, or the RST was the client's (nf_conntrack_proto_tcp.c, "TIME_WAIT or CLOSE").
    Seen on Linux 6.18: 10 of 10 went to the endpoint that no rule led to, after an orderly close 0 of 10. Who sent the
    RST is not told, so a client's holds a drain up for as long. Where nothing was translated the rules had no say.
    """
    flags = b"".join(within.get(kind, b"")[:1] for kind in (_FLAGS_ORIGINAL, _FLAGS_REPLY))
    if any(one & _CLOSE_INIT for one in flags):
        return False
    (_, dialled, _), (answering, _, _) = (_ends(given, kind) for kind in (_ORIGINAL, _REPLY))
    return dialled != answering
