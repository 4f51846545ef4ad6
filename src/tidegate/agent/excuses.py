"""The coordinator's list of nodes that need not be waited for while they are silent, and of those that stand.

A standing straggler keeps every drain of the cluster waiting, so it is reported once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import msgspec

from tidegate import vtime
from tidegate.agent.canvass import Reading
from tidegate.drain.acknowledgement import Acknowledgement, Evidence, Verdict
from tidegate.drain.excuse import SETTLE_SECONDS, Excuse, StandingPolicy, excuse_of, excused, next_step
from tidegate.engine.flights import Flight, Key
from tidegate.model.node import Node
from tidegate.observers.coordinator import NodeView


class Excuses:
    """Level-triggered: what is said of a node is read from its object each time somebody asks."""

    def __init__(self, policy: StandingPolicy, log: Callable[[str], None]) -> None:
        self.policy: StandingPolicy = policy
        self._log = log
        self._odd: dict[str, Node] = {}
        self._told: dict[str, str] = {}
        self._due: dict[Key, str] = {}

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """The nodes there are now. Each that comes to stand, or is vouched for, is told of once."""
        now = vtime.now()
        self._odd = {node.name: node for node in nodes if excuse_of(node, now) is not None}
        told = {name: self._sentence(name) for name in self._odd}
        for name, sentence in sorted(told.items()):
            if self._told.get(name) != sentence:
                self._log(sentence)
        self._told = told

    def apply(self, flight: Flight, views: tuple[NodeView, ...]) -> tuple[NodeView, ...]:
        """``views`` with the words that stand in for silences."""
        if not self._odd or flight.write is None:
            return views
        return tuple(self._excused(flight, view) for view in views)

    def keep(self, keys: Iterable[Key]) -> None:
        """The drains in flight; the others are forgotten."""
        wanted = set(keys)
        self._due = {key: epoch for key, epoch in self._due.items() if key in wanted}

    def status(self, readings: Mapping[str, Reading]) -> list[dict[str, object]]:
        """``{"node", "says", "word", "silent", "next"}`` of every node that is not like the others.

        ``silent``: what was tried last, empty while its agent answers or was not asked.
        """
        found: list[dict[str, object]] = []
        for name in sorted(self._odd):
            excuse, reading = self._excuse(name), readings.get(name)
            if excuse is not None:
                silent = reading.failure if reading is not None else ""
                step = next_step(name) if excuse.says == "standing" and self.policy == "hold" else ""
                found.append({"node": name, "says": excuse.says, "word": excuse.word, "silent": silent, "next": step})
        return found

    def _excuse(self, name: str) -> Excuse | None:
        node = self._odd.get(name)
        return None if node is None else excuse_of(node, vtime.now())

    def _sentence(self, name: str) -> str:
        excuse = self._excuse(name)
        if excuse is None:
            return ""
        if excuse.says == "standing" and self.policy == "hold":
            return f"{name} is {excuse.word}: a straggler of every drain while its agent is silent; {next_step(name)}"
        return f"{name} is not waited for while its agent is silent: {excuse.says}, {excuse.word}"

    def _excused(self, flight: Flight, view: NodeView) -> NodeView:
        excuse = self._excuse(view.node)
        if excuse is None or flight.write is None:
            return view
        waited = asyncio.get_running_loop().time() - flight.write.sent_at
        evidence = Evidence(view.evidence, view.at, view.detail)
        said = Acknowledgement(view.node, Verdict(view.verdict), flight.write.epoch, evidence)
        made = excused(said, excuse, self.policy, waited)
        if made is said:
            return view
        if made.verdict is Verdict.PENDING and self._due.get(flight.key) != str(flight.write.epoch):
            self._due[flight.key] = str(flight.write.epoch)
            asyncio.get_running_loop().call_later(SETTLE_SECONDS - waited + 0.001, flight.tell)
        return msgspec.structs.replace(
            view, verdict=made.verdict.value, detail=made.evidence.entry, evidence=made.evidence.source
        )
