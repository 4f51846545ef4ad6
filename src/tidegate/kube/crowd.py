"""What a server bears from callers it does not know: how many, how slow, how large, and who makes room for whom.

A caller is a stranger until somebody vouches for it (its certificate, its token). Strangers share few places. When they
are all taken, the one who came first of the address with the most strangers makes room: whoever fills a port, however
slowly, throws out its own and not the coordinator.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Per server. ``strangers_max`` and ``known_max``: connections at once. ``request_seconds``: for the handshake, and
    for a whole request from its first byte, or from the answer before. ``answer_seconds``: for the answer to be taken.
    ``buffered_bytes_max``: of all strangers' bodies together, beyond ``free_bytes`` of each."""

    strangers_max: int = 64
    known_max: int = 256
    request_seconds: float = 5.0
    answer_seconds: float = 10.0
    head_bytes_max: int = 16 * 1024
    body_bytes_max: int = 1024 * 1024
    buffered_bytes_max: int = 8 * 1024 * 1024
    free_bytes: int = 16 * 1024
    log_seconds: float = 10.0


DEFAULT_LIMITS = Limits()


@dataclass(eq=False, slots=True)
class Guest:
    """One connection. ``abort`` ends it at once."""

    source: str
    abort: Callable[[], None]
    is_known: bool = False
    buffered_bytes: int = 0


@dataclass(slots=True)
class Crowd:
    """All connections of one server. ``log`` is told of those turned away by their number, never one by one."""

    limits: Limits
    log: Callable[[str], None]
    known: int = 0
    _strangers: dict[str, dict[Guest, None]] = field(default_factory=dict)
    _count: int = 0
    _buffered_bytes: int = 0
    _turned_away: Counter[str] = field(default_factory=Counter)
    _last_source: str = ""
    _telling: asyncio.TimerHandle | None = None
    _told_at: float = float("-inf")

    @property
    def strangers(self) -> int:
        return self._count

    def enter(self, guest: Guest) -> None:
        """A stranger more; where there is no place, another goes."""
        self._strangers.setdefault(guest.source, {})[guest] = None
        self._count += 1
        while self._count > self.limits.strangers_max:
            fullest = max(self._strangers.values(), key=len)
            oldest = next(iter(fullest))
            self.leave(oldest)
            self.turn_away(oldest, "to make room")

    def has(self, guest: Guest) -> bool:
        return guest.is_known or guest in self._strangers.get(guest.source, {})

    def leave(self, guest: Guest) -> None:
        """Gone, or about to be. Twice is once."""
        self._forget_bytes(guest)
        if guest.is_known:
            guest.is_known = False
            self.known -= 1
            return
        theirs = self._strangers.get(guest.source, {})
        if guest in theirs:
            del theirs[guest]
            self._count -= 1
            if not theirs:
                del self._strangers[guest.source]

    def vouch(self, guest: Guest) -> bool:
        """It is known now: nobody takes its place. False where too many are known; it is turned away then."""
        if guest.is_known:
            return True
        if guest not in self._strangers.get(guest.source, {}):
            return False  # it made room meanwhile
        self.leave(guest)
        if self.known >= self.limits.known_max:
            self.turn_away(guest, "for want of room among those that are known")
            return False
        guest.is_known = True
        self.known += 1
        return True

    def buffers(self, guest: Guest, size: int) -> bool:
        """Whether ``size`` bytes more of a body may be kept until it is whole."""
        guest.buffered_bytes += size
        if guest.is_known or guest.buffered_bytes <= self.limits.free_bytes:
            return True
        self._buffered_bytes += min(size, guest.buffered_bytes - self.limits.free_bytes)
        return self._buffered_bytes <= self.limits.buffered_bytes_max

    def took(self, guest: Guest) -> None:
        """The request was whole, and is dealt with."""
        self._forget_bytes(guest)

    def turn_away(self, guest: Guest, why: str) -> None:
        """End a connection, and count it."""
        self.count(guest, why)
        guest.abort()

    def count(self, guest: Guest, why: str) -> None:
        """One that is ended some other way."""
        self._turned_away[why] += 1
        self._last_source = guest.source
        if self._telling is None:
            loop = asyncio.get_running_loop()
            # The first is told of soon, the rest of a flood once in a while.
            due_at = max(loop.time() + 1.0, self._told_at + self.limits.log_seconds)
            self._telling = loop.call_at(due_at, self._tell)

    def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    def _forget_bytes(self, guest: Guest) -> None:
        if not guest.is_known:
            self._buffered_bytes -= max(0, guest.buffered_bytes - self.limits.free_bytes)
        guest.buffered_bytes = 0

    def _tell(self) -> None:
        self._telling = None
        self._told_at = asyncio.get_running_loop().time()
        counts = ", ".join(f"{count} {why}" for why, count in sorted(self._turned_away.items()))
        total = self._turned_away.total()
        self._turned_away.clear()
        self.log(f"turned away {total} connections ({counts}), the last from {self._last_source or 'nowhere'}")
