"""An in-memory UDP for the virtual loop: datagrams that arrive whole, late by a seeded latency, or nowhere.

To a port where nobody listens a connected socket hears "refused" (ICMP); a blackhole says nothing. Nothing is lost,
doubled or reordered by itself: who wants that drops datagrams where they are received.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from typing import Any

from tidegate.vtime import process as processes
from tidegate.vtime.timers import TimerLoop

Host = tuple[str, int]
LATENCY_NS_MIN, LATENCY_NS_MAX = 20_000, 80_000
_FIRST_PORT = 32_768


class VirtualDatagrams(asyncio.DatagramTransport):
    """One UDP socket. Closed with the process in whose context it was made."""

    def __init__(self, network: DatagramNetwork, protocol: Any, local: Host, remote: Host | None) -> None:
        super().__init__()
        self._network = network
        self.protocol = protocol
        self.local, self.remote = local, remote
        self.context = contextvars.copy_context()
        self._is_closed = False
        self._owner = processes.current()
        if self._owner is not None:
            self._owner.own(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self._is_closed:
            target = self.remote if addr is None else (str(addr[0]), int(addr[1]))
            assert target is not None, "a socket that is not connected is told where to"
            self._network.send(self, bytes(data), target)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._network.forget(self)
        if self._owner is not None:
            self._owner.disown(self)
        self._network.loop.call_soon(self.protocol.connection_lost, None, context=self.context)

    def abort(self) -> None:
        self.close()

    def process_ended(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": self.local, "peername": self.remote}.get(name, default)


class DatagramNetwork:
    """All virtual UDP sockets of one loop. ``blackholes`` are the network's."""

    def __init__(self, loop: TimerLoop, rng: random.Random, blackholes: set[str]) -> None:
        self.loop = loop
        self._rng = rng
        self._blackholes = blackholes
        self._sockets: dict[Host, VirtualDatagrams] = {}
        self._next_port = _FIRST_PORT

    def open(self, factory: Any, local: Host | None, remote: Host | None) -> tuple[VirtualDatagrams, Any]:
        """Raises ``OSError`` when the address is taken."""
        host, port = local or ("127.0.0.1", 0)
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        if (host, port) in self._sockets:
            raise OSError(98, f"Address already in use: {(host, port)}")
        protocol = factory()
        made = self._sockets[host, port] = VirtualDatagrams(self, protocol, (host, port), remote)
        protocol.connection_made(made)
        return made, protocol

    def send(self, sender: VirtualDatagrams, data: bytes, target: Host) -> None:
        if target[0] not in self._blackholes:
            self._later(self._arrive, sender, data, target)

    def forget(self, socket: VirtualDatagrams) -> None:
        self._sockets.pop(socket.local, None)

    def _arrive(self, sender: VirtualDatagrams, data: bytes, target: Host) -> None:
        receiver = self._sockets.get(target) or self._sockets.get(("0.0.0.0", target[1]))
        if receiver is not None and receiver.remote in (None, sender.local):
            receiver.context.run(receiver.protocol.datagram_received, data, sender.local)
        elif receiver is None and sender.remote is not None:
            self._later(self._refuse, sender)

    def _refuse(self, sender: VirtualDatagrams) -> None:
        if not sender.is_closing():
            sender.context.run(sender.protocol.error_received, ConnectionRefusedError(111, "Connection refused"))

    def _later(self, call: Any, *args: Any) -> None:
        delay_ns = self._rng.randint(LATENCY_NS_MIN, LATENCY_NS_MAX)
        # In nobody's context: what is under way arrives though its sender has ended.
        self.loop.call_later(delay_ns / 1e9, call, *args, context=contextvars.Context())
