"""Releases as objects: ``tidegate operator`` carries them out, and much happens to it on the way.

Each story is played by all four strategies at once, each in a namespace of its own under requests of its own, kept by
the same two operators: an autoscaler at work, the leader killed three times, the leader standing still past its Lease
(and going on later, with another one leading) and asked to stop, an API server in trouble, the webhook down.
``TIDEGATE_BENCH_STORIES`` names words of a story: ``operator+killed``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from bench import releases_stories
from bench.figures import Figure, holds
from bench.ground import BenchLab
from bench.releases_ground import COMMAND_SECONDS, IMAGE, PODS, STARTUP_SECONDS, Play, Told, web
from bench.releases_operators import (
    Operators,
    call_webhook,
    forget_webhook,
    lead_webhook_to,
    operators,
)
from bench.verbs_objects import Object
from tidegate.model.names import GATE, GATE_ON
from tidegate.rehearse.real import RealStage
from tidegate.release.spec import STRATEGIES

SECTIONS: dict[str, Object] = {
    "rolling": {},
    "bluegreen": {"service": "web"},
    "canary": {"service": "web", "steps": [{"weight": 50, "pauseSeconds": 2}, {"weight": 100}]},
    "rainbow": {"service": "web", "idleSeconds": 2, "retireSeconds": 2},
}
LOAD_SHARE = 1 / len(STRATEGIES)
UNDER_WAY_SECONDS = 1.0
KILLS = 3
SLOW_SECONDS = {"rolling": 9.0, "bluegreen": 20.0, "canary": 6.0, "rainbow": 20.0}
"""Pods that take so long to start: a release is still under way when two Leases have run out. Blue/green has all of
its pods come at once."""
NOBODY_LISTENS = 18499
ASK_SECONDS = 60.0


class Kept(Play):
    """A namespace whose Release an operator keeps: what is asked for is asked by an object."""

    def __init__(self, lab: BenchLab, stage: RealStage, namespace: str, strategy: str) -> None:
        super().__init__(lab, stage, namespace, strategy)
        self.load_share = LOAD_SHARE
        self.is_asked, self.is_over = asyncio.Event(), False
        self.is_set, self.webhook_is_down = asyncio.Event(), asyncio.Event()

    async def ask(self, version: str) -> Callable[[], Awaitable[None]]:
        """Apply the Release."""
        spec: Object = {"workload": "web", "strategy": self.strategy, "images": {"echo": IMAGE.format(version)}}
        spec |= {self.strategy: SECTIONS[self.strategy]} if SECTIONS[self.strategy] else {}
        made = {"apiVersion": "tidegate.dev/v1alpha1", "kind": "Release", "metadata": {"name": "web"}, "spec": spec}
        await self.insist(lambda: self.apply(made))
        self.is_asked.set()
        return self.complete

    async def complete(self) -> None:
        """``kubectl wait``, which looks at the generation too; begun anew where the API server ended it."""
        async with asyncio.timeout(COMMAND_SECONDS):
            while not self.is_over:
                try:
                    await self.kubectl("wait", "releases.tidegate.dev/web", "--for=condition=Complete", "--timeout=60s")
                    self.is_over = True
                except RuntimeError:
                    await asyncio.sleep(0.5)

    async def insist(self, work: Callable[[], Awaitable[object]]) -> None:
        """As a person does where the API server is in trouble: once more."""
        async with asyncio.timeout(ASK_SECONDS):
            while True:
                try:
                    await work()
                    return
                except RuntimeError:
                    await asyncio.sleep(0.5)

    async def remove(self) -> None:
        words = ("delete", "releases.tidegate.dev", "web", "--ignore-not-found", "--timeout=60s")
        await self.insist(lambda: self.kubectl(*words))
        await self.insist(super().remove)


PerPlay = Callable[[Any], Awaitable[None]]
Beside = Callable[[Operators, Sequence[Kept]], Coroutine[Any, Any, None]]


async def _good(play: Kept) -> None:
    carried = await play.ask("v2")
    await carried()
    await play.answered_by("v2")


async def _ungated(play: Kept) -> None:
    """Pods come without a gate while the webhook is down, and are told of; the release goes over all of them."""
    before = await _without_gate(play)
    if before:
        play.wrong.append(f"the webhook was there, and gave {before} no gate")
    play.is_set.set()
    await play.webhook_is_down.wait()
    await play.kubectl("scale", "deployment/web", f"--replicas={PODS + 2}")
    await play.ready("app=web", PODS + 2, 60.0)
    listed = await _without_gate(play)
    if len(listed) != 2:
        play.wrong.append(f"two pods came without a gate, and `tidegate status` lists {listed}")
    await _good(play)


async def _without_gate(play: Kept) -> list[str]:
    """As ``tidegate status`` lists them."""
    document = (await play.tidegate("status", "deploy/web", "-o", "json")).document
    return [pod for one in document["workloads"] for entry in one.get("without_gate", ()) for pod in entry["pods"]]


# --- what happens beside them ---


async def _nothing(both: Operators, plays: Sequence[Kept]) -> None:
    del both, plays


async def _killed(both: Operators, plays: Sequence[Kept]) -> None:
    await asyncio.gather(*(play.is_asked.wait() for play in plays))
    for _ in range(KILLS):
        leader = await both.leader()
        await asyncio.sleep(UNDER_WAY_SECONDS)
        _expect_under_way(plays, f"{leader} was killed")
        await both.kill(leader)
        await both.leader(other_than=leader)


async def _led_by_others(both: Operators, plays: Sequence[Kept]) -> None:
    """It stands still past its Lease, and goes on when another one leads; then that one is asked to stop."""
    await asyncio.gather(*(play.is_asked.wait() for play in plays))
    first = await both.leader()
    await asyncio.sleep(UNDER_WAY_SECONDS)
    both.freeze(first)
    _expect_under_way(plays, f"{first} stood still")
    try:
        second = await both.leader(other_than=first)
    finally:
        both.thaw(first)
    await asyncio.sleep(UNDER_WAY_SECONDS)
    if await both.leader() != second:
        both.wrong.append(f"{first} took the Lease back from {second}")
    if not any(line["message"] == "not leading any more" for line in both.said(first)):
        both.wrong.append(f"{first} went on, and did not notice that {second} leads")
    await both.ask_to_stop(second)
    await both.leader(other_than=second)


async def _webhook_down(both: Operators, plays: Sequence[Kept]) -> None:
    await asyncio.gather(*(play.is_set.wait() for play in plays))
    await lead_webhook_to(both, NOBODY_LISTENS)
    for play in plays:
        play.webhook_is_down.set()


def _expect_under_way(plays: Sequence[Kept], what: str) -> None:
    for play in plays:
        if play.is_over:
            play.wrong.append(f"was over when {what}")


# --- stories ---


@dataclass(frozen=True, slots=True)
class Story:
    """``per_play``: what is asked for in each namespace; ``beside``: what happens to the operators meanwhile."""

    name: str
    per_play: PerPlay = _good
    beside: Beside = _nothing
    is_gated: bool = True
    """Whether the pods have their gate from their template."""
    startup_seconds: float = STARTUP_SECONDS
    is_slow: bool = False
    """Whether pods take their time to start."""


AUTOSCALED = Story(
    "operator, autoscaled midway",
    releases_stories.autoscaled,
    startup_seconds=releases_stories.AUTOSCALED_STARTUP_SECONDS,
)
KILLED = Story("operator, killed three times midway", beside=_killed, is_slow=True)
LED = Story("operator, leader stood still and another asked to stop", beside=_led_by_others, is_slow=True)
BAD_API = Story("operator, a bad API for a while", releases_stories.bad_api)
UNGATED = Story("operator, the webhook down", _ungated, _webhook_down, is_gated=False)


async def kept(ground: BenchLab, stage: RealStage) -> list[Figure]:
    """Each story by each strategy."""
    only = os.environ.get("TIDEGATE_BENCH_STORIES", "")
    stories = [AUTOSCALED, KILLED, LED, BAD_API]
    if ground.record.network != "kernel":  # from inside its network an API server does not reach a process beside it
        stories.append(UNGATED)
    found: list[Told] = []
    async with operators(ground, stage) as both:
        for story in stories:
            if all(word in story.name for word in only.split("+")):
                found += await _played(both, story)
    wrong = [f"{one.name}: {text}" for one in found for text in one.wrong] + both.wrong
    title = f"operator, all {len(found)}: Releases come to their end, and then the new version alone answers"
    return [*(one.figure for one in found), *([holds(title, not wrong, "; ".join(wrong)[:600])] if found else [])]


async def _played(both: Operators, story: Story) -> list[Told]:
    """One story by all strategies at once."""
    word = "-".join(story.name.replace(",", "").split()[1:3])
    plays = [Kept(both.lab, both.stage, f"{word}-{strategy}", strategy) for strategy in STRATEGIES]
    if not story.is_gated:
        await call_webhook(both)
        for play in plays:
            play.labels = {GATE: GATE_ON}
    beside = asyncio.create_task(story.beside(both, plays))
    playing = [releases_stories.told(play, story.name, story.per_play, _workload(story, play)) for play in plays]
    found: list[Told] = []
    try:
        found = list(await asyncio.gather(*playing))
        async with asyncio.timeout(ASK_SECONDS):
            await beside
    except (RuntimeError, OSError, TimeoutError) as error:
        both.wrong.append(f"{story.name}: {error!r}")
    finally:
        beside.cancel()
        if not story.is_gated:
            await forget_webhook(both)
    for one in found:
        releases_stories.tell(one)
    return found


def _workload(story: Story, play: Kept) -> Object:
    seconds = SLOW_SECONDS[play.strategy] if story.is_slow else story.startup_seconds
    return web(gated=story.is_gated, startup_seconds=seconds)
