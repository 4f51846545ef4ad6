"""How one replica stands towards pods that were added: its readings in order, as ``standing`` weighs them for a drain.

*Fenced* evidence has taken in every addition up to its epoch: what it then does not list it does not route to by this
Service, unless objects say that it should. What it lists and withholds traffic from is not there yet, fence or none.

Without a fence it has to list every pod, and to withhold nothing, in an unbroken row of readings of the settle time: a
list may be of a pod that had the address before. Who lists no pod of the Service at all may have nothing to do with it,
or be far behind: after the settle time that is *assumed*, by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tidegate.dataplane.facts import Facts
from tidegate.drain.acknowledgement import Verdict
from tidegate.model.epoch import Epoch
from tidegate.observers.addition import Addition, look
from tidegate.observers.standing import Standing, Terms


@dataclass(frozen=True, slots=True)
class Sought:
    """What one replica has to send to. ``is_expected``: objects, or its options, say that it has to list all of
    ``addition.pods`` (those that are its own to list), whoever else it lists."""

    addition: Addition
    is_expected: bool = False


class Arrival:
    """Of one replica towards one addition at one epoch."""

    def __init__(self, terms: Terms, epoch: Epoch) -> None:
        self._terms = terms
        self._install = epoch.install
        # Routes and their time to live are judged here: of the epoch alone it says what the order proves.
        self._order = Standing(replace(terms, is_required=True), epoch)
        self._since: float | None = None

    def take(self, facts: Facts, sought: Sought, sent_at: float, latest: Epoch | None) -> tuple[Verdict, str]:
        """Weigh one reading, asked for at ``sent_at``; ``latest`` is the last epoch written by when it came in."""
        verdict, why = self._weigh(facts, sought, sent_at, latest)
        if verdict is Verdict.UNREADABLE:
            self._since = None
        return self._terms.by_policy(verdict, why)

    def wants_epoch(self, latest: Epoch | None) -> bool:
        """Whether another epoch must be written to go on; ``latest`` is the last that was."""
        return self._order.wants_epoch(latest)

    def fail(self, why: str) -> tuple[Verdict, str]:
        """It did not answer: what was seen before is no unbroken row any more."""
        self._since = None
        return self._terms.unreachable(why)

    def unasked(self) -> tuple[Verdict, str]:
        return self._terms.by_policy(Verdict.PENDING, "not asked yet")

    def _weigh(self, facts: Facts, sought: Sought, sent_at: float, latest: Epoch | None) -> tuple[Verdict, str]:
        if facts.unreadable:
            return Verdict.UNREADABLE, "; ".join(str(one) for one in facts.unreadable)
        addition = sought.addition
        if not addition.pods:
            return Verdict.CONFIRMED, f"none of the pods of {addition.service} is for it to list"
        seen = look(facts, addition, is_expected=sought.is_expected)
        if any(one.install == self._install for one in facts.fence):
            self._since = None
            verdict, why = self._order.take(replace(facts, routes=(), linger_seconds=0.0), (), sent_at, latest)
            lack = seen.lack if sought.is_expected else "; ".join(seen.withheld)
            if lack or verdict is not Verdict.CONFIRMED:
                return Verdict.PENDING, f"{lack}; {why}" if lack else why
            number = why.removesuffix(" and no route")
            return verdict, f"{number}, and every addition from before it"
        return self._weigh_weak(addition, seen.lack, seen.is_concerned, sent_at)

    def _weigh_weak(self, addition: Addition, lack: str, is_concerned: bool, sent_at: float) -> tuple[Verdict, str]:
        if lack:
            self._since = None
            return Verdict.PENDING, lack
        what = f"sends to all {len(addition.pods)} pods" if is_concerned else f"lists no pod of {addition.service}"
        settle, is_first = self._terms.settle_seconds, self._since is None
        since = self._since = sent_at if self._since is None else self._since
        if is_first or sent_at - since < settle:
            return Verdict.PENDING, f"{what}, but shows no fence: {settle:g} s of settle time"
        told = f"{what} for {settle:g} s, by its own word"
        if not is_concerned:
            return Verdict.ASSUMED, f"{told}: whether it is to route by it is not known"
        if self._terms.listing_lags:
            return Verdict.ASSUMED, f"{told}; {self._terms.listing_lags}"
        return Verdict.CONFIRMED, told
