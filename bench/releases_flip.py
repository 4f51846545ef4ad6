"""Blue/green held to its word: once the command says that the flip is done, nothing new reaches blue.

10,000 new connections after each word, from every node; which revision answered is what the pod said of itself.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence

from bench.figures import Figure, at_most, below, counted, holds
from bench.ground import BenchLab, load
from bench.releases_ground import IMAGE, Play, web
from bench.verbs_ground import SETTLE_SECONDS, Done
from bench.verbs_objects import Object
from tidegate.rehearse.real import RealStage
from tidegate.rehearse.samples import Sample

CONNECTIONS, PER_SECOND = 10_000, 300.0
BACK_SECONDS_MAX = 3.0
SMALL, LARGE = 4, 250
LARGE_NODES = 5
"""A kubelet takes 110 pods, and two revisions stand beside each other."""
LARGE_READY_SECONDS = 300.0


def light(replicas: int) -> Object:
    """Pods that nobody probes once they have started: hundreds on two cores have to leave room for the requests."""
    made = web(replicas)
    container = made["spec"]["template"]["spec"]["containers"][0]
    container["startupProbe"] = {**container.pop("readinessProbe"), "failureThreshold": 120}
    made["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    return made


def reached(name: str, samples: Sequence[Sample], blue: str) -> list[Figure]:
    """Connections that blue answered, and what was lost of all."""
    lost = [f"{one.outcome} from {one.source}" for one in samples if one.is_lost]
    late = [one for one in samples if one.version == blue]
    pods = len({one.pod for one in samples if not one.is_lost})
    note = f"of {len(samples):,}, answered by {pods} pods"
    return [
        at_most(f"{name}: new connections that reached {blue}", len(late), "", 0, note),
        at_most(f"{name}: of these lost", len(lost), "", 0, counted(lost)),
    ]


def word_after(done: Done) -> float:
    """Of a command's progress lines ("   1.5 s  r1 has ..."): seconds from the first step to the last word."""
    told = [line.split(" s  ")[0] for line in done.err.splitlines() if " s  " in line]
    return float(told[-1]) if told else math.inf


async def flipped(play: Play, replicas: int) -> list[Figure]:
    """There and back; the namespace has its workload already."""
    title, loop = f"blue/green, {replicas} pods", asyncio.get_running_loop()
    await asyncio.sleep(SETTLE_SECONDS)
    slices = await play.get("endpointslices", "-l", "kubernetes.io/service-name=web")
    began = loop.time()
    words = ("--image", f"echo={IMAGE.format('v2')}", "--strategy", "bluegreen", "--service", "web")
    done = await play.release("start", *words)
    there = loop.time() - began
    flip = await play.connections(CONNECTIONS, PER_SECOND)
    began = loop.time()
    back = await play.release("rollback")
    seconds = loop.time() - began
    after = await play.connections(CONNECTIONS, PER_SECOND)
    asked = (await play.document())["questions"]
    said = "; ".join(line.strip() for line in (done.out + back.out).splitlines())
    return [
        Figure(f"{title}: from the command to its end", there, "s", note=f"{len(slices['items'])} slices"),
        *reached(f"{title}, after the flip", flip, "v1"),
        below(f"{title}: rollback, command to exit", seconds, "s", BACK_SECONDS_MAX, f"load {load()}"),
        Figure(f"{title}: rollback, from the write on the Service to the word", word_after(back), "s"),
        *reached(f"{title}, after the rollback", after, "v2"),
        holds(f"{title}: the commands end well", not play.wrong, "; ".join(play.wrong) or said),
        Figure(f"{title}: questions that the release asked", len(asked), "", note=json.dumps(sorted(
            f"{one['question']}: {one['verdict']} after {one['seconds']:.2f} s" for one in asked))),
    ]  # fmt: skip


async def small(ground: BenchLab, stage: RealStage) -> list[Figure]:
    """A set of four, with requests beside it all the time."""
    play = Play(ground, stage, "flip", "bluegreen")
    await play.put(web(SMALL), type="NodePort")
    async with play.requests():
        found = await flipped(play, SMALL)
    told = play.judged(f"blue/green, {SMALL} pods, there and back", 0.0)
    await play.remove()
    return [*found, at_most(f"{told.name}: lost", len(told.lost), "requests", 0, f"of {told.sent:,} beside it")]


async def large(ground: BenchLab, stage: RealStage) -> list[Figure]:
    """Several slices, both revisions beside each other, a process for each pod."""
    play, loop = Play(ground, stage, "large", "bluegreen"), asyncio.get_running_loop()
    began = loop.time()
    await play.put(light(LARGE), LARGE_READY_SECONDS)
    seconds = loop.time() - began
    stood = Figure(f"blue/green, {LARGE} pods: until all are ready, for scale", seconds, "s", note=f"load {load()}")
    return [stood, *await flipped(play, LARGE)]
