"""Ten pods, "2 s to be ready, 20 s to shut down": how many stand at once, and how long a rolling update takes.

Beside each other: pods that take their 20 s whatever they do (no gate, grace 20), and Tidegate's, whose clients ask for
2 s of real work all the time: each goes when every observer has let go of it and what is in flight has ended. By the
plan's own arithmetic (``release start --dry-run``), and as the lab's journal of processes has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, at_least, at_most, below, holds
from bench.ground import BenchLab, lab
from bench.verbs_ground import SETTLE_SECONDS, Scene, Tally, slow
from bench.verbs_objects import Object, deployment, service
from tidegate import vtime
from tidegate.release import scene as seen
from tidegate.release.foresee import Foreseen, Pace, foresee
from tidegate.release.record import Status
from tidegate.release.spec import Spec

PODS, READY_SECONDS, SHUTDOWN_SECONDS, WORK_SECONDS = 10, 2.0, 20.0, 2.0
SURGE, UNAVAILABLE = 3, 2
"""25 % of ten, rounded up and down: the Deployment's defaults, which most people run."""
NODE_SECONDS = 1.0
"""Until every observer has let go of a pod, about, for the arithmetic."""
CLIENTS = 12


@dataclass(frozen=True, slots=True)
class Film:
    """``most``: processes of the workload at once. ``seconds``: from the new template to the last old one's end.
    ``pod_seconds``: what the pods cost meanwhile."""

    most: int
    seconds: float
    pod_seconds: float


def film(journal: Iterable[Mapping[str, Any]], namespace: str, began: float) -> Film:
    """From a lab's journal: every ``process-started`` and ``process-exited`` of containers of the namespace."""
    changes: list[tuple[float, int]] = []
    old: set[str] = set()
    own: set[str] = set()
    ended = began
    for one in journal:
        if one["event"] == "process-started" and (one["namespace"], one["container"]) == (namespace, "echo"):
            own.add(one["uid"])
            changes.append((max(one["at"], began), 1))
            if one["at"] < began:
                old.add(one["uid"])
        elif one["event"] == "process-exited" and one["uid"] in own and one["container"] == "echo":
            changes.append((max(one["at"], began), -1))
            ended = max(ended, one["at"]) if one["uid"] in old else ended
    alive, most, cost, at = 0, 0, 0.0, began
    for when, change in sorted(changes, key=lambda pair: (pair[0], -pair[1])):
        cost += alive * (min(when, ended) - at) if when > at else 0.0
        alive, at = alive + change, max(when, at)
        most = max(most, alive)
    return Film(most, ended - began, cost)


def foreseen(end_seconds: float) -> Foreseen:
    """The plan's own arithmetic, where an old pod takes ``end_seconds`` from its deletion to its end."""
    members = tuple(
        seen.Member(f"web-{number}", is_ready=True, is_available=True, is_listed=True) for number in range(PODS)
    )
    old = seen.Edition("old", "web", "old", PODS, members, is_base=True)
    floor, way = PODS - UNAVAILABLE, seen.Way("web", {"app": "web"})
    spec = Spec("web", images={"echo": "tidegate/echo:2"})
    scene = seen.Scene(0.0, spec, Status(), "new", PODS, floor, SURGE, (old,), (way,), template="old", generation=1)
    return foresee(scene, Pace(ready=lambda pod: READY_SECONDS, end=lambda pod: end_seconds))


