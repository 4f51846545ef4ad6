"""One seed's sequences on one shape of proxy, in virtual time; what each shape owes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate import vtime
from tidegate.agent.fencing import Fencing
from tidegate.lab.config import LabConfig
from tidegate.lab.proxy.shapes import SHAPES
from tidegate.lab.virtual import VirtualLab
from tidegate.rehearse.fence.ground import VirtualGround
from tidegate.rehearse.fence.judge import Cut, Node, Signs, judge
from tidegate.rehearse.fence.sequences import Sequences

INSTALL = "main"
NODES = 2
SEQUENCES_MAX = 50
"""In one lab: seeds are what makes sequences differ."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``cuts`` and ``nodes`` are what was done and seen, for a judge; ``signs`` is what ours found."""

    shape: str
    seed: int
    signs: Signs
    hurts: int
    virtual_seconds: float
    cuts: tuple[Cut, ...]
    nodes: tuple[Node, ...]


def needs_second(shape: str) -> bool:
    """Whether one epoch proves nothing on this shape: order or atomicity is not given (design, kube-proxy < 1.33)."""
    one = SHAPES[shape]
    return one.queues_by_object or one.applies_in_pieces


def violations(shape: str, signs: Signs) -> int:
    """What must be 0: any table with the epoch and a route, and any word taken back. Where two epochs are asked for any
    word taken back after the second; and where a new list may show the epoch too early, any word taken back."""
    if needs_second(shape):
        return signs.second
    return signs.first if SHAPES[shape].lists_anew else signs.shown_first + signs.first


def play(shape: str, seed: int, count: int = SEQUENCES_MAX) -> Outcome:
    """``count`` sequences. The same arguments give the same outcome."""

    async def story() -> Outcome:
        async with VirtualLab(LabConfig(nodes=NODES, seed=seed, proxy=shape)) as lab:
            ground = VirtualGround(lab, INSTALL)
            sequences = Sequences(ground, Fencing(ground.api, INSTALL), random.Random(f"{seed}/fence"), count)
            await sequences.prepare()
            following = asyncio.get_running_loop().create_task(ground.follow(), name="follow")
            try:
                await sequences.run()
            finally:
                following.cancel()
            cuts, nodes = tuple(sequences.cuts), tuple(ground.seen())
            now = asyncio.get_running_loop().time()
            return Outcome(shape, seed, judge(cuts, nodes), sequences.hurts, now, cuts, nodes)

    return vtime.run(story(), seed=seed)


@dataclass(frozen=True, slots=True)
class Row:
    """All seeds of one shape. ``failed``: seeds with a violation."""

    shape: str
    sequences: int
    hurts: int
    signs: Signs
    failed: tuple[int, ...]

    @property
    def violations(self) -> int:
        """What must be 0."""
        return violations(self.shape, self.signs)

    @property
    def is_weak(self) -> bool:
        """Whether absence, or the end of a sync, was never wrong either: then the sequences prove nothing."""
        return not (self.signs.absence and self.signs.synced)


def tasks(shapes: Sequence[str], count: int, first: int) -> list[tuple[str, int, int]]:
    """``play``'s arguments for ``count`` sequences of each shape, in labs of ``SEQUENCES_MAX`` at most."""
    sizes = [min(SEQUENCES_MAX, count - done) for done in range(0, count, SEQUENCES_MAX)]
    return [(shape, first + number, size) for shape in shapes for number, size in enumerate(sizes)]


def row(shape: str, outcomes: Iterable[tuple[int, int, Signs, int]]) -> Row:
    """Of (seed, sequences, signs, faults) of every seed."""
    signs, failed, sequences, hurts = Signs(), [], 0, 0
    for seed, count, found, hurt in outcomes:
        signs += found
        sequences, hurts = sequences + count, hurts + hurt
        if violations(shape, found):
            failed.append(seed)
    return Row(shape, sequences, hurts, signs, tuple(failed))
