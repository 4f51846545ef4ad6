"""This node's testimony: what its kernel routes to, at which fence. Reads and narrows; judges nothing."""

from __future__ import annotations

import asyncio

from tidegate.dataplane.facts import Facts
from tidegate.observers.kernel import Tables
from tidegate.observers.witness import Answer, Question, answer_of, narrowed

OPENING_POLL_SECONDS = 0.02
"""A handshake shows in conntrack only, and no generation tells its end."""
RETRY_SECONDS = 0.25
LEFT_SECONDS_MIN = 0.001
"""Not worth another look, and never a wait that rounds to nothing."""


class NodeWitness:
    """Answers questions about one node's kernel."""

    def __init__(self, tables: Tables, node: str) -> None:
        self._tables = tables
        self.node = node

    async def answer(self, question: Question) -> Answer:
        """The facts as of a dump taken now; after ``since``, once they differ from it or the wait is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + question.wait_seconds
        answer, generation = await self._read(question, None, 0.0)
        while answer.digest == question.since and (left := until - loop.time()) > LEFT_SECONDS_MIN:
            if answer.facts.unreadable:
                await asyncio.sleep(min(left, RETRY_SECONDS))
                answer, generation = await self._read(question, None, 0.0)
                continue
            pause = OPENING_POLL_SECONDS if answer.facts.tracked else left
            answer, generation = await self._read(question, generation, min(left, pause))
        return answer

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
