"""The sequences on real netfilter: a lab with network ``kernel``, in real time. Root, and Linux."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from tidegate.agent.fencing import Fencing
from tidegate.kube.api import SERVICES, Api
from tidegate.kube.client import KubeClient
from tidegate.kube.connect import open_api
from tidegate.lab import boot, control
from tidegate.lab.faults import Fault, FaultKind
from tidegate.lab.journal import read
from tidegate.lab.settings import LabSettings
from tidegate.model.epoch import Epoch
from tidegate.model.names import SYSTEM_NAMESPACE, fence_name
from tidegate.rehearse.fence.judge import Node, Sight, judge, number_of
from tidegate.rehearse.fence.play import INSTALL, NODES, Outcome
from tidegate.rehearse.fence.sequences import Sequences

LINE_BYTES_MAX = 16 * 1024 * 1024
WORKERS = 16


class KernelGround:
    """Nodes whose rules are read by ``sampler`` processes in their namespaces."""

    def __init__(self, api: KubeClient, status: dict[str, Any]) -> None:
        self.api: Api = api
        self._client = api
        self._status = status
        self._seen: dict[str, Node] = {one["name"]: Node() for one in status["nodes"]}
        self._latest: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._told: list[asyncio.Task[None]] = []
        self.complaints: list[str] = []
        """What the agent's reading and the judge's did not agree on, or could not read."""

    @property
    def nodes(self) -> Sequence[str]:
        return tuple(self._seen)

    def address(self, number: int) -> str:
        first = self._status["nodes"][0]["address"].split(".")
        return f"10.{int(first[1]) + 1}.200.{number + 1}"

    def hurt(self, kind: FaultKind, node: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._told.append(loop.create_task(control.apply_fault(self._client, Fault(kind, node, seconds))))

    async def shown(self, node: str, epoch: Epoch) -> None:
        while (latest := self._latest.get(node)) is None or not Epoch(INSTALL, latest).reaches(epoch):
            await self._changed.wait()

    def seen(self) -> Sequence[Node]:
        return tuple(self._seen.values())

    async def sample(self, name: str) -> None:
        """Read one node's rules for ever."""
        service = await self.api.get(SERVICES, fence_name(INSTALL), SYSTEM_NAMESPACE)
        [place] = [one for one in self._status["nodes"] if one["name"] == name]
        command = (
            "nsenter", f"--net={place['namespace']}", sys.executable, "-m", "tidegate.rehearse.fence.sampler",
            name, place["address"], service["spec"]["clusterIP"],
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self._take(name, json.loads(line))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _take(self, name: str, told: dict[str, Any]) -> None:
        sights = self._seen[name].sights
        if "agent" not in told:
            sights.append(replace(sights[-1], at=told["at"], ended=told["ended"]))
            return
        shown = tuple(number_of(one) for one in told["fence"])
        sights.append(Sight(told["at"], shown, frozenset(told["routed"]), told["ended"]))
        agent = told["agent"]
        self.complaints += [f"{name}: {one}" for one in agent["unreadable"]]
        if agent["fence"] and not agent["unreadable"]:
            self._latest[name] = min(agent["fence"])
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


@contextlib.asynccontextmanager
async def kernel_ground(shape: str, seed: int) -> AsyncIterator[tuple[KernelGround, boot.RunningLab]]:
    """A lab of its own, taken down at the end."""
    name = f"fence-{shape.replace('.', '-')}"
    settings = LabSettings(name, nodes=NODES, seed=seed, block=0, network="kernel", proxy=shape)
    running = await asyncio.to_thread(boot.start, settings)
    try:
        async with open_api(running.record.server) as api:
            yield KernelGround(api, await control.status_of(api)), running
    finally:
        await asyncio.to_thread(running.close)


def play_on_kernel(shape: str, seed: int, count: int) -> tuple[Outcome, tuple[str, ...]]:
    """``count`` sequences, in real time; and what the two readers of the rules did not agree on."""

    async def story() -> tuple[Outcome, tuple[str, ...]]:
        began = asyncio.get_running_loop().time()
        async with kernel_ground(shape, seed) as (ground, running):
            sequences = Sequences(
                ground, Fencing(ground.api, INSTALL), random.Random(f"{seed}/fence"), count, workers=WORKERS
            )
            await sequences.prepare()
            sampling = [asyncio.ensure_future(ground.sample(node)) for node in ground.nodes]
            try:
                await sequences.run()
            finally:
                for task in sampling:
                    task.cancel()
                await asyncio.gather(*sampling, return_exceptions=True)
            for entry in read(running.folder.journal):
                if entry["event"] == "proxy-synced":
                    dict(zip(ground.nodes, ground.seen(), strict=True))[str(entry["node"])].synced.append(entry["at"])
            cuts, nodes = tuple(sequences.cuts), tuple(ground.seen())
            seconds = asyncio.get_running_loop().time() - began
            outcome = Outcome(shape, seed, judge(cuts, nodes), sequences.hurts, seconds, cuts, nodes)
            return outcome, tuple(ground.complaints)

    return asyncio.run(story())
