"""How one replica stands towards one drain: its readings in order, weighed against the drain's epoch.

*Fenced* evidence (it shows epochs) can confirm. *Weak* evidence (it shows none) never can: an endpoint that is absent
may be one that is still to be added. It is waited for until it was seen absent for the settle time in an unbroken row
of readings, two at the least, and then it is assumed.

Either may *linger*: others were told of the endpoint before and may use that for so long (a TTL). Of weak evidence the
row lasts at least that long. Fenced evidence says when it ended to tell of it: whatever was told before is over that
much later, in whatever cache, and an answer of before that is still met on the way says itself how long it is kept.
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
    while it is unreachable, and the settle time of weak evidence in seconds. ``routes_unread``: it shows epochs and
    no routes; then they are proof where its syncs are ``atomic``, and none where they may be ``torn``.
    ``listing_lags``: why what it lists may not be what it uses yet, "" where it is."""

    fencing: Fencing = Fencing.DOUBLE
    is_required: bool = True
    holds_unreachable: bool = True
    settle_seconds: float = 5.0
    routes_unread: str = ""
    listing_lags: str = ""

    def by_policy(self, verdict: Verdict, why: str) -> tuple[Verdict, str]:
        """An advisory observer blocks nothing; but what it has not said is not ``verified`` either."""
        if self.is_required or verdict in (Verdict.CONFIRMED, Verdict.ASSUMED):
            return verdict, why
        return Verdict.ASSUMED, f"advisory, not waited for: {verdict.value}: {why}"

    def unreachable(self, why: str) -> tuple[Verdict, str]:
        """It did not answer."""
        if self.is_required and not self.holds_unreachable:
            return Verdict.ASSUMED, f"unreachable, and its policy goes on without it: {why}"
        return self.by_policy(Verdict.UNREACHABLE, why)


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
    """Since when every reading was fenced, and until when what was told before may be used."""

    def take(
        self, facts: Facts, endpoints: Iterable[Endpoint], sent_at: float, latest: Epoch | None
    ) -> tuple[Verdict, str]:
        """Weigh one reading, asked for at ``sent_at``; ``latest`` is the last epoch written by when it came in."""
        verdict, why = self._weigh(facts, tuple(endpoints), sent_at, latest)
        self._had_let_go = verdict in (Verdict.CONFIRMED, Verdict.ASSUMED)
        return self.terms.by_policy(verdict, why)

    def wants_epoch(self, latest: Epoch | None) -> bool:
        """Whether another epoch must be written to go on; ``latest`` is the last that was."""
        if self.terms.fencing is not Fencing.DOUBLE or self._seen_at is None or self._had_let_go:
            return False
        return latest is None or not latest.reaches(self._seen_at.next())

    def fail(self, why: str) -> tuple[Verdict, str]:
        """It did not answer: what was seen absent before is no unbroken row any more."""
        self._absent_since = self._clean_until = None
        return self.terms.unreachable(why)

    def unasked(self) -> tuple[Verdict, str]:
        return self.terms.by_policy(Verdict.PENDING, "not asked yet")

    def _weigh(
        self, facts: Facts, endpoints: tuple[Endpoint, ...], sent_at: float, latest: Epoch | None
    ) -> tuple[Verdict, str]:
        row, self._clean_until = self._clean_until, None
        if facts.unreadable:
            self._absent_since = None
            return Verdict.UNREADABLE, "; ".join(str(one) for one in facts.unreadable)
        routes = [(one, to) for to in endpoints for one in facts.routes_to(to)]
        route = f"{routes[0][0].via} still leads to {routes[0][1]}" if routes else ""
        shown = tuple(one for one in facts.fence if one.install == self.epoch.install)
        if not shown:
            return self._weigh_weak(route, sent_at, facts.linger_seconds)
        verdict, why = self._weigh_fenced(route, earliest(shown), latest)
        if verdict not in (Verdict.CONFIRMED, Verdict.REFUTED) or not (facts.linger_seconds or row):
            return verdict, why
        since, until = row or (sent_at, sent_at)
        # A longer one seen later tells what an earlier answer may have had.
        until = max([until, since + facts.linger_seconds, *(sent_at + one.kept_seconds for one, _ in routes)])
        self._clean_until = since, until
        if verdict is Verdict.CONFIRMED and sent_at >= until:
            return verdict, f"{why}, and what it told before is over since {until - since:.1f} s after that"
        verdict = Verdict.REFUTED if self._had_let_go else Verdict.PENDING
        return verdict, f"{why}; what it told before may be used for {max(until - sent_at, 0):.0f} s more"

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
        if self.terms.routes_unread:
            return self._by_behaviour(number)
        return Verdict.CONFIRMED, f"{number} and no route"

    def _by_behaviour(self, number: str) -> tuple[Verdict, str]:
        """A torn pass may show the second epoch before it takes away a route of the pass before: only who reads routes
        would see that."""
        what = f"{number}, the second, answers a new connection (behavioural: its routes were not read)"
        if self.terms.routes_unread == "atomic":
            return Verdict.CONFIRMED, what
        return Verdict.ASSUMED, f"{what}, and its syncs may be torn"

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
