"""The last endpoint of a node, and the last of all, under load through a load balancer that asks health check ports.

`externalTrafficPolicy: Local` with another endpoint beside, as the last of its node, and by labels; the last of all;
a DaemonSet without surge; Recreate. Requests go to nodes as a load balancer sends them, results are the ledger's.
`TIDEGATE_BENCH_NETWORK=kernel` plays it on the lab's network of that name (root): real rules, clients outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Figure, at_least, at_most, below, counted, holds
from bench.ground import ROOT, BenchLab, bound, lab
from bench.verbs_ground import Scene, ended
from bench.verbs_objects import Object, deployment, service

NETWORK = os.environ.get("TIDEGATE_BENCH_NETWORK", "loopback")
SETTLE_SECONDS = 15.0
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
Line = Callable[["Stall"], Awaitable[list[Figure]]]


@dataclass(slots=True)
class Load:
    """What the clients said at the end: ``heard`` is every change of a health check (seconds, node, status)."""

    sent: int = 0
    lost: list[str] = field(default_factory=list)
    heard: list[tuple[float, str, int]] = field(default_factory=list)

    def figures(self, name: str, least: int = 200) -> list[Figure]:
        notes = f": {counted(self.lost[:5])}" if self.lost else ""
        return [
            at_least(f"{name}: requests", self.sent, "", least),
            at_most(f"{name}: lost", len(self.lost), "requests", 0, f"of {self.sent}{notes}"),
        ]

    def refused_by(self, node: str) -> bool:
        return any((name, status) == (node, 503) for _, name, status in self.heard)


class Stall(Scene):
    """A namespace with the Service `web`, and a load balancer before it."""

    def __init__(self, one: BenchLab, name: str, namespace: str) -> None:
        super().__init__(one, namespace)
        self.name = name
        self.notes: list[str] = []

    @contextlib.asynccontextmanager
    async def balanced(self) -> AsyncIterator[Load]:
        """Clients for as long as this is open; the load is filled in at its end."""
        spec = (await self.get("service", "web"))["spec"]
        nodes = {
            one["metadata"]["name"]: next(
                at["address"] for at in one["status"]["addresses"] if at["type"] == "InternalIP"
            )
            for one in (await self.get("nodes"))["items"]
        }
        asked = {
            "nodes": nodes,
            "node_port": spec["ports"][0]["nodePort"],
            "health_port": spec.get("healthCheckNodePort", 0),
        }
        command = [sys.executable, "-m", "bench.balanced", json.dumps(asked)]
        if NETWORK == "kernel":
            command = [sys.executable, "-m", "tidegate", "lab", "enter", "--lab", self.name, "--", *command]
        pipe = asyncio.subprocess.PIPE
        env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT, env=env, preexec_fn=bound()
        )
        assert process.stdin is not None and process.stdout is not None
        load = Load()
        try:
            async with asyncio.timeout(30):
                await process.stdout.readline()
            await asyncio.sleep(1.0)
            yield load
            await asyncio.sleep(2.0)
        finally:
            process.stdin.close()
            done = await ended(process, seconds=30.0)
        found = json.loads(done.out)
        load.sent, load.lost = found["sent"], found["lost"]
        load.heard = [(at, node, status) for at, node, status in found["heard"]]

    async def placed(self) -> dict[str, list[str]]:
        """Node -> its ready pods."""
        found: dict[str, list[str]] = {}
        for one in (await self.get("pods", "-l", "app=web"))["items"]:
            if not one["metadata"].get("deletionTimestamp"):
                found.setdefault(one["spec"]["nodeName"], []).append(one["metadata"]["name"])
        return found

    async def cordon(self, node: str, is_cordoned: bool = True) -> None:
        await self.kubectl("cordon" if is_cordoned else "uncordon", node)

    async def delete(self, name: str) -> None:
        await self.kubectl("delete", "pod", name, "--wait=true", "--timeout=90s")

    async def ledger(self, *pods: str) -> list[dict[str, Any]]:
        """What the agents keep of these retirements; an agent under load may be asked more than once."""
        found: list[dict[str, Any]] = []
        for _ in range(10):
            done = await self.tidegate("ledger", "-o", "json")
            found = [one for one in done.document["items"] if one["pod"] in pods]
            if {one["pod"] for one in found} == set(pods):
                break
            self.notes.append(done.err.strip()[-200:])
            await asyncio.sleep(1.0)
        return found


def web(replicas: int, **strategy: Any) -> Object:
    made = deployment("web", {"app": "web"}, replicas, gated=True)
    if strategy:
        made["spec"]["strategy"] = strategy
    return made


def result_is(name: str, entries: list[dict[str, Any]], words: str, reason: str = "") -> Figure:
    """Every retirement ended in ``words``, its reason with ``reason`` in it."""
    results = [one["result"] for one in entries]
    odd = [one["reason"] for one in entries if reason not in one["reason"]]
    note = counted(results) + (f"; {odd[0]}" if odd else "")
    return holds(f"{name}: {words}", bool(results) and set(results) == {words} and not odd, note)


async def beside(stall: Stall) -> list[Figure]:
    """1. Local, another endpoint on the same node."""
    await stall.apply(web(6), service("web", {"app": "web"}, **LOCAL))
    await stall.ready("app=web", 6)
    async with stall.balanced() as load:
        name = next(names[0] for names in (await stall.placed()).values() if len(names) > 1)
        await stall.delete(name)
    entries = await stall.ledger(name)
    return [result_is("1 beside another", entries, "verified"), *load.figures("1 beside another")]


async def last_of_node(stall: Stall) -> list[Figure]:
    """2. Local, the last of its node."""
    await stall.apply(web(3), service("web", {"app": "web"}, **LOCAL))
    await stall.ready("app=web", 3)
    async with stall.balanced() as load:
        node, names = next((node, names) for node, names in (await stall.placed()).items() if len(names) == 1)
        await stall.cordon(node)
        await stall.delete(names[0])
        await stall.cordon(node, False)
    entries = await stall.ledger(names[0])
    seconds = entries[-1]["seconds"] if entries else 0.0
    return [
        result_is("2 last of its node", entries, "assumed", "has answered 503 for 15 s"),
        holds("2 last of its node: its health check port said 503", load.refused_by(node)),
        at_least("2 last of its node: held", seconds, "s", SETTLE_SECONDS),
        below("2 last of its node: held no longer than that and 5 s", seconds, "s", SETTLE_SECONDS + 5.0),
        *load.figures("2 last of its node"),
    ]


async def by_labels(stall: Stall) -> list[Figure]:
    """3. The same by labels."""
    await stall.apply(web(3), service("web", {"app": "web"}, **LOCAL))
    await stall.ready("app=web", 3)
    async with stall.balanced() as load:
        name = next(names[0] for names in (await stall.placed()).values() if len(names) == 1)
        before = (await stall.get("pod", name))["metadata"]["labels"]
        done = await stall.tidegate("drain", f"pod/{name}", "--no-replace", "--yes")
        after = (await stall.get("pod", name))["metadata"]["labels"]
    return [
        holds("3 by labels: refused, exit code 3", done.code == 3, done.said.strip()[-120:]),
        holds("3 by labels: nothing was changed", before == after),
        *load.figures("3 by labels"),
    ]


async def last_of_all(stall: Stall) -> list[Figure]:
    """4. The only pod of a Deployment."""
    await stall.apply(web(1), service("web", {"app": "web"}, type="NodePort"))
    [name] = await stall.ready("app=web", 1)
    async with stall.balanced() as load:
        await stall.delete(name)
    entries = await stall.ledger(name)
    return [result_is("4 last of all", entries, "verified"), *load.figures("4 last of all")]


async def roll(stall: Stall, workload: str, old: Iterable[str], seconds: float) -> None:
    """Until none of the ``old`` pods is left and as many new ones are ready. Raises ``TimeoutError``."""
    left = set(old)
    await stall.kubectl("set", "env", workload, "ROLLED=yes")
    async with asyncio.timeout(seconds):
        while left & {one["metadata"]["name"] for one in (await stall.get("pods"))["items"]}:
            await asyncio.sleep(0.2)
    await stall.ready("app=web", len(left))


async def daemonset(stall: Stall) -> list[Figure]:
    """5. A DaemonSet without surge, under Local, rolled."""
    made = web(3)
    made["kind"] = "DaemonSet"
    del made["spec"]["replicas"], made["spec"]["strategy"]
    await stall.apply(made, service("web", {"app": "web"}, **LOCAL))
    old = await stall.ready("app=web", 3)
    async with stall.balanced() as load:
        await roll(stall, "daemonset/web", old, 150)
    entries = await stall.ledger(*old)
    nodes = {one["node"] for one in entries}
    return [
        result_is("5 DaemonSet", entries, "assumed", "has answered 503 for 15 s"),
        holds("5 DaemonSet: every node's port said 503", len(nodes) == 3 and all(map(load.refused_by, nodes))),
        *load.figures("5 DaemonSet"),
    ]


async def recreate(stall: Stall) -> list[Figure]:
    """6. Recreate."""
    await stall.apply(web(3, type="Recreate"), service("web", {"app": "web"}, type="NodePort"))
    old = await stall.ready("app=web", 3)
    async with stall.balanced() as load:
        await roll(stall, "deployment/web", old, 60)
    entries = await stall.ledger(*old)
    longest = max((one["seconds"] for one in entries), default=99.0)
    return [
        result_is("6 Recreate", entries, "bypassed", "strategy Recreate"),
        below("6 Recreate: answered at once", longest, "s", 1.0),
        Figure("6 Recreate: lost to its strategy", len(load.lost), "requests", note=f"of {load.sent}"),
    ]


LINES: tuple[Line, ...] = (beside, last_of_node, by_labels, last_of_all, daemonset, recreate)
ONLY = os.environ.get("TIDEGATE_BENCH_LINES", "")
"""Names of lines by commas; all without."""


async def _all(one: BenchLab, name: str) -> list[Figure]:
    figures: list[Figure] = []
    for line in LINES:
        if ONLY and line.__name__ not in ONLY.split(","):
            continue
        namespace = line.__name__.replace("_", "-")
        stall = Stall(one, name, namespace)
        await stall.kubectl("create", "namespace", namespace)
        figures += await line(stall)
        if stall.notes:
            print(f"  {namespace}: {'; '.join(dict.fromkeys(stall.notes))}", flush=True)
        await stall.kubectl("delete", "namespace", namespace, "--wait=false")
    return figures


def run() -> list[Figure]:
    name = f"bench-policies-{NETWORK}"
    options = () if NETWORK == "loopback" else ("--network", NETWORK)
    with lab(name, *options) as one:
        return asyncio.run(_all(one, name))
