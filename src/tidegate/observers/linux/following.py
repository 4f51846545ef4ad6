"""The rules of nftables, followed: one mirror, one socket to ask, one on which the kernel tells of commits."""

from __future__ import annotations

import ctypes
import gc
import platform
import select
from contextlib import suppress

from tidegate.dataplane.facts import Facts
from tidegate.dataplane.frontends import Asking
from tidegate.dataplane.netlink import Malformed
from tidegate.dataplane.nftables.mirror import Mirror
from tidegate.dataplane.nftables.source import Changed
from tidegate.observers.linux.generation import ABSENT, Generations
from tidegate.observers.linux.nftables import Commits, Questions

TRIES = 20
FAILURES_MAX = 2
"""Each time everything is read anew, which takes seconds on a large node."""
TOLD_SECONDS = 2.0
"""The kernel counts a commit before it tells of it: 100,000 rules take it a tenth of a second."""
OWN_TABLE = (1, "tidegate")
"""(NFPROTO_INET, name): kept by ``gate.py``; it leads to this node's holder and nowhere else, so it is not traced."""


class NotRead(Exception):
    """The rules, or a part of them, could not be read."""


class Followed:
    """Not for two threads at once."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._questions: Questions | None = None
        self._commits: Commits | None = None
        self._mirror: Mirror | None = None

    def close(self) -> None:
        for one in (self._questions, self._commits):
            if one is not None:
                one.close()
        self._questions = self._commits = self._mirror = None

    def fileno(self) -> int:
        """What becomes readable with a commit; -1 while nothing is followed."""
        return -1 if self._commits is None else self._commits.fileno()

    @property
    def kinds(self) -> list[str]:
        """Whose rules translate in nftables."""
        return [] if self._mirror is None else self._mirror.kinds

    @property
    def served(self) -> frozenset[int]:
        """The address families for which something translates in nftables."""
        return frozenset() if self._mirror is None else self._mirror.served

    def catch_up(self) -> tuple[Mirror | None, int]:
        """The rules as of a generation of now; None where the kernel has no nftables. Raises ``NotRead``."""
        why: Exception = NotRead("never tried")
        failures = 0
        for _ in range(TRIES):
            try:
                generation = self._generations.now()
                if generation == ABSENT:
                    return None, ABSENT
                mirror = self._whole()
                self._hear_until(mirror, generation)
                mirror.refresh()
                if not mirror.touched:
                    return mirror, mirror.generation
            except Changed as error:
                why = error
            except (OSError, Malformed) as error:  # ENOBUFS: something is lost
                why = error
                self.close()
                failures += 1
                if failures == FAILURES_MAX:
                    break
        raise NotRead(f"the rules of nftables: {why}") from why

    def facts(self, asking: Asking) -> tuple[Facts, int] | None:
        """What leads to what is asked about, and the generation that shows it; None without nftables. Raises
        ``NotRead``, also when the rules change faster than they can be read."""
        for _ in range(TRIES):
            mirror, generation = self.catch_up()
            if mirror is None:
                return None
            with suppress(Changed):
                try:
                    facts = mirror.facts(asking)
                    if self._generations.now() == generation:
                        return facts, generation
                except (OSError, Malformed) as error:
                    self.close()
                    raise NotRead(f"the rules of nftables: {error}") from error
        raise NotRead(f"the rules changed during each of {TRIES} readings")

    def told(self) -> int:
        """A generation of now whose commit has ended: the kernel counts it first, lets packets meet its rules next,
        and tells of it last. ``ABSENT`` where that is not known."""
        if self._mirror is not None:
            try:
                self._hear_until(self._mirror, self._generations.now())
                return self._mirror.generation
            except (OSError, Malformed):
                self.close()
        return ABSENT

    def hear(self) -> None:
        """Take down what the kernel told, so that it does not pile up. Forgets everything when something is lost."""
        if self._mirror is not None:
            try:
                self._take_down(self._mirror)
            except (OSError, Malformed):
                self.close()

    def _whole(self) -> Mirror:
        if self._mirror is not None:
            return self._mirror
        self.close()
        gc.unfreeze()  # a mirror before this one is garbage now, and the collector is to see it
        gc.collect()
        self._commits = Commits()
        self._questions = Questions()
        mirror = Mirror(self._questions, frozenset([OWN_TABLE]), tells_renames=_is_since(5, 15))
        mirror.begin(self._generations.now(), lambda: self._take_down(mirror))
        self._mirror = mirror
        _settle()
        return mirror

    def _take_down(self, mirror: Mirror) -> None:
        if self._commits is not None:
            for datagram in self._commits.heard():
                mirror.hear_all(datagram)

    def _hear_until(self, mirror: Mirror, generation: int) -> None:
        self._take_down(mirror)
        while mirror.generation < generation and self._commits is not None:
            if not select.select([self._commits], [], [], TOLD_SECONDS)[0]:
                raise Malformed(f"nothing was told of generation {generation}")
            self._take_down(mirror)


def _settle() -> None:
    """What is known of the rules stays: the collector need not look through it again, 100,000 objects at 10,000
    Services, which took 30 to 45 ms in one of four questions about 500 pods. What reading everything once took is given
    back, 5 of 58 MiB there. Only glibc keeps it, and has a word for it."""
    gc.collect()
    gc.freeze()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _is_since(*wanted: int) -> bool:
    """Whether this machine's Linux is of that version or later."""
    told = platform.release().split("-")[0].split(".")[: len(wanted)]
    return all(part.isdigit() for part in told) and tuple(map(int, told)) >= wanted
