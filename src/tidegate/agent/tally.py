"""What every node has acknowledged about one drain, judged once per reading and not once per question.

With N nodes and D drains a round of answers costs N x D judgements; asking them again for each of the D long polls
whenever one node speaks would cost N x N x D.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tidegate.agent.canvass import Reading, judge
from tidegate.drain.acknowledgement import LETTING_GO
from tidegate.engine.flights import Flight
from tidegate.model.epoch import Epoch
from tidegate.observers.coordinator import NodeView

_LETTING_GO = frozenset(verdict.value for verdict in LETTING_GO)


@dataclass(slots=True)
class Tally:
    """The acknowledgements of one drain. Valid for one epoch and one question (endpoints, Services): another empties
    it."""

    epoch: Epoch | None = None
    question: tuple[object, ...] = ()
    answers: dict[str, tuple[Reading | None, NodeView]] = field(default_factory=dict)

    def take(self, flight: Flight, node: str, reading: Reading | None) -> bool:
        """Judge a node's reading; True when it says something else than before."""
        if flight.write is None:
            return False
        question = (flight.endpoints, flight.services)
        if (self.epoch, self.question) != (flight.write.epoch, question):
            self.epoch, self.question = flight.write.epoch, question
            self.answers.clear()
        known = self.answers.get(node)
        if known is not None and known[0] is reading:
            return False
        one = judge(node, reading, flight.endpoints, flight.write.epoch, flight.services)
        view = NodeView(node, one.verdict.value, one.evidence.entry, one.evidence.source, one.evidence.at)
        self.answers[node] = (reading, view)
        return known is None or (known[1].verdict, known[1].detail) != (view.verdict, view.detail)

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
