"""Each strategy through each story, under requests: none may be lost, and the right revision answers at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from bench.figures import Figure, holds
from bench.ground import BenchLab
from bench.releases_ground import BAD, PODS, STARTUP_SECONDS, Play, Told, now, web
from bench.verbs_ground import ended
from bench.verbs_objects import Object
from tidegate.rehearse.real import RealStage
from tidegate.release.spec import STRATEGIES

Story = Callable[[Play], Awaitable[None]]
MIDWAY_SECONDS = 3.0
"""From the command's start: it has planned by then, and new pods come."""
AUTOSCALER_SECONDS = 15.0
"""From its making to its first look, as a kube-controller-manager has it (--horizontal-pod-autoscaler-sync-period)."""
AUTOSCALED = "autoscaled midway"
AUTOSCALED_STARTUP_SECONDS = 3.0
"""Of its pods: a blue/green of an operator's is done 4 s after it was asked for otherwise, before anybody looked."""
BAD_API_SECONDS, BAD_API_SHARE = 12.0, 0.5
"""Many turns of an engine, of which one is half a second."""
KILLS = (1.5, 2.5, 4.0)
NODE = "node-2"
PROGRESS_SECONDS = 6


async def good(play: Play) -> None:
    await play.released("v2")
    await play.answered_by("v2")
    if play.strategy == "bluegreen":
        await play.release("retire")
        await play.answered_by("v2")


async def bad_and_abort(play: Play) -> None:
    """An image that nobody can pull: halted, then given up."""
    await play.released("v2", BAD, PROGRESS_SECONDS, code=1)
    await play.answered_by("v1")
    await play.release("abort")
    await play.answered_by("v1")


async def bad_and_good(play: Play) -> None:
    """The same, and another version in its place."""
    await play.released("v2", BAD, PROGRESS_SECONDS, code=1)
    await play.answered_by("v1")
    await play.released("v3")
    await play.answered_by("v3")


async def rollback(play: Play) -> None:
    await play.released("v2")
    await play.answered_by("v2")
    await play.release("rollback", *(("--to", "r1") if play.strategy == "rainbow" else ()))
    await play.answered_by("v1")


async def superseded(play: Play) -> None:
    """A third version is asked for while the second is under way; the first command carries both."""
    first = await play.ask("v2")
    await asyncio.sleep(MIDWAY_SECONDS)
    second = await play.ask("v3")
    await asyncio.gather(first(), second())
    await play.answered_by("v3")


async def scaled(play: Play) -> None:
    carried = await play.ask("v2")
    await asyncio.sleep(MIDWAY_SECONDS)
    await play.kubectl("scale", "deployment/web", f"--replicas={PODS + 2}")
    await carried()
    await play.answered_by("v2")


async def drained(play: Play) -> None:
    """``kubectl drain`` of a node, as an administrator does it: its pods are evicted all at once."""
    carried = await play.ask("v2")
    await asyncio.sleep(MIDWAY_SECONDS)
    try:
        await play.kubectl("drain", NODE, "--pod-selector", "app=web", "--ignore-daemonsets", "--timeout=100s")
        await carried()
    finally:
        await play.kubectl("uncordon", NODE)
    await play.answered_by("v2")


async def autoscaled(play: Play) -> None:
    """An autoscaler is at work, and raises the workload by half while the release is under way."""
    await play.autoscaled(PODS + 2)
    await asyncio.sleep(AUTOSCALER_SECONDS - MIDWAY_SECONDS)
    began = now()
    carried = await play.ask("v2")
    await carried()
    over = now()
    at, wanted = await play.scaled_at()
    if not began - 1 <= at <= over or wanted != PODS + 2:
        play.wrong.append(f"the autoscaler wanted {wanted} pods {at - began:.0f} s after the beginning, not midway")
    await play.answered_by("v2")


async def bad_api(play: Play) -> None:
    """The API server answers half of what it is asked with 429, 409, 500 or 503, from before the release until midway;
    of what it calls a time-out it has done half."""
    loop = asyncio.get_running_loop()
    await play.bad_api(BAD_API_SECONDS, BAD_API_SHARE)
    over = loop.time() + BAD_API_SECONDS
    carried = await play.ask("v2")
    await carried()
    await asyncio.sleep(max(0.0, over - loop.time()))  # a machine of its own may be done before
    await play.answered_by("v2")


