"""This node's testimony: what its kernel routes to, at which fence. Reads and narrows; judges nothing."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from tidegate.dataplane.facts import Facts
from tidegate.observers.kernel import Tables
from tidegate.observers.witness import Answer, Question, answer_of, narrowed

OPENING_POLL_SECONDS = 0.02
"""A handshake shows in conntrack only, and no generation tells its end."""
FLOW_POLL_SECONDS = 0.1
"""For flows of UDP, which stay for minutes: a look through a large table takes 40 ms of a core."""
SLIGHT_SECONDS = 0.5
"""Until a route is gone, connections are opened by it all the time: each is news of the digest, none of the verdict.
Told one by one they kept agents and the coordinator busy just when a commit had to be noticed."""
REMEMBERED_MAX = 64
RETRY_SECONDS = 0.25
LEFT_SECONDS_MIN = 0.001
"""Not worth another look, and never a wait that rounds to nothing."""


class NodeWitness:
    """Answers questions about one node's kernel."""

    def __init__(self, tables: Tables, node: str) -> None:
        self._tables = tables
        self.node = node
        self._told: dict[str, str] = {}
        """Digest of an answer -> digest of what of it a verdict may come from now."""

    async def answer(self, question: Question) -> Answer:
        """The facts as of a dump taken now; after ``since``, once they differ from it or the wait is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer, generation = await self._read(question, None, 0.0)
        while (left := self._until(question, answer, began) - loop.time()) > LEFT_SECONDS_MIN:
            if answer.facts.unreadable:
                await asyncio.sleep(min(left, RETRY_SECONDS))
                answer, generation = await self._read(question, None, 0.0)
                continue
            answer, generation = await self._read(question, generation, min(left, _pause(answer.facts)))
        self._remember(answer)
        return answer

    def _until(self, question: Question, answer: Answer, began: float) -> float:
        """Until when this answer may wait for a better one."""
        if answer.digest == question.since:
            return began + question.wait_seconds
        known = self._told.get(question.since)
        if known is not None and known == self._weighty(answer):
            return began + min(question.wait_seconds, SLIGHT_SECONDS)
        return began

    def _remember(self, answer: Answer) -> None:
        self._told.pop(answer.digest, None)
        while len(self._told) >= REMEMBERED_MAX:
            del self._told[next(iter(self._told))]
        self._told[answer.digest] = self._weighty(answer)

    def _weighty(self, answer: Answer) -> str:
        facts = _unrouted(answer.facts)
        return answer.digest if facts is answer.facts else answer_of(self.node, facts).digest

    async def facts(self) -> Facts:
        """All that a dump taken now shows. Never raises: a kernel that does not answer is unreadable."""
        return (await self._tables.read(None)).facts

    async def _read(self, question: Question, after: int | None, seconds: float) -> tuple[Answer, int]:
        """One dump, narrowed: now, or once the table's generation is another than ``after``."""
        if after is None:
            found = await self._tables.read(question.endpoints)
        else:
            found = await self._tables.read_after(after, seconds, question.endpoints)
        return answer_of(self.node, narrowed(found.facts, question.endpoints)), found.generation


def _pause(facts: Facts) -> float:
    """Until when to look again though no rule has changed."""
    if not facts.tracked:
        return math.inf
    unrouted = {one.protocol for one in _unrouted(facts).tracked}
    return OPENING_POLL_SECONDS if unrouted - {"UDP"} else FLOW_POLL_SECONDS if unrouted else SLIGHT_SECONDS


def _unrouted(facts: Facts) -> Facts:
    """Without the connections being opened to what is still routed: there the route decides."""
    left = tuple(one for one in facts.tracked if not facts.routes_to(one.endpoint))
    return facts if len(left) == len(facts.tracked) else replace(facts, tracked=left)
