"""Connect from a given source address, thousands of times a minute.

``create_connection(local_addr=(ip, 0))`` binds a port before the destination is known, so every port that is in
TIME_WAIT towards anybody is passed over: with 8,000 of them from one address, ``bind`` scans for 2.5 ms
(measured: bench/kernel_forward.py), and at 14,000 it starts to fail. IP_BIND_ADDRESS_NO_PORT (Linux 4.2) leaves
the port to ``connect``, where only the whole 4-tuple must be free.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from tidegate.vtime.loop import VirtualLoop

_IP_BIND_ADDRESS_NO_PORT = 24
"""ip(7); Python's socket module has no name for it before 3.12."""


async def dial(
    factory: Callable[[], asyncio.BaseProtocol],
    target: tuple[str, int],
    source: str,
    opened: socket.socket | None = None,
) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
    """``create_connection`` to ``target`` (IPv4 address, port) from address ``source``. Raises ``OSError``.

    ``opened``: a fresh TCP socket to do it with, of another network namespace; ours from now on.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        made: tuple[asyncio.BaseTransport, asyncio.BaseProtocol]
        made = await loop.create_connection(factory, *target, local_addr=(source, 0))
        return made
    sock = opened or socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
    except BaseException:
        sock.close()
        raise
    return await connect(factory, target, sock)


async def connect(
    factory: Callable[[], asyncio.BaseProtocol], target: tuple[str, int], sock: socket.socket
) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
    """``create_connection`` with a non-blocking socket, which is ours from now on. Raises ``OSError``.

    Cancelled in its last step, a turn of the loop, uvloop 0.23 calls ``connection_made`` and never ``connection_lost``:
    so that step is not cancelled but undone.
    """
    try:
        await _connected(sock, target)
    except BaseException:
        sock.close()
        raise
    making = asyncio.ensure_future(_made(factory, sock))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_abort)
        raise


async def _made(
    factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """``create_connection``, after which the socket object closes nothing any more that the loop has closed.

    A connection that ends as it is made (reset by its peer, or by ``connection_made``) uvloop 0.23 closes before it
    takes the socket object over (``create_connection`` in loop.pyx, ``_attach_fileobj``): that would close the same
    descriptor again when it is collected, by then another connection's, and libuv aborts (``uv__epoll_ctl_flush``; its
    issue 5130). Once in a few thousand connections beside a rollout, and the lab's kernel was gone.
    """
    loop = asyncio.get_running_loop()
    made = await loop.create_connection(factory, sock=sock)
    if type(loop).__module__.startswith("uvloop"):
        sock.detach()
    return made


def _abort(made: asyncio.Task[tuple[asyncio.Transport, asyncio.BaseProtocol]]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result()[0].abort()


async def _connected(sock: socket.socket, target: tuple[str, int]) -> None:
    # Loopback has answered by the time connect(2) returns EINPROGRESS, so asking again is cheaper than a
    # round through epoll; where it has not (another namespace, a full backlog), the loop waits for it.
    code = sock.connect_ex(target)
    if code == errno.EINPROGRESS:
        code = sock.connect_ex(target)
    if code == errno.EALREADY:
        await asyncio.get_running_loop().sock_connect(sock, target)
    elif code:
        raise OSError(code, f"connect to {target[0]}:{target[1]}: {os.strerror(code)}")
