"""Releases, line by line of what they must show: the installed command, real sockets, requests throughout.

``stories``: every strategy through every story by the command line, on a lab of three nodes, each in a namespace of its
own. ``flip``, ``large``: the flip of a blue/green held against 10,000 new connections. ``rainbow``, ``six``: WebSocket
clients that stay. ``operator``: Release objects, kept by two operators to which much happens. A figure is what the
clients, kubectl or the command said, never the engine's own word alone; none may be lost. Loopback addresses here,
``releases_kernel`` is the same on real netfilter (the webhook's story apart).

``TIDEGATE_BENCH_LINES=stories,operator`` plays some lines, ``TIDEGATE_BENCH_STORIES=rolling+autoscaled`` the stories
with these words in their names: of ``stories`` "STRATEGY, STORY", of ``operator`` "operator, STORY". The stories:

- good to good; first release of pods without a gate; good to bad, aborted; bad, then good; rolled back
- superseded midway: a third version is asked for while the second comes
- scaled, autoscaled midway: half as many pods again, by hand or by a HorizontalPodAutoscaler
- a node drained midway: ``kubectl drain``
- a bad API for a while: half of all requests answered 429, 409, 500 or 503 from before the release until midway
- killed three times, resumed: the command, with SIGKILL
- operator, killed three times midway: the leader each time; another one has to take over
- operator, leader stood still and another asked to stop: SIGSTOP past its Lease, SIGCONT, SIGTERM to the next
- operator, the webhook down: pods come without a gate, are listed by ``tidegate status``, and released over
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from bench import releases_flip, releases_operator, releases_rainbow, releases_stories
from bench.figures import Figure, holds
from bench.ground import BenchLab, lab
from tidegate.rehearse.real import RealStage, open_stage

Line = Callable[[BenchLab, RealStage], Awaitable[list[Figure]]]


async def stories(ground: BenchLab, stage: RealStage) -> list[Figure]:
    return await releases_stories.show(ground, stage, os.environ.get("TIDEGATE_BENCH_STORIES", ""))


# The operator comes last: its kinds make Releases of what command lines write.
LINES: tuple[tuple[str, Line], ...] = (
    ("stories", stories),
    ("flip", releases_flip.small),
    ("rainbow", releases_rainbow.three),
    ("six", releases_rainbow.six),
    ("plain", releases_stories.plain),
    ("operator", releases_operator.kept),
)


def is_asked(name: str) -> bool:
    """Whether a line is to be played; TIDEGATE_BENCH_LINES names some of them."""
    only = os.environ.get("TIDEGATE_BENCH_LINES", "")
    return not only or name in only.split(",")


async def show(ground: BenchLab, lines: tuple[tuple[str, Line], ...] = LINES) -> list[Figure]:
    """Every line in turn; one that breaks is a failure, and the others go on."""
    loop, found = asyncio.get_running_loop(), []
    async with open_stage(ground.folder, ground.record) as stage:
        for name, line in lines:
            if not is_asked(name):
                continue
            began = loop.time()
            try:
                found += await line(ground, stage)
            except (OSError, RuntimeError, ValueError, LookupError, TimeoutError) as error:
                found.append(holds(f"{name}: was played to its end", False, repr(error)))
            print(f"  {name}: {loop.time() - began:.0f} s", flush=True)
    return found


def on_lab(name: str, *options: str) -> list[Figure]:
    """All lines on one lab of three nodes in three zones."""
    if not any(is_asked(line) for line, _ in LINES):
        return []
    with lab(name, "--nodes", "3", "--zones", "3", *options) as ground:
        return asyncio.run(show(ground))


def run() -> list[Figure]:
    found = on_lab("bench-releases")
    if is_asked("large"):  # hundreds of processes: a lab of their own, and nothing beside them
        with lab("bench-releases-large", "--nodes", str(releases_flip.LARGE_NODES)) as ground:
            found += asyncio.run(show(ground, (("large", releases_flip.large),)))
    return found
