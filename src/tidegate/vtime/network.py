"""An in-memory TCP for the virtual loop: what a socket of the machine would show, without one.

Refused when nobody listens, FIN on close, RST on abort and on data for a closed socket, half-close, source
addresses bound as asked, and sockets that die with their process. Latency is seeded and per direction; bytes of
one direction keep their order. UNIX sockets are the same thing with a path for an address.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from typing import Any

from tidegate.vtime import process as processes
from tidegate.vtime.timers import TimerLoop
from tidegate.vtime.transport import Address, VirtualTransport

ProtocolFactory = Callable[[], asyncio.BaseProtocol]

LATENCY_NS_MIN = 20_000
LATENCY_NS_MAX = 80_000
"""One way on a loopback or a quiet LAN: tens of microseconds."""

_FIRST_EPHEMERAL_PORT = 32_768
_LAST_EPHEMERAL_PORT = 60_999
_SYN_TIMEOUT_SECONDS = 127.0
"""Linux gives up a SYN after tcp_syn_retries = 6: 1 + 2 + ... + 64 s."""


class Listener(asyncio.AbstractServer):
    """A listening socket. Belongs to the process in whose context it was made."""

    def __init__(self, network: Network, factory: ProtocolFactory, address: Address, inode: int) -> None:
        self.network = network
        self.factory = factory
        self.address = address
        self.inode = inode
        self.owner = processes.current()
        self.context = contextvars.copy_context()
        self.is_shared = False
        self._closed = False
        if self.owner is not None:
            self.owner.own(self)

    @property
    def sockets(self) -> tuple[_SocketName, ...]:
        return () if self._closed else (_SocketName(self.address),)

    def is_serving(self) -> bool:
        return not self._closed

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.network.forget_listener(self)
        if self.owner is not None:
            self.owner.disown(self)

    def process_ended(self) -> None:
        self.close()

    async def wait_closed(self) -> None:
        """Nothing to wait for."""

    async def start_serving(self) -> None:
        """Listening since it was made."""

    async def serve_forever(self) -> None:
        await asyncio.get_running_loop().create_future()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.network.loop

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


class _SocketName:
    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class Network:
    """All virtual sockets of one loop."""

    def __init__(self, loop: TimerLoop, rng: random.Random) -> None:
        self.loop = loop
        self._rng = rng
        self._listeners: dict[Address, Listener] = {}
        self._sharing: dict[Address, list[Listener]] = {}
        """Of an address that several listen on, all of them, who is next first."""
        self._transports: dict[VirtualTransport, None] = {}
        self._next_port: dict[str, int] = {}
        self._ports_in_use: set[tuple[str, int]] = set()
        self._inode = 10_000
        self.blackholes: set[str] = set()
        """Addresses whose packets vanish: connecting to one neither succeeds nor fails until the SYN timeout."""

    def latency_ns(self) -> int:
        return self._rng.randint(LATENCY_NS_MIN, LATENCY_NS_MAX)

    # --- asyncio's verbs ---

    def listen(self, factory: ProtocolFactory, address: Address, *, is_shared: bool = False) -> Listener:
        """Raises ``OSError`` (EADDRINUSE) when the address is taken. ``is_shared``: SO_REUSEPORT; those that share an
        address are asked in turn. A path is the newest listener's: who listens there has unlinked it before."""
        if isinstance(address, tuple) and address[1] == 0:
            address = (address[0], self._take_port(address[0]))
        listener = Listener(self, factory, address, self.next_inode())
        listener.is_shared = is_shared
        there = self._listeners.get(address)
        if there is not None and isinstance(address, tuple):
            if not (is_shared and there.is_shared):
                listener.close()
                raise OSError(98, f"Address already in use: {address}")
            self._sharing.setdefault(address, [there]).append(listener)
            return listener
        self._listeners[address] = listener
        return listener

    async def connect(
        self, factory: ProtocolFactory, address: Address, local: tuple[str, int] | None
    ) -> tuple[VirtualTransport, asyncio.BaseProtocol]:
        """Open a connection. Raises ``ConnectionRefusedError``, or ``TimeoutError`` after the SYN timeout."""
        process = processes.current()
        if isinstance(address, tuple) and address[0] in self.blackholes:
            await asyncio.sleep(_SYN_TIMEOUT_SECONDS)
            raise TimeoutError(110, f"Connection timed out: {address}")
        await asyncio.sleep((self.latency_ns() + self.latency_ns()) / 1e9)
        if process is not None and not process.alive:
            raise ConnectionAbortedError("the process has ended")
        listener = self._listener_at(address)
        if listener is None:
            raise ConnectionRefusedError(111, f"Connect call failed {address}")
        source: Address = ""
        if isinstance(address, tuple):
            host = local[0] if local and local[0] else "127.0.0.1"
            source = (host, local[1] if local and local[1] else self._take_port(host))
        server_protocol = listener.context.copy().run(listener.factory)
        protocol = factory()
        client = VirtualTransport(self, protocol, source, address)
        server = VirtualTransport(self, server_protocol, listener.address, source, listener=listener)
        if isinstance(address, tuple):
            server.local = address
        client.peer, server.peer = server, client
        self._transports[client] = None
        self._transports[server] = None
        server.made()
        protocol.connection_made(client)
        return client, protocol

    def _listener_at(self, address: Address) -> Listener | None:
        listener = self._listeners.get(address)
        if sharing := self._sharing.get(address):
            sharing.append(sharing.pop(0))
            return sharing[-1]
        if listener is None and isinstance(address, tuple):
            listener = self._listeners.get(("0.0.0.0", address[1]))
            if address[0] == "localhost":
                listener = self._listeners.get(("127.0.0.1", address[1]))
        return listener

    # --- bookkeeping ---

    def forget_listener(self, listener: Listener) -> None:
        if sharing := self._sharing.get(listener.address):
            if listener in sharing:
                sharing.remove(listener)
            self._listeners[listener.address] = sharing[0]
            if len(sharing) == 1:
                del self._sharing[listener.address]
        elif self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]

    def forget(self, transport: VirtualTransport) -> None:
        self._transports.pop(transport, None)
        if transport.is_client and isinstance(transport.local, tuple):
            self._ports_in_use.discard(transport.local)

    def next_inode(self) -> int:
        self._inode += 1
        return self._inode

    def _take_port(self, host: str) -> int:
        """The next free ephemeral port of an address, in order: never random, so runs replay."""
        port = self._next_port.get(host, _FIRST_EPHEMERAL_PORT)
        for _ in range(_LAST_EPHEMERAL_PORT - _FIRST_EPHEMERAL_PORT + 1):
            taken = (host, port) in self._ports_in_use or (host, port) in self._listeners
            following = port + 1 if port < _LAST_EPHEMERAL_PORT else _FIRST_EPHEMERAL_PORT
            if not taken:
                self._next_port[host] = following
                self._ports_in_use.add((host, port))
                return port
            port = following
        raise OSError(99, f"Cannot assign requested address: no free port on {host}")

    # --- what /proc shows ---

    def read_text(self, path: str) -> str:
        """/proc/net/tcp of the one network namespace; other files do not exist here."""
        if path.endswith("/net/tcp"):
            return self._proc_net_tcp()
        if path.endswith("/net/tcp6"):
            return _HEADER
        raise FileNotFoundError(2, "No such file or directory", path)

    def socket_inodes(self, pid: int) -> frozenset[int]:
        owned: list[Any] = [*self._transports, *self._listeners.values()]
        return frozenset(one.inode for one in owned if one.owner is not None and one.owner.pid == pid)

    def _proc_net_tcp(self) -> str:
        rows = [_HEADER.rstrip("\n")]
        for listener in self._listeners.values():
            if isinstance(listener.address, tuple):
                rows.append(_row(len(rows) - 1, listener.address, ("0.0.0.0", 0), "0A", listener.inode))
        for transport in self._transports:
            if isinstance(transport.local, tuple) and isinstance(transport.remote, tuple):
                state = transport.tcp_state()
                rows.append(_row(len(rows) - 1, transport.local, transport.remote, state, transport.inode))
        return "\n".join(rows) + "\n"


_HEADER = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    "                                                     \n"
)


def _row(index: int, local: tuple[str, int], remote: tuple[str, int], state: str, inode: int) -> str:
    """One line in the kernel's format (net/ipv4/tcp_ipv4.c get_tcp4_sock): addresses little-endian hex."""
    return (
        f"{index:4d}: {_hex(local)} {_hex(remote)} {state} 00000000:00000000 00:00000000 00000000"
        f"  1000        0 {inode} 1 0000000000000000 20 4 30 10 -1"
    )


def _hex(address: tuple[str, int]) -> str:
    octets = [int(part) for part in address[0].split(".")]
    return "".join(f"{octet:02X}" for octet in reversed(octets)) + f":{address[1]:04X}"
