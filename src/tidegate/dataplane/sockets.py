"""``/proc/net/tcp`` and ``/proc/net/tcp6`` -> sockets, and the question whether a pod is quiet.

Quiet means: no inbound connection is left in a state that can still carry an answer. A connection counts when its
local port is one the pod listens on; its own outgoing connections (a database pool) do not. The dump must show the
LISTEN socket of every endpoint asked about, else we are looking into the wrong network namespace (a sandboxed
runtime keeps its sockets to itself) and the answer is unreadable, not "none".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from tidegate.dataplane.facts import Unreadable
from tidegate.model.endpoint import Endpoint, canonical

# include/net/tcp_states.h; 0x0C (NEW_SYN_RECV) is printed as 03 by the kernel.
STATES = {
    0x01: "ESTABLISHED", 0x02: "SYN_SENT", 0x03: "SYN_RECV", 0x04: "FIN_WAIT1", 0x05: "FIN_WAIT2", 0x06: "TIME_WAIT",
    0x07: "CLOSE", 0x08: "CLOSE_WAIT", 0x09: "LAST_ACK", 0x0A: "LISTEN", 0x0B: "CLOSING",
}  # fmt: skip
ANSWERING = frozenset({"SYN_RECV", "ESTABLISHED", "CLOSE_WAIT"})
"""We have not closed: an answer may come at any time. SYN_RECV is a handshake that one packet turns into one."""
FLUSHING = frozenset({"FIN_WAIT1", "CLOSING", "LAST_ACK"})
"""We have closed, but bytes of the answer (or our FIN, which counts as one) may not have been taken by the peer."""
TIME_WAIT = "06"
WILDCARDS = ("0.0.0.0", "::")
_DEAF = "no LISTEN socket for"
NOWHERE = "none of this node's network namespaces have"
"""What a node says of a pod's address that no process of it has: the pod's sandbox is not there (yet, or any more)."""
NO_INBOUND = "no inbound sockets and no activity probe: whether it is working is not known"
"""A pod that listens nowhere (a queue worker, a batch job) is not idle because nobody is connected to it."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One line of the table. ``unsent`` is tx_queue: bytes written by the app and not yet acknowledged by the peer."""

    local: Endpoint
    remote: Endpoint
    state: str
    unsent: int
    inode: int

    @property
    def can_answer(self) -> bool:
        return self.state in ANSWERING or (self.state in FLUSHING and self.unsent > 0)

    def __str__(self) -> str:
        unsent = f", {self.unsent} bytes unsent" if self.unsent else ""
        return f"{self.remote} -> {self.local} {self.state}{unsent}"


