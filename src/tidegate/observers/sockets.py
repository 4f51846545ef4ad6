"""The sockets of a pod, from ``/proc/.../net/tcp``: is a connection to it still in flight?

Raw text in; the judgement is ``dataplane.sockets``'. Lines that cannot concern the pod are dropped unread: under
load a host's table has tens of thousands of TIME_WAIT lines, and parsing them all costs half a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from tidegate import vtime
from tidegate.dataplane import sockets
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockdiag import packed
from tidegate.dataplane.sockets import Quiet, Socket
from tidegate.model.endpoint import Endpoint
from tidegate.observers import sockdiag

_TABLES = ("tcp", "tcp6")
_LISTEN = " 0A "
_DIAGNOSED = {"/proc/net/tcp": 2, "/proc/net/tcp6": 10}
"""Our own namespace's tables, by address family: sock_diag gives them without TIME_WAIT, some 30 times faster."""


def read_quiet(endpoints: Iterable[Endpoint], kubelet_pid: int = 0, proc: str = "/proc") -> Quiet:
    """Whether anything is in flight at ``endpoints`` in the network namespace behind ``proc`` (/proc/PID of the
    pod on a real node). Connections whose client end the kubelet (``kubelet_pid``) holds are not clients."""
    asked = tuple(endpoints)
    tables = [_table(f"{proc}/net/{name}", asked) for name in _TABLES]
    known = [socket for table in tables if not isinstance(table, Unreadable) for socket in table]
    found = sockets.quiet(tables, asked)
    if not found.live or not kubelet_pid:
        return found
    try:
        inodes = vtime.socket_inodes(kubelet_pid)
    except OSError:
        return found  # nobody's connections are ignored: the kubelet's own end soon
    return sockets.quiet(tables, asked, sockets.owned_by(known, inodes))


def _table(path: str, endpoints: tuple[Endpoint, ...]) -> tuple[Socket, ...] | Unreadable:
    if path in _DIAGNOSED and not vtime.is_virtual():
        answer = sockdiag.read(_DIAGNOSED[path], packed(endpoint.address for endpoint in endpoints))
        if not isinstance(answer, Unreadable):
            return answer
    try:
        text = vtime.read_text(path)
    except FileNotFoundError as error:
        if path.endswith("6"):
            return ()  # a kernel without IPv6 has no such file
        return Unreadable(str(error), path)
    except OSError as error:
        return Unreadable(str(error), path)
    needles = tuple(sorted({_hex(endpoint.address) for endpoint in endpoints}))
    header, *lines = text.splitlines() or [""]
    kept = [line for line in lines if _LISTEN in line or any(needle in line for needle in needles)]
    return sockets.parse("\n".join([header, *kept]), path)


def _hex(address: str) -> str:
    """As the kernel prints an address: 32-bit words in host (little-endian) order. The mapped form contains it."""
    packed = ip_address(address).packed
    return b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4)).hex().upper()


# --- between processes ---


class _WireSocket(msgspec.Struct, forbid_unknown_fields=True):
    local: str
    remote: str
    state: str
    unsent: int
    inode: int


class _WireQuiet(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    node: str
    live: list[_WireSocket]
    unreadable: list[tuple[str, str]]
    doubts: list[str] = []


def encode_quiet(node: str, quiet: Quiet) -> bytes:
    """``{"node", "live": [{"local", "remote", "state", "unsent", "inode"}], "unreadable": [[reason, where]],
    "doubts"?: [sentence]}``."""
    live = [_WireSocket(str(one.local), str(one.remote), one.state, one.unsent, one.inode) for one in quiet.live]
    unreadable = [(one.reason, one.where) for one in quiet.unreadable]
    return msgspec.json.encode(_WireQuiet(node, live, unreadable, list(quiet.doubts)))


def decode_quiet(body: bytes, node: str) -> Quiet:
    """Never raises: what is not understood is unreadable."""
    try:
        raw = msgspec.json.decode(body, type=_WireQuiet)
        if raw.node != node:
            raise ValueError(f"this is the answer of {raw.node!r}")
        live = tuple(
            Socket(Endpoint.parse(one.local), Endpoint.parse(one.remote), one.state, one.unsent, one.inode)
            for one in raw.live
        )
        unreadable = tuple(Unreadable(reason, where) for reason, where in raw.unreadable)
        return Quiet(live, unreadable, doubts=tuple(raw.doubts))
    except (msgspec.DecodeError, ValueError) as error:
        return Quiet(unreadable=(Unreadable(str(error), f"connections on {node}"),))