def workload(*, gated: bool) -> Object:
    """Ten pods that need 2 s to listen; without a gate they take the 20 s of their grace, serving."""
    made = deployment("web", {"app": "web"}, PODS, gated=gated)
    made["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    pod = made["spec"]["template"]["spec"]
    env = {"STARTUP_SECONDS": f"{READY_SECONDS:g}", "ON_SIGTERM": "drain" if gated else "ignore"}
    pod["containers"][0]["env"] = [{"name": name, "value": value} for name, value in env.items()]
    if not gated:
        pod["terminationGracePeriodSeconds"] = int(SHUTDOWN_SECONDS)
    return made


class Rollout(Scene):
    """A namespace with ten pods, and clients that always have 2 s of work under way at some of them."""

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[Tally]:
        ip, port, _ = await self.address("web")
        tally, over = Tally(), asyncio.Event()

        async def client(source: str) -> None:
            while not over.is_set():
                await slow(tally, source, (ip, port), WORK_SECONDS)

        await asyncio.sleep(SETTLE_SECONDS)
        tasks = [asyncio.create_task(client(self.node(1 + number % 3))) for number in range(CLIENTS)]
        try:
            await asyncio.sleep(1.0)
            yield tally
        finally:
            over.set()
            await asyncio.gather(*tasks)

    async def gone(self, old: Iterable[str], seconds: float) -> None:
        left = set(old)
        async with asyncio.timeout(seconds):
            while left & {one["metadata"]["name"] for one in (await self.get("pods", "-l", "app=web"))["items"]}:
                await asyncio.sleep(0.2)

    def film(self, began: float) -> Film:
        lines = self.lab.folder.journal.read_text().splitlines()
        return film((json.loads(line) for line in lines), self.namespace, began)


async def played(one: BenchLab, *, gated: bool) -> tuple[Film, Tally, bool]:
    """One rollout: its film, its clients, whether the release said that it is done."""
    rollout = Rollout(one, "gated" if gated else "plain")
    await rollout.kubectl("create", "namespace", rollout.namespace)
    await rollout.apply(workload(gated=gated), service("web", {"app": "web"}))
    old = await rollout.ready("app=web", PODS, 40)
    code = 0
    async with rollout.busy() as tally:
        began = vtime.now().timestamp()
        if gated:
            words = ("release", "start", "deploy/web", "--image", "echo=tidegate/echo:2", "--yes")
            code = (await rollout.tidegate(*words)).code
        else:
            await rollout.kubectl("set", "image", "deployment/web", "echo=tidegate/echo:2")
        await rollout.gone(old, 120)
        await asyncio.sleep(1.0)
    found = rollout.film(began)
    await rollout.kubectl("delete", "namespace", rollout.namespace, "--wait=false")
    return found, tally, code == 0


async def _both(one: BenchLab) -> list[Figure]:
    plain, plain_load, _ = await played(one, gated=False)
    gated, load, is_done = await played(one, gated=True)
    return [
        *figures(plain, gated),
        holds("tidegate: the release said done", is_done),
        at_least("requests of 2 s", load.sent, "", 30, f"{plain_load.sent} with grace 20"),
        at_most("tidegate: lost", len(load.lost), "requests", 0, "; ".join(load.lost[:3])),
        Figure("grace 20: lost", len(plain_load.lost), "requests", note="; ".join(plain_load.lost[:3])),
    ]


def figures(plain: Film, gated: Film) -> list[Figure]:
    """Measured beside each other, and beside what the plan says."""
    told = {"grace 20": foreseen(SHUTDOWN_SECONDS), "tidegate": foreseen(NODE_SECONDS + WORK_SECONDS)}
    found: list[Figure] = []
    for name, one in (("grace 20", plain), ("tidegate", gated)):
        plan = told[name]
        extra = one.pod_seconds - PODS * one.seconds
        plan_extra = plan.pod_seconds - PODS * plan.seconds
        found += [
            Figure(f"{name}: pods at once", one.most, "pods", note=f"the plan says {plan.most_pods}"),
            Figure(f"{name}: to the end of the last old pod", one.seconds, "s", note=f"the plan says {plan.seconds:g}"),
            Figure(f"{name}: beyond ten pods", extra, "pod seconds", note=f"the plan says {plan_extra:.0f}"),
        ]
    return [*found, below("tidegate's time of that of grace 20", gated.seconds / plain.seconds, "", 0.75)]


def run() -> list[Figure]:
    with lab("bench-ten-pods") as one:
        return asyncio.run(_both(one))
