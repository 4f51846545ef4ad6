"""Two connections made one: bytes, half-closes and resets pass through, nothing else is added.

Callback protocols instead of streams: a stream pair costs about three times the CPU per connection, and the
kernels share two cores with the load that measures them (bench/kernel_forward.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tidegate.vtime.dial import dial

_LINGER_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: close(2) sends RST (socket(7)). ``transport.abort()`` alone sends FIN on a real socket."""

_HELD_BYTES_MAX = 256 * 1024
"""Bytes taken from a client before its endpoint answers; then the client waits."""


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()


class Side(asyncio.Protocol):
    """One end of a splice. Until it has a peer it holds what it received."""

    __slots__ = ("_held", "_held_bytes", "has_ended", "is_lost", "peer", "splice", "transport")

    def __init__(self, splice: Splice) -> None:
        self.splice = splice
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None
        self.has_ended = False
        self.is_lost = False
        self._held: list[bytes] = []
        self._held_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.splice.made(self)

    def data_received(self, data: bytes) -> None:
        peer = self.peer
        if peer is not None:
            peer.transport.write(data)  # type: ignore[union-attr]
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.has_ended = True
        self.splice.ended(self)
        return True

    def pause_writing(self) -> None:
        if self.peer is not None and not self.peer.is_lost and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.is_lost and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.splice.lost(self)

    def join(self, peer: Side) -> None:
        """From now on everything received goes to ``peer``, beginning with what was held."""
        self.peer = peer
        assert peer.transport is not None and self.transport is not None
        for data in self._held:
            peer.transport.write(data)
        if self._held_bytes > _HELD_BYTES_MAX:
            self.transport.resume_reading()
        self._held.clear()
        if self.has_ended:
            peer.transport.write_eof()


class Splice:
    """A client's connection and the one opened for it. Subclasses decide whom to dial and what to record."""

    __slots__ = ("client", "dialling", "is_over", "server")

    def __init__(self) -> None:
        self.client = Side(self)
        self.server = Side(self)
        self.dialling: asyncio.Task[None] | None = None
        self.is_over = False

    def opened(self) -> None:
        """The client is connected: dial for it or ``refuse`` it."""
        raise NotImplementedError

    def spliced(self) -> None:
        """Both ends are connected."""

    def closing(self) -> None:
        """The first FIN was seen."""

    def over(self) -> None:
        """Both ends are gone. Called once."""

    def dial(self, target: tuple[str, int], source: str) -> None:
        """Connect to ``target`` from address ``source``, so that the pod sees the real client."""
        self.dialling = asyncio.get_running_loop().create_task(self._dial(target, source))

    async def _dial(self, target: tuple[str, int], source: str) -> None:
        try:
            await dial(lambda: self.server, target, source)
        except OSError:
            self.refuse()
        finally:
            self.dialling = None

    def refuse(self) -> None:
        """No endpoint, or none that answers: the client's connection is reset."""
        self.server.is_lost = True
        if self.client.transport is not None and not self.client.is_lost:
            reset(self.client.transport)

    def made(self, side: Side) -> None:
        if side is self.client:
            self.opened()
            return
        if self.client.is_lost:
            reset(side.transport)  # type: ignore[arg-type]
            return
        self.server.peer = self.client  # first: what the client sent so far may already fill the server's buffer
        self.client.join(self.server)
        self.server.join(self.client)
        self.spliced()

    def ended(self, side: Side) -> None:
        peer = side.peer
        if peer is None:
            return
        self.closing()
        if peer.has_ended:
            self.client.transport.close()  # type: ignore[union-attr]
            self.server.transport.close()  # type: ignore[union-attr]
        elif not peer.is_lost:
            peer.transport.write_eof()  # type: ignore[union-attr]

    def lost(self, side: Side) -> None:
        other = self.server if side is self.client else self.client
        if not other.is_lost:
            if other.transport is None:
                self._give_up_dialling()
                other.is_lost = True
            elif self.client.has_ended and self.server.has_ended:
                other.transport.close()
            else:
                reset(other.transport)
        if self.client.is_lost and self.server.is_lost and not self.is_over:
            self.is_over = True
            self.over()
            self.client.peer = self.server.peer = None

    def _give_up_dialling(self) -> None:
        if self.dialling is not None:
            self.dialling.cancel()
