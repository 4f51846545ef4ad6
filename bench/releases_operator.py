"""Releases as objects: ``tidegate operator`` carries them out, and is killed on the way.

Two operators stand side by side as their Deployment has them, here as processes beside the lab (a lab has no image of
theirs). The one that leads is killed with SIGKILL once the release is under way; the other has to take over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.figures import Figure, holds
from bench.ground import ROOT, BenchLab
from bench.releases_ground import COMMAND_SECONDS, IMAGE, Play, web
from tidegate.rehearse.real import RealStage
from tidegate.release.spec import STRATEGIES

LEASE = "tidegate-operator"
SYSTEM = "tidegate-system"
PORTS = (18491, 18492)
UNDER_WAY_SECONDS = 2.0
SECTIONS: dict[str, dict[str, Any]] = {
    "rolling": {},
    "bluegreen": {"service": "web"},
    "canary": {"service": "web", "steps": [{"weight": 50, "pauseSeconds": 2}, {"weight": 100}]},
    "rainbow": {"service": "web", "idleSeconds": 2, "retireSeconds": 2},
}


class Operators:
    """Processes by the name under which they lead."""

    def __init__(self, ground: BenchLab, log: Path) -> None:
        self._ground = ground
        self._log = log
        self._made = 0
        self._running: dict[str, tuple[asyncio.subprocess.Process, int]] = {}

    async def start(self, port: int) -> None:
        self._made += 1
        name = f"operator-{self._made}"
        env = {
            "TIDEGATE_SERVER": self._ground.record.server, "TIDEGATE_POD": name, "TIDEGATE_HOST": "127.0.0.1",
            "TIDEGATE_HEALTH_PORT": str(port), "TIDEGATE_METRICS_PORT": str(port),
        }  # fmt: skip
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tidegate", "operator", cwd=ROOT, env={**os.environ, **env}, stderr=log
            )
        self._running[name] = (process, port)

    async def kill(self, name: str) -> None:
        """SIGKILL; another one takes its place, as a Deployment's would, and waits for the Lease."""
        process, port = self._running.pop(name)
        process.kill()
        await process.wait()
        await self.start(port)

    async def stop(self) -> None:
        for process, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(process.wait() for process, _ in self._running.values()))


@contextlib.asynccontextmanager
async def operators(ground: BenchLab, stage: RealStage) -> AsyncIterator[Operators]:
    """The kinds of ``tidegate install``, and two operators."""
    play = Play(ground, stage, SYSTEM)
    printed = await play.expect(await play.start("install", "--print", "--only", "crds", "--image", "none"), "install")
    if play.wrong:
        raise RuntimeError(play.wrong[0])
    await play.kubectl("apply", "-f", "-", stdin=printed.out)
    made = Operators(ground, Path(stage.scratch) / "operators.log")
    try:
        for port in PORTS:
            await made.start(port)
        yield made
    finally:
        await made.stop()


class Kept(Play):
    """A namespace whose Release an operator keeps."""

    async def leader(self) -> str:
        async with asyncio.timeout(60):
            while True:
                found = await self.kubectl("-n", SYSTEM, "get", "lease", LEASE, "--ignore-not-found", "-o", "json")
                if found and (holder := json.loads(found)["spec"].get("holderIdentity")):
                    return str(holder)
                await asyncio.sleep(0.3)

    async def ask(self, version: str) -> None:
        spec: dict[str, Any] = {"workload": "web", "strategy": self.strategy, "images": {"echo": IMAGE.format(version)}}
        spec |= {self.strategy: SECTIONS[self.strategy]} if SECTIONS[self.strategy] else {}
        await self.apply(
            {"apiVersion": "tidegate.dev/v1alpha1", "kind": "Release", "metadata": {"name": "web"}, "spec": spec}
        )

    async def complete(self, generation: int) -> None:
        """Until the condition is about what was asked for last."""
        async with asyncio.timeout(COMMAND_SECONDS):
            while True:
                found = (await self.get("releases.tidegate.dev", "web")).get("status", {})
                said = {one["type"]: one for one in found.get("conditions", ())}
                one = said.get("Complete", {})
                if one.get("status") == "True" and one.get("observedGeneration", 0) >= generation:
                    return
                await asyncio.sleep(0.3)


async def kept(ground: BenchLab, stage: RealStage) -> list[Figure]:
    """Each strategy: good to good, the leader killed on the way."""
    found: list[Figure] = []
    wrong: list[str] = []
    async with operators(ground, stage) as both:
        for strategy in STRATEGIES:
            play = Kept(ground, stage, f"operator-{strategy}", strategy)
            await play.put(web(), type="NodePort")
            leader = await play.leader()
            began = asyncio.get_running_loop().time()
            async with play.requests():
                await play.ask("v2")
                await asyncio.sleep(UNDER_WAY_SECONDS)
                await both.kill(leader)
                await play.complete(1)
                await play.answered_by("v2")
                after = await play.leader()
            told = play.judged(f"operator killed midway, {strategy}", asyncio.get_running_loop().time() - began)
            if after == leader:
                play.wrong.append(f"{leader} leads still")
            wrong += [f"{strategy}: {text}" for text in play.wrong]
            print(f"  {told.name}: {len(told.lost)} lost of {told.sent:,}, {told.seconds:.0f} s", flush=True)
            found.append(told.figure)
            await play.kubectl("delete", "releases.tidegate.dev", "web", "--timeout=60s")
            await play.remove()
    title = "operator killed: the other one carries on, and then the new version alone answers"
    return [*found, holds(title, not wrong, "; ".join(wrong)[:500])]
