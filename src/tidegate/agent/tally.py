"""What every node has acknowledged about one drain, judged once per reading and not once per question.

With N nodes and D drains a round of answers costs N x D judgements; asking them again for each of the D long polls
whenever one node speaks would cost N x N x D.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tidegate.agent.canvass import Reading, judge
from tidegate.agent.proxies import UNHEARD, Proxies, Word
from tidegate.drain.acknowledgement import LETTING_GO, Acknowledgement, Verdict
from tidegate.drain.fence import Second
from tidegate.engine.flights import Flight
from tidegate.model.epoch import Epoch, earliest
from tidegate.observers.coordinator import NodeView

_LETTING_GO = frozenset(verdict.value for verdict in LETTING_GO)


@dataclass(slots=True)
class Tally:
    """The acknowledgements of one drain. Valid for one epoch and one question (endpoints, Services): another empties
    it."""

    epoch: Epoch | None = None
    question: tuple[object, ...] = ()
    answers: dict[str, tuple[Reading | None, NodeView]] = field(default_factory=dict)
    proxies: Proxies | None = None
    """Who needs a second epoch; None: nobody does."""
    _seconds: dict[str, Second] = field(default_factory=dict)
    _words: dict[str, Word] = field(default_factory=dict)

    def take(self, flight: Flight, node: str, reading: Reading | None) -> bool:
        """Judge a node's reading; True when it says something else than before."""
        if flight.write is None:
            return False
        word = Word(True) if self.proxies is None else self.proxies.word(node)
        question = (flight.endpoints, flight.services, flight.lasts)
        if (self.epoch, self.question) != (flight.write.epoch, question):
            self.epoch, self.question = flight.write.epoch, question
            self.answers.clear()
            self._seconds.clear()
        known = self.answers.get(node)
        if known is not None and known[0] is reading and self._words.get(node) == word:
            return False
        self._words[node] = word
        seen = _without_fallback(flight, node, reading)
        one = judge(node, seen, flight.endpoints, flight.write.epoch, flight.services)
        if not word.is_single:
            one = self._doubled(one, reading, word)
        view = NodeView(node, one.verdict.value, one.evidence.entry, one.evidence.source, one.evidence.at)
        self.answers[node] = (reading, view)
        return known is None or (known[1].verdict, known[1].detail) != (view.verdict, view.detail)

    def _doubled(self, one: Acknowledgement, reading: Reading | None, word: Word) -> Acknowledgement:
        """What one epoch would confirm waits for a second one, written after the first was seen there."""
        assert self.epoch is not None
        shown = () if reading is None or reading.facts is None or reading.facts.unreadable else reading.facts.fence
        mine = tuple(epoch for epoch in shown if epoch.install == self.epoch.install)
        second = self._seconds.setdefault(one.observer, Second(self.epoch))
        is_proven = bool(mine) and second.saw(earliest(mine), self.proxies.latest if self.proxies else None)
        if one.verdict is not Verdict.CONFIRMED:
            return one
        if not mine:
            return replace(one, verdict=Verdict.PENDING, evidence=replace(one.evidence, entry="shows no fence"))
        number = earliest(mine).number
        entry = f"fence {number} was seen, a later one is awaited: {word.why}"
        if is_proven:
            return replace(one, evidence=replace(one.evidence, entry=f"fence {number}, the second, and no route"))
        return replace(one, verdict=Verdict.PENDING, evidence=replace(one.evidence, entry=entry))

    @property
    def wants_epoch(self) -> bool:
        """Whether some node can only be judged by another epoch."""
        if self.proxies is None:
            return False
        latest = self.proxies.latest
        return any(
            second.wants(latest)
            for node, second in self._seconds.items()
            if node in self.answers
            and self.answers[node][1].verdict == Verdict.PENDING.value
            and not self._words[node].is_single
            and self._words[node] is not UNHEARD
        )

    def views(self, flight: Flight, observers: Iterable[str], readings: Mapping[str, Reading]) -> tuple[NodeView, ...]:
        """Every observer's answer, up to date."""
        if flight.write is None:
            return ()
        names = tuple(observers)
        for name in names:
            self.take(flight, name, readings.get(name))
        return tuple(self.answers[name][1] for name in names)

    def is_behind(self, observers: Iterable[str]) -> bool:
        """Whether anybody has not let go, as far as was judged."""
        answers = self.answers
        return any(name not in answers or answers[name][1].verdict not in _LETTING_GO for name in observers)


def _without_fallback(flight: Flight, node: str, reading: Reading | None) -> Reading | None:
    """The last endpoint of a node stays routed from outside until it is gone: ``localhealth`` answers for that."""
    for last in flight.lasts:
        if last.node == node and reading is not None and reading.facts is not None:
            reading = replace(reading, facts=reading.facts.within(last.service))
    return reading
