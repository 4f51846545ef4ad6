"""The node agent's part in moving UDP flows off cut pods: it decides by its own dump, and makes the kernel forget.

The one thing an agent changes that others made, so: only flows that no rule leads there any more (``drain.stranded``),
only when the coordinator asks, at most once in ``PAUSE_SECONDS``, so many at once, each time in the log.
``TIDEGATE_MOVE_UDP=no`` takes it away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tidegate.dataplane.facts import Tracked
from tidegate.drain.stranded import FLOWS_MAX, stranded
from tidegate.observers.kernel import KernelUnreachable, Tables
from tidegate.observers.moving import Cut, Move, Moved

PAUSE_SECONDS = 2.0
IS_OFF = "TIDEGATE_MOVE_UDP=no"


class Flows(Protocol):
    """The node's tracked connections, to be changed (``observers.linux.LinuxKernel``)."""

    async def forget(self, flows: tuple[Tracked, ...]) -> int:
        """Forget exactly these; how many were still there. Raises ``KernelUnreachable``."""
        ...


@dataclass(slots=True)
class Mover:
    """Of one node. ``flows`` None: nothing is ever moved, ``why`` says why not."""

    tables: Tables
    node: str
    flows: Flows | None
    log: Callable[[str], None]
    why: str = "this node's kernel tracks no UDP"
    _next_at: float = 0.0

    async def move(self, asked: Move) -> Moved:
        """Look anew, and move what may be moved."""
        loop = asyncio.get_running_loop()
        nothing = (0,) * len(asked.cuts)
        if self.flows is None:
            return Moved(self.node, nothing, self.why)
        if loop.time() < self._next_at:
            return Moved(self.node, nothing, f"asked again within {PAUSE_SECONDS:g} s")
        self._next_at = loop.time() + PAUSE_SECONDS
        counts: list[int] = []
        try:
            for cut in asked.cuts:
                counts.append(await self._move(self.flows, cut, FLOWS_MAX - sum(counts)))
        except KernelUnreachable as error:
            self.log(f"UDP flows are not moved: {error}")
            return Moved(self.node, (*counts, *nothing[len(counts) :]), str(error))
        return Moved(self.node, tuple(counts))

    async def _move(self, flows: Flows, cut: Cut, most: int) -> int:
        epoch, endpoints = cut.understood()
        found = stranded((await self.tables.read(endpoints)).facts, endpoints, epoch)[:most]
        if not found:
            return 0
        count = await flows.forget(found)
        named = ", ".join(map(str, found[:3])) + (", ..." if len(found) > 3 else "")
        self.log(f"{count} UDP flows are to be routed anew, to {cut.endpoints[0]} no rule leads any more: {named}")
        return count
