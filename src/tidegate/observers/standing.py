"""How one replica stands towards one drain: its readings in order, weighed against the drain's epoch.

*Fenced* evidence (it shows epochs) can confirm. *Weak* evidence (it shows none) never can: an endpoint that is absent
may be one that is still to be added. It is waited for until it was seen absent for the settle time in an unbroken row
of readings, two at the least, and then it is assumed.

Either may *linger*: others were told of the endpoint before and may use that for so long (a TTL). Then the row of
readings without it has to last that long, from one reading that was answered to one that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.dataplane.facts import Facts
from tidegate.drain.acknowledgement import Verdict
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch, earliest
from tidegate.observers.external import Fencing


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of an observer: ``is_required`` (else it is told and asked, never waited for), whether to ``hold``
    while it is unreachable, and the settle time of weak evidence in seconds."""

    fencing: Fencing = Fencing.DOUBLE
    is_required: bool = True
    holds_unreachable: bool = True
    settle_seconds: float = 5.0


@dataclass(slots=True)
class Standing:
    """Of one replica towards one drain at one epoch."""

    terms: Terms
    epoch: Epoch
    _absent_since: float | None = None
    _settle_seconds: float = 0.0
    _seen_at: Epoch | None = None
    _was_seen_twice: bool = False
    _had_let_go: bool = False
    _clean_until: tuple[float, float] | None = None
    """Since when every reading was fenced and without a route, and until when what was told before may be used."""

    def take(
        self, facts: Facts, endpoints: Iterable[Endpoint], sent_at: float, latest: Epoch | None
    ) -> tuple[Verdict, str]:
        """Weigh one reading, asked for at ``sent_at``; ``latest`` is the last epoch written by when it came in."""
        verdict, why = self._weigh(facts, tuple(endpoints), sent_at, latest)
        verdict, why = self._lingering(verdict, why, facts.linger_seconds, sent_at)
        self._had_let_go = verdict in (Verdict.CONFIRMED, Verdict.ASSUMED)
        return self._by_policy(verdict, why)

    def wants_epoch(self, latest: Epoch | None) -> bool:
        """Whether another epoch must be written to go on; ``latest`` is the last that was."""
        if self.terms.fencing is not Fencing.DOUBLE or self._seen_at is None or self._had_let_go:
            return False
        return latest is None or not latest.reaches(self._seen_at.next())

    def fail(self, why: str) -> tuple[Verdict, str]:
        """It did not answer: what was seen absent before is no unbroken row any more."""
        self._absent_since = self._clean_until = None
        if self.terms.is_required and not self.terms.holds_unreachable:
            return Verdict.ASSUMED, f"unreachable, and its policy goes on without it: {why}"
        return self._by_policy(Verdict.UNREACHABLE, why)

    def unasked(self) -> tuple[Verdict, str]:
        return self._by_policy(Verdict.PENDING, "not asked yet")

    def _by_policy(self, verdict: Verdict, why: str) -> tuple[Verdict, str]:
        """An advisory observer blocks nothing; but what it has not let go of is not ``verified`` either."""
        if self.terms.is_required or verdict in (Verdict.CONFIRMED, Verdict.ASSUMED):
            return verdict, why
        return Verdict.ASSUMED, f"advisory, not waited for: {verdict.value}: {why}"

    def _weigh(
        self, facts: Facts, endpoints: tuple[Endpoint, ...], sent_at: float, latest: Epoch | None
    ) -> tuple[Verdict, str]:
        if facts.unreadable:
            self._absent_since = None
            return Verdict.UNREADABLE, "; ".join(str(one) for one in facts.unreadable)
        route = next((f"{one.via} still leads to {to}" for to in endpoints for one in facts.routes_to(to)), "")
        shown = tuple(one for one in facts.fence if one.install == self.epoch.install)
        if not shown:
            return self._weigh_weak(route, sent_at, facts.linger_seconds)
        return self._weigh_fenced(route, earliest(shown), latest)

    def _lingering(self, verdict: Verdict, why: str, linger_seconds: float, sent_at: float) -> tuple[Verdict, str]:
        """A confirmation counts once nobody can use any more what was told before it."""
        if verdict is not Verdict.CONFIRMED:
            self._clean_until = None
            return verdict, why
        if self._clean_until is None:
            self._clean_until = (sent_at, sent_at + linger_seconds)
        since, until = self._clean_until
        # A longer one seen later tells what an earlier answer may have had.
        self._clean_until = since, max(until, since + linger_seconds)
        if sent_at < self._clean_until[1]:
            left = self._clean_until[1] - since
            return Verdict.PENDING, f"{why}; what it told before may be used for {left:g} s"
        return verdict, why if until == since else f"{why} for {until - since:g} s"

    def _weigh_weak(self, route: str, sent_at: float, linger_seconds: float) -> tuple[Verdict, str]:
        self._seen_at, self._was_seen_twice = None, False
        if route:
            self._absent_since = None
            return (Verdict.REFUTED if self._had_let_go else Verdict.PENDING), route
        is_first = self._absent_since is None
        self._settle_seconds = max(self.terms.settle_seconds if is_first else self._settle_seconds, linger_seconds)
        settle = self._settle_seconds
        since = self._absent_since = sent_at if self._absent_since is None else self._absent_since
        if is_first or sent_at - since < settle:
            return Verdict.PENDING, f"no route, but no fence either: {settle:g} s of settle time"
        return Verdict.ASSUMED, f"no route for {settle:g} s, and no fence: weak evidence"

    def _weigh_fenced(self, route: str, least: Epoch, latest: Epoch | None) -> tuple[Verdict, str]:
        self._absent_since = None
        number = f"fence {least.number}"
        if not least.reaches(self.epoch):
            # After a restart from a stale list this takes back a confirmation, as a node's lower fence does.
            self._seen_at, self._was_seen_twice = None, False
            why = f"shows {number}, {self.epoch.number} is needed"
            return Verdict.PENDING, f"{why}; {route}" if route else why
        if self.terms.fencing is Fencing.DOUBLE and not self._is_doubled(least, latest):
            what = f"{number} was seen, a later one is awaited"
            return Verdict.PENDING, f"{what}; {route}" if route else what
        if route:
            return Verdict.REFUTED, f"at {number} {route}"
        return Verdict.CONFIRMED, f"{number} and no route"

    def _is_doubled(self, least: Epoch, latest: Epoch | None) -> bool:
        """Whether an epoch shows that was written after one that counts was seen here; and that twice, for what is
        shown and what is used may change one after the other (Traefik swaps both in one loop, in map order)."""
        if self._seen_at is None:
            self._seen_at = latest if latest is not None and latest.reaches(least) else least
        if not least.reaches(self._seen_at.next()):
            self._was_seen_twice = False
            return False
        if not self._was_seen_twice:
            self._was_seen_twice = True
            return False
        return True