@dataclass(frozen=True, slots=True)
class Quiet:
    """The answer to "is anything in flight?": the connections that are, or why it cannot be told.

    ``busy``: what the workload's activity probe says against it (working, or unreadable), in sentences.
    ``doubts``: what keeps quiet from being a proof though nothing speaks against it.
    """

    live: tuple[Socket, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    busy: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def is_quiet(self) -> bool:
        return not self.live and not self.unreadable and not self.busy

    @property
    def is_deaf(self) -> bool:
        """Whether all that keeps it from being told is that the pod does not listen where it should."""
        return self._is_only(_DEAF)

    @property
    def is_nowhere(self) -> bool:
        """Whether all that keeps it from being told is that nothing on the node has the pod's address."""
        return self._is_only(NOWHERE)

    def _is_only(self, reason: str) -> bool:
        is_silent = not self.live and not self.busy
        return bool(self.unreadable) and is_silent and all(one.reason.startswith(reason) for one in self.unreadable)

    def __str__(self) -> str:
        if self.unreadable:
            why = f"sockets unreadable: {'; '.join(str(unreadable) for unreadable in self.unreadable)}"
            return "; ".join((why, *self.busy))
        if not self.live:
            return "; ".join(self.busy) or "nothing in flight"
        clients = ", ".join(str(socket.remote) for socket in self.live[:3])
        more = f" and {len(self.live) - 3} more" if len(self.live) > 3 else ""
        return "; ".join((f"{len(self.live)} in flight: {clients}{more}", *self.busy))


def parse(text: str, where: str = "/proc/net/tcp") -> tuple[Socket, ...] | Unreadable:
    """All sockets of one table, IPv4 or IPv6 (told by the length of the address), but those in TIME_WAIT.

    TIME_WAIT carries nothing any more, and on a busy node nine of ten lines are in it. Never raises.
    """
    header, *lines = text.splitlines() or [""]
    if "local_address" not in header:
        return Unreadable("no header line", where)
    sockets = []
    for number, line in enumerate(lines, start=2):
        fields = line.split()
        if len(fields) > 9 and fields[3] == TIME_WAIT:
            continue
        try:
            if fields:
                sockets.append(_socket(fields))
        except (ValueError, IndexError, KeyError) as error:
            return Unreadable(f"{error!r}: {line.strip()[:80]!r}", f"{where}:{number}")
    return tuple(sockets)


def _socket(fields: list[str]) -> Socket:
    tx_queue, separator, _ = fields[4].partition(":")
    if not separator:
        raise ValueError("no queues")
    state = STATES[int(fields[3], 16)]
    return Socket(_endpoint(fields[1]), _endpoint(fields[2]), state, int(tx_queue, 16), int(fields[9]))


def _endpoint(text: str) -> Endpoint:
    """``0100007F:1F90`` -> 127.0.0.1:8080."""
    address, separator, port = text.partition(":")
    if not separator:
        raise ValueError("no address")
    return Endpoint(_address(address), int(port, 16))


@lru_cache(maxsize=4096)
def _address(text: str) -> str:
    """The kernel prints each 32-bit word of an address in host byte order (little endian on all nodes we know)."""
    if len(text) not in (8, 32):
        raise ValueError("no address")
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    return canonical(str(ip_address(b"".join(words))))


def owned_by(sockets: Iterable[Socket], inodes: frozenset[int]) -> tuple[Socket, ...]:
    """The sockets among ``sockets`` that belong to a process holding ``inodes`` (from its ``/proc/PID/fd``)."""
    return tuple(socket for socket in sockets if socket.inode in inodes)


def quiet(
    tables: Iterable[tuple[Socket, ...] | Unreadable], endpoints: Iterable[Endpoint], kubelet: Iterable[Socket] = ()
) -> Quiet:
    """Whether the pod that serves ``endpoints`` has anything in flight.

    ``tables`` are the pod's socket tables (tcp and tcp6 of its network namespace), ``kubelet`` the sockets the kubelet
    holds (``owned_by``): a probe, or the gate's own call, is not a client. An endpoint with port 0 stands for whatever
    listens at its address: nobody has said that anything should, so none is none, but with nothing listening at all it
    is in doubt whether that says anything about the pod's work.
    """
    unreadable: list[Unreadable] = []
    sockets: list[Socket] = []
    for table in tables:
        if isinstance(table, Unreadable):
            unreadable.append(table)
        else:
            sockets += table
    listening = [socket.local for socket in sockets if socket.state == "LISTEN"]
    live: list[Socket] = []
    is_heard = False
    probes = {(socket.local, socket.remote) for socket in kubelet}
    for endpoint in sorted(set(endpoints)):
        ports = {at.port for at in listening if _serves(at, endpoint)}
        is_heard = is_heard or bool(ports)
        if not ports and endpoint.port:
            unreadable.append(Unreadable(f"{_DEAF} {endpoint}: is this the pod's own network?"))
        for socket in sockets:
            inbound = socket.local.port in ports and endpoint.covers(socket.local)
            if inbound and socket.can_answer and (socket.remote, socket.local) not in probes:
                live.append(socket)
    doubts = () if is_heard or unreadable else (NO_INBOUND,)
    return Quiet(tuple(dict.fromkeys(live)), tuple(unreadable), doubts=doubts)


def _serves(listening: Endpoint, endpoint: Endpoint) -> bool:
    if listening.address in WILDCARDS:
        return not endpoint.port or listening.port == endpoint.port
    return endpoint.covers(listening)
