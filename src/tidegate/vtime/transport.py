"""One end of a virtual connection, as an asyncio transport."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, Protocol

from tidegate.vtime import process as processes
from tidegate.vtime.timers import TimerLoop

Address = tuple[str, int] | str
"""(IPv4 address, port), or a UNIX socket's path."""


class Wire(Protocol):
    """What a transport wants of its network."""

    @property
    def loop(self) -> TimerLoop: ...

    def latency_ns(self) -> int: ...

    def next_inode(self) -> int: ...

    def forget(self, transport: VirtualTransport) -> None: ...


class Acceptor(Protocol):
    """What an accepted transport takes over from the socket that listened."""

    owner: processes.Process | None
    context: contextvars.Context


class VirtualTransport(asyncio.Transport):
    """Delivers to its peer after the network's latency; callbacks run in the owner's context."""

    def __init__(
        self,
        network: Wire,
        protocol: asyncio.BaseProtocol,
        local: Address,
        remote: Address,
        listener: Acceptor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.protocol: Any = protocol
        self.local = local
        self.remote = remote
        self.is_client = listener is None
        self.inode = network.next_inode()
        self.owner = processes.current() if listener is None else listener.owner
        self.context = contextvars.copy_context() if listener is None else listener.context.copy()
        self.peer: VirtualTransport | None = None
        self._made = listener is None
        self._closed = False
        self._sent_eof = False
        self._got_eof = False
        self._lost_called = False
        self._paused = False
        self._inbox: list[tuple[str, bytes]] = []
        self._last_arrival_ns = 0
        if self.owner is not None:
            self.owner.own(self)

    def made(self) -> None:
        """Tell an accepting protocol about its connection, in its own context."""
        self.network.loop.call_soon(self._connection_made, context=self.context)

    def _connection_made(self) -> None:
        self._made = True
        if not self._closed:
            self.protocol.connection_made(self)
        self._deliver_inbox()

    # --- sending ---

    def _send(self, kind: str, payload: bytes = b"") -> None:
        peer = self.peer
        if peer is None:
            return
        loop = self.network.loop
        arrival = max(loop.now_ns + self.network.latency_ns(), self._last_arrival_ns + 1)
        self._last_arrival_ns = arrival
        loop.call_at_ns(arrival, peer._arrive, kind, payload, context=peer.context)

    def write(self, data: Any) -> None:
        if data and not self._closed and not self._sent_eof:
            self._send("data", bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._closed and not self._sent_eof:
            self._sent_eof = True
            self._send("fin")

    def close(self) -> None:
        self._end("fin", None)

    def abort(self) -> None:
        self._end("rst", None)

    def process_ended(self) -> None:
        """The kernel closes for a process that is gone: RST when unread bytes are lost, else FIN."""
        unread = any(kind == "data" for kind, _ in self._inbox)
        self._lost_called = True
        self._end("rst" if unread else "fin", None)

    def _end(self, kind: str, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        if kind == "rst" or not self._sent_eof:
            self._send(kind)
        self._sent_eof = True
        self._release(error)

    def _release(self, error: Exception | None) -> None:
        if self.owner is not None:
            self.owner.disown(self)
        if not self._lost_called:
            self._lost_called = True
            self.network.loop.call_soon(self.protocol.connection_lost, error, context=self.context)
        if self.peer is None or self.peer._closed:
            self.network.forget(self)
            if self.peer is not None:
                self.network.forget(self.peer)

    # --- receiving ---

    def _arrive(self, kind: str, payload: bytes) -> None:
        if kind == "rst":
            self._reset()
        elif self._closed:
            if kind == "data":  # a closed socket answers data with a reset
                self._send("rst")
        else:
            self._inbox.append((kind, payload))
            self._deliver_inbox()

    def _reset(self) -> None:
        if self._closed:
            self.network.forget(self)
            return
        self._closed = True
        self._inbox.clear()
        self._release(ConnectionResetError(104, "Connection reset by peer"))

    def _deliver_inbox(self) -> None:
        while self._inbox and self._made and not self._paused and not self._closed:
            kind, payload = self._inbox.pop(0)
            if kind == "data":
                self.protocol.data_received(payload)
            else:
                self._got_eof = True
                if not self.protocol.eof_received():
                    self.close()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self.network.loop.call_soon(self._deliver_inbox, context=self.context)

    # --- asyncio's questions ---

    def is_reading(self) -> bool:
        return not self._paused and not self._closed

    def is_closing(self) -> bool:
        return self._closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self.protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sockname":
            return self.local
        if name == "peername":
            return self.remote
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (0, 65_536)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Writes never block here."""

    def tcp_state(self) -> str:
        """The state column of /proc/net/tcp (include/net/tcp_states.h), as hex."""
        if self._closed:
            return "05" if self.peer is not None and not self.peer._closed else "06"
        if self._sent_eof:
            return "04" if not self._got_eof else "0B"
        return "08" if self._got_eof else "01"
