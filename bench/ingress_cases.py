"""The last pod behind a real ingress: what each proxy does when every endpoint is on its way out.

One replica, load through the ingress and, beside it, through the Service's ClusterIP. Three ends: ``tidegate drain``
(label mode: the replacement comes first), DELETE (the gate: deletionTimestamp is the cut), and scaling to nothing.
kube-proxy falls back to pods that terminate but serve; ingress controllers take them out at once.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from pathlib import Path

from bench.figures import Figure, at_most, holds
from bench.ingress import Drained, Scene, Tally, load, scene, version_of
from bench.ingress_objects import NS, PORT
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES, Patch, Selection
from tidegate.rehearse.ingress import KINDS, Kind

SETTLE_SECONDS = 6.0
"""After each end, until the ingress has the new pod (Traefik's throttle is 2 s)."""


async def under_load(on: Scene, end: Awaitable[list[Drained]]) -> tuple[Tally, Tally, list[Drained]]:
    """``end`` is a coroutine that ends pods. What clients saw through the ingress, and through the ClusterIP."""
    ip = (await on.api.get(SERVICES, "demo", NS))["spec"]["clusterIP"]
    async with load(on.host) as edge, load(ip, PORT) as nodes:
        await asyncio.sleep(1.0)
        ended = await end
        await asyncio.sleep(SETTLE_SECONDS)
    return edge, nodes, ended


async def drained(on: Scene) -> list[Drained]:
    return [await on.by_label((await on.ready(1))[0])]


async def deleted(on: Scene) -> list[Drained]:
    return [await on.by_gate((await on.ready(1))[0])]


async def scaled_to_nothing(on: Scene) -> list[Drained]:
    """The clients stop once the pod is gone: what nobody serves is no loss."""
    [pod] = await on.ready(1)
    watching = asyncio.create_task(on.followed(pod, (await on.api.list(PODS, Selection(NS))).resource_version))
    await on.api.patch(DEPLOYMENTS, "demo", Patch({"spec": {"replicas": 0}}), NS)
    return [await watching]


async def measured(kind: Kind) -> list[Figure]:
    name = f"{kind.name} {version_of(kind)}"
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        async with scene(kind, Path(folder), replicas=1) as on:
            for what, end in (("drain of the only pod", drained), ("DELETE of the only pod", deleted)):
                edge, nodes, [one] = await under_load(on, end(on))
                note = f"{one.result} after {one.seconds:.1f} s {one.reason}"
                figures.append(holds(f"{name}: {what}: verified", one.result == "verified", note))
                lost = f"of {edge.sent}: {edge.words}"
                if end is drained:
                    figures.append(at_most(f"{name}: {what}: lost through the ingress", edge.lost, "", 0, lost))
                else:
                    figures.append(Figure(f"{name}: {what}: lost through the ingress", edge.lost, "", note=lost))
                figures.append(
                    at_most(f"{name}: {what}: lost by ClusterIP", nodes.lost, "", 0, f"of {nodes.sent} {nodes.words}")
                )
                await on.ready(1)
            edge, nodes, [one] = await under_load(on, scaled_to_nothing(on))
            note = f"{one.result} after {one.seconds:.1f} s {one.reason}; {edge.words}; by ClusterIP {nodes.words}"
            figures.append(Figure(f"{name}: scaled to nothing: answered with an error", edge.lost, "", note=note))
    return figures


def run() -> list[Figure]:
    """Each proxy whose program is here."""
    figures: list[Figure] = []
    for kind in KINDS.values():
        if kind.path() is not None:
            figures += asyncio.run(measured(kind))
    return figures
