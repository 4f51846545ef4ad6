"""What chains of one table lead to, and which of their rules were seen before: by ids, for there are 100,000."""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass

CALLERS_MAX = 64
"""A chain that more chains jump to (the one that sets a mark) has no list of them."""
RULES_MAX = 1 << 18
"""Of so many rules it is remembered that they were seen: 2 MiB."""
_ID_BITS = (1 << 60) - 1
_BUCKETS = 1024
_RULE_BUCKETS = 4096


def id_of(name: str | bytes | tuple[str, bytes]) -> int:
    """Two names of one id lead too far, not too short: of a hash that nobody outside can foresee."""
    return hash(name) & _ID_BITS


class Ends:
    """Chain or address -> the chains that lead there, by their ids. In arrays, for there are 100,000: 16 bytes each."""

    def __init__(self) -> None:
        self._callees = [array("Q") for _ in range(_BUCKETS)]
        self._callers = [array("Q") for _ in range(_BUCKETS)]
        self._many: dict[int, None] = {}

    def add(self, callee: int, caller: int) -> None:
        known = self.callers_of(callee)
        if known is None or caller in known:
            return
        if len(known) >= CALLERS_MAX:
            self._many[callee] = None
            return
        self._callees[callee % _BUCKETS].append(callee)
        self._callers[callee % _BUCKETS].append(caller)

    def callers_of(self, callee: int) -> list[int] | None:
        """None for more than ``CALLERS_MAX``."""
        if callee in self._many:
            return None
        callees, callers = self._callees[callee % _BUCKETS], self._callers[callee % _BUCKETS]
        found: list[int] = []
        at = -1
        with suppress(ValueError):
            while True:
                at = callees.index(callee, at + 1)
                found.append(callers[at])
        return found

    def leading_to(self, wanted: list[int]) -> set[int] | None:
        """Everything from which one of ``wanted`` can be reached; None when that may be any chain."""
        found = set(wanted)
        waiting = list(wanted)
        while waiting:
            callers = self.callers_of(waiting.pop())
            if callers is None:
                return None
            for caller in callers:
                if caller not in found:
                    found.add(caller)
                    waiting.append(caller)
        return found


@dataclass(frozen=True, slots=True)
class Named(Container[str]):
    """Names of chains, by their ids."""

    ids: set[int]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and id_of(name) in self.ids

    def among(self, ids: Iterable[int]) -> list[int]:
        """Those of ``ids`` that are of one of them."""
        return sorted(self.ids.intersection(ids))


class SeenRules:
    """The rules of which it is known what they lead to, wherever they stand in their chain: who hears of one again need
    not read it. kube-proxy takes all rules of a chain away and makes them again, of an endpoint as of its Service."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_RULE_BUCKETS)]
        self._count = 0

    def add(self, chain: str, digest: bytes) -> None:
        one = id_of((chain, digest))
        bucket = self._buckets[one % _RULE_BUCKETS]
        if one not in bucket:
            if self._count >= RULES_MAX:
                self.__init__()  # type: ignore[misc]
                bucket = self._buckets[one % _RULE_BUCKETS]
            bucket.append(one)
            self._count += 1

    def has(self, chain: str, digest: bytes) -> bool:
        one = id_of((chain, digest))
        return one in self._buckets[one % _RULE_BUCKETS]
