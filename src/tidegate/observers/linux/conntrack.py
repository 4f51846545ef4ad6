"""The connections that this network namespace's kernel tracks, by the endpoint they are bound to, over netlink.

The kernel looks through 50,000 entries for one address in 25 ms and tells all of them in 120 ms (two shared cores);
so many addresses are not asked for one by one: all is told, and what is not theirs is passed over unread. No filter of
the kernel's is narrower: what an address answered and then reset is told apart by the state of TCP alone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from tidegate import vtime
from tidegate.dataplane import ctnetlink
from tidegate.dataplane.facts import Tracked, Unreadable
from tidegate.dataplane.netlink import (
    DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    Malformed,
    error_of,
    messages,
    request,
)
from tidegate.model.endpoint import Endpoint
from tidegate.observers.linux.datagrams import received
from tidegate.observers.linux.idleflows import IdleFlows

ADDRESSES_MAX = 2
"""So many addresses are asked for one by one."""
SECONDS = 10.0
ENTRIES_MAX = 1 << 20
Connections = tuple[tuple[Tracked, ...], tuple[Unreadable, ...]]
"""And what could not be read."""
_FAMILIES = {4: 2, 6: 10}
_NETLINK_NETFILTER = 12
_DUMP = 0x301
_ACKNOWLEDGED = 0x5
"""NLM_F_REQUEST | NLM_F_ACK."""
_CHUNK_BYTES = 1 << 16
_WHERE = "conntrack"


def read(endpoints: tuple[Endpoint, ...] | None, idle: IdleFlows | None = None) -> Connections:
    """What is being opened towards ``endpoints``, and all of UDP (but what is ``idle``) and SCTP; or everything for
    None. Never raises."""
    try:
        return tuple(_entries(endpoints, idle)), ()
    except (OSError, Malformed) as error:
        return (), (Unreadable(f"tracked connections: {error}", _WHERE),)


def forget(flows: tuple[Tracked, ...]) -> int:
    """Make the kernel forget these UDP flows, and no other; how many were still there. Raises ``OSError``,
    ``Malformed``."""
    count, kept = 0, frozenset(flows)
    with _opened() as netlink:
        for version, family in _FAMILIES.items():
            wanted = frozenset(
                ip_address(one.endpoint.address).packed
                for one in flows
                if (":" in one.endpoint.address) == (version == 6)
            )
            if not wanted:
                continue
            only = ctnetlink.of_protocol(ctnetlink.UDP)
            bodies = [one for one in _bodies(netlink, family, only) if ctnetlink.tracked(one, wanted) in kept]
            count += sum([_forget(netlink, body) for body in bodies])
    return count


def _forget(netlink: socket.socket, body: bytes) -> bool:
    kind = ctnetlink.SUBSYSTEM | ctnetlink.DELETE
    netlink.send(request(kind, _ACKNOWLEDGED, 2, ctnetlink.forgetting(body)))
    [answer] = messages(netlink.recv(_CHUNK_BYTES))
    error = error_of(answer)
    if error not in (0, errno.ENOENT):  # ENOENT: it has ended, or another entry has its place
        raise OSError(error, f"a flow is not forgotten: {errno.errorcode.get(error, error)}")
    return not error


def _opened() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    netlink.settimeout(SECONDS)
    return netlink


def _entries(endpoints: tuple[Endpoint, ...] | None, idle: IdleFlows | None) -> Iterator[Tracked]:
    with _opened() as netlink:
        seen: dict[Tracked, None] = {}
        for version, family in _FAMILIES.items():
            if endpoints is None:
                yield from _dump(netlink, family, b"", None)
                continue
            addresses = dict.fromkeys(one.address for one in endpoints if (":" in one.address) == (version == 6))
            wanted = frozenset(ip_address(one).packed for one in addresses)
            filters = [ctnetlink.answered_by(one) for one in addresses]
            if len(addresses) > ADDRESSES_MAX:
                filters = [b""]
            for only in filters:
                seen |= dict.fromkeys(_dump(netlink, family, only, wanted, idle))
        yield from seen


def _dump(
    netlink: socket.socket, family: int, only: bytes, wanted: frozenset[bytes] | None, idle: IdleFlows | None = None
) -> Iterator[Tracked]:
    now = vtime.now().timestamp()
    for body in _bodies(netlink, family, only, wanted):
        found = ctnetlink.tracked(body, wanted)
        if found is None or (
            idle and found.protocol == "UDP" and idle.is_idle(found, ctnetlink.seconds_left(body), now)
        ):
            continue
        yield found


def _bodies(
    netlink: socket.socket, family: int, only: bytes, wanted: frozenset[bytes] | None = None
) -> Iterator[bytes]:
    """One pass through the table. A table that grows meanwhile is told again from where the pass stood: an entry may
    stand twice, and none is left out. Raises ``OSError``, ``Malformed``."""
    netlink.send(request(ctnetlink.SUBSYSTEM | ctnetlink.GET, _DUMP, 1, bytes((family, 0, 0, 0)) + only))
    count = 0
    for data in received(netlink, SECONDS):
        for message in messages(data if wanted is None else ctnetlink.not_elsewhere(data, family, wanted)):
            if message.kind in (NLMSG_DONE, NLMSG_ERROR):
                if error := error_of(message):
                    raise OSError(error, f"{errno.errorcode.get(error, error)} (nf_conntrack_netlink, CAP_NET_ADMIN)")
                return
            if message.flags & DUMP_INTR:
                raise Malformed("it changed while it was read")
            count += 1
            if message.kind != ctnetlink.SUBSYSTEM | ctnetlink.NEW or count > ENTRIES_MAX:
                raise Malformed(f"a message of type {message.kind}, or more than {ENTRIES_MAX} entries")
            yield message.body
