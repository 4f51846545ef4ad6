"""This node's testimony: what its kernel routes to, at which fence. Reads and narrows; judges nothing."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from tidegate.dataplane import labkernel
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.observers.kernel import KernelUnreachable
from tidegate.observers.witness import Answer, Question, answer_of, narrowed

OPENING_POLL_SECONDS = 0.02
"""A handshake shows in conntrack only, and no generation tells its end."""
RETRY_SECONDS = 0.25
LEFT_SECONDS_MIN = 0.001
"""Not worth another look, and never a wait that rounds to nothing."""


class Kernel(Protocol):
    """What the witness asks of a kernel (``observers.kernel.LabKernel``)."""

    async def dump(self) -> str: ...

    async def wait(self, generation: int, seconds: float) -> str: ...


class _Generation(msgspec.Struct):
    generation: int = 0


class NodeWitness:
    """Answers questions about one node's kernel."""

    def __init__(self, kernel: Kernel, node: str) -> None:
        self._kernel = kernel
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
        try:
            return labkernel.parse(await self._kernel.dump(), self.node)
        except KernelUnreachable as error:
            return Facts(self.node, "no dump", unreadable=(Unreadable(str(error), self.node),))

    async def _read(self, question: Question, after: int | None, seconds: float) -> tuple[Answer, int]:
        """One dump, narrowed: now, or once the table's generation exceeds ``after``."""
        try:
            raw = await (self._kernel.dump() if after is None else self._kernel.wait(after, seconds))
        except KernelUnreachable as error:
            facts = Facts(self.node, "no dump", unreadable=(Unreadable(str(error), self.node),))
            return answer_of(self.node, facts), 0
        facts = narrowed(labkernel.parse(raw, self.node), question.endpoints)
        return answer_of(self.node, facts), _generation(raw)


def _generation(raw: str) -> int:
    try:
        return msgspec.json.decode(raw, type=_Generation).generation
    except msgspec.DecodeError:
        return 0