async def killed(play: Play) -> None:
    """SIGKILL, again and again further on; then it is carried to its end."""
    for instant in KILLS:
        process = await play.start("release", "resume", "deploy/web", "--yes") if instant != KILLS[0] else None
        process = process or await play.start_release("v2")
        await asyncio.sleep(instant)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await ended(process)
    if (await play.tidegate("release", "status", "deploy/web")).code:  # killed before it was written down
        await play.released("v2")
    await play.release("resume")
    await play.answered_by("v2")


STORIES: tuple[tuple[str, Story], ...] = (
    ("good to good", good),
    ("first release of pods without a gate", good),
    ("good to bad, aborted", bad_and_abort),
    ("bad, then good", bad_and_good),
    ("rolled back", rollback),
    ("superseded midway", superseded),
    ("scaled midway", scaled),
    ("a node drained midway", drained),
    (AUTOSCALED, autoscaled),
    ("a bad API for a while", bad_api),
    ("killed three times, resumed", killed),
)
UNGATED = "first release of pods without a gate"
AT_ONCE = 2
ALONE = ("a node drained midway",)
"""What touches others' pods."""


async def told(play: Play, name: str, story: Story, made: Object) -> Told:
    """One story of the workload ``made``, in a namespace of its own."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await play.put(made, type="NodePort")
        began = loop.time()
        async with play.requests():
            await story(play)
    except (OSError, RuntimeError, ValueError, LookupError, TimeoutError) as error:
        play.wrong.append(f"was not played to its end: {error!r}")
    found = play.judged(f"{play.strategy}, {name}", loop.time() - began)
    try:
        await play.remove()
    except (RuntimeError, TimeoutError) as error:
        play.wrong.append(f"was not removed: {error!r}")
    return found


async def show(lab: BenchLab, stage: RealStage, only: str = "") -> list[Figure]:
    """Every strategy, every story; as many at once as two cores have room for. ``only``: words that have to be in the
    name."""
    found: dict[tuple[int, int], Told] = {}
    for number, (name, story) in enumerate(STORIES):
        asked = [one for one in STRATEGIES if all(word in f"{one}, {name}" for word in only.split("+"))]
        size = 1 if name in ALONE else AT_ONCE
        for some in (asked[start : start + size] for start in range(0, len(asked), size)):
            plays = [Play(lab, stage, f"{one}-{number}", one) for one in some]
            seconds = AUTOSCALED_STARTUP_SECONDS if name == AUTOSCALED else STARTUP_SECONDS
            made = web(gated=name != UNGATED, startup_seconds=seconds)
            playing = [told(play, name, story, made) for play in plays]
            for play, one in zip(plays, await asyncio.gather(*playing), strict=True):
                tell(one)
                found[STRATEGIES.index(play.strategy), number] = one
    every = [found[key] for key in sorted(found)]
    wrong = [f"{one.name}: {text}" for one in every for text in one.wrong]
    title = f"all {len(found)}: commands end as they should, and then the right version alone answers"
    return [*(one.figure for one in every), *([holds(title, not wrong, "; ".join(wrong)[:600])] if found else [])]


def tell(one: Told) -> None:
    """As it goes."""
    print(f"  {one.name}: {len(one.lost)} lost of {one.sent:,}, {one.seconds:.0f} s", flush=True)
    for text in [*one.wrong, *one.lost[:5]]:
        print(f"    {text}", flush=True)


async def plain(lab: BenchLab, stage: RealStage) -> list[Figure]:
    """For comparison: ``kubectl set image`` and ``kubectl rollout status``, pods without a gate."""
    play = Play(lab, stage, "plain")
    await play.put(web(gated=False), type="NodePort")
    began = asyncio.get_running_loop().time()
    async with play.requests():
        await play.kubectl("set", "image", "deployment/web", "echo=tidegate/echo:v2")
        await play.kubectl("rollout", "status", "deployment/web", "--timeout=100s")
        await asyncio.sleep(1.0)
    one = play.judged("kubectl set image", asyncio.get_running_loop().time() - began)
    await play.remove()
    return [
        Figure("beside: plain kubectl set image, no gate: lost", len(one.lost), "requests", note=f"of {one.sent:,}")
    ]
