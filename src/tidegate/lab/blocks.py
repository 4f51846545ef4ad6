"""Blocks of loopback addresses, claimed for one lab at a time on this machine.

A claim is three abstract UNIX sockets, one per second octet. They live in the network namespace, as the addresses
do: every user and every state folder sees them, and they are gone with the last process that holds them.
"""

from __future__ import annotations

import errno
import socket

from tidegate.lab.config import Addressing
from tidegate.lab.folder import LabError

BLOCKS = range(16, 124, 4)
"""Tried in this order. 127.0 is everybody's; what resolvers use (127.0.0.53, 127.0.1.1) stays out of it too."""

_OCTETS = 3


class Claim:
    """A block that is ours while its descriptors are open, in this process or in one they were passed to."""

    def __init__(self, block: int, sockets: list[socket.socket]) -> None:
        self.block = block
        self._sockets = sockets

    def filenos(self) -> tuple[int, ...]:
        """The descriptors to pass on."""
        return tuple(one.fileno() for one in self._sockets)

    def close(self) -> None:
        """Let go of it here."""
        for one in self._sockets:
            one.close()


def claim(block: int, port: int) -> Claim:
    """Claim ``block``, or the first free one for 0, with a free API server's ``port``. Raises ``LabError``."""
    if block:
        taken = _take(block)
        if taken is None:
            raise LabError(
                f"addresses 127.{block} to 127.{block + _OCTETS - 1} belong to another lab; choose another --block"
            )
        problem = _bind_problem(Addressing(block, port))
        if problem is not None:
            taken.close()
            raise _unbindable(Addressing(block, port), problem, "; choose another with --port or --block")
        return taken
    return _first_free(port)


def _first_free(port: int) -> Claim:
    problem, addressing = None, Addressing()
    for block in BLOCKS:
        taken = _take(block)
        if taken is None:
            continue
        addressing = Addressing(block, port)
        problem = _bind_problem(addressing)
        if problem is None:
            return taken
        taken.close()
        if problem.errno != errno.EADDRINUSE:  # another block would say the same
            raise _unbindable(addressing, problem, "; choose another with --port")
    if problem is None:
        raise LabError(
            f"all {len(BLOCKS)} blocks of loopback addresses belong to labs that are up; "
            "`tidegate lab status --all` lists yours, `tidegate lab down` takes one down"
        )
    raise _unbindable(addressing, problem, " here and in every other free block; choose another with --port")


def _take(block: int) -> Claim | None:
    sockets: list[socket.socket] = []
    for octet in range(block, block + _OCTETS):
        one = socket.socket(socket.AF_UNIX)
        sockets.append(one)
        try:
            one.bind(f"\0tidegate-127.{octet}")
        except OSError:
            Claim(block, sockets).close()
            return None
    return Claim(block, sockets)


def _bind_problem(addressing: Addressing) -> OSError | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((addressing.host, addressing.api_port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def _unbindable(addressing: Addressing, problem: OSError, advice: str) -> LabError:
    why = (problem.strerror or str(problem)).lower()
    if problem.errno == errno.EACCES:
        why += " (ports below 1024 are for root)"
    return LabError(f"the API server cannot listen on {addressing.host}:{addressing.api_port}: {why}{advice}")
