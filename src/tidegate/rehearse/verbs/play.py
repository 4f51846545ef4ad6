"""One story of verbs under faults, seeded, in virtual time, judged by the kernels' journal and the API's objects."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate import vtime
from tidegate.kube.api import PODS, SERVICES, Selection
from tidegate.lab.config import Addon, LabConfig
from tidegate.lab.faults import Fault, FaultKind
from tidegate.lab.virtual import VirtualLab
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.rehearse.addons import TIDEGATE
from tidegate.rehearse.loadspec import LoadSpec
from tidegate.rehearse.samples import Sample
from tidegate.rehearse.spectator import is_ready
from tidegate.rehearse.stage import RunningLoad
from tidegate.rehearse.verbs import scene as scenes
from tidegate.rehearse.verbs.camera import Camera
from tidegate.rehearse.verbs.deeds import Deed, Shell
from tidegate.rehearse.verbs.judge import Case, judge
from tidegate.rehearse.verbs.people import People
from tidegate.rehearse.verbs.scene import NS, PORT, Scene
from tidegate.rehearse.verbs.tidying import tidy
from tidegate.rehearse.verbs.weather import KINDS, Sky
from tidegate.rehearse.virtual import VirtualStage

LIMIT_SECONDS = 3600.0
PAUSE_SECONDS = (0.5, 6.0)
"""Between two faults."""
FAULT_SECONDS = (0.5, 1.0, 3.0, 8.0)
PROXY_FAULTS: tuple[FaultKind, ...] = ("proxy-freeze", "proxy-lag", "proxy-kill", "proxy-restart", "clear")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed's story. ``findings``: broken promises, and what could not be tidied; there must be none."""

    seed: int
    findings: tuple[str, ...]
    deeds: tuple[Deed, ...]
    faults: int
    by_hand: int
    requests: int
    lost: dict[str, int]
    digest: str
    virtual_seconds: float

    @property
    def words(self) -> dict[str, int]:
        """How many verbs ended with which word."""
        counted: dict[str, int] = {}
        for deed in self.deeds:
            counted[deed.word] = counted.get(deed.word, 0) + 1
        return counted


def play(seed: int, rate: float = 12.0, *, shuffle: bool = False, addons: tuple[Addon, ...] = (TIDEGATE,)) -> Outcome:
    """One story drawn from ``seed``, with ``rate`` requests per second to each Service."""

    async def story() -> Outcome:
        rng = random.Random(f"{seed}/verbs")
        scene = scenes.draw(rng)
        config = LabConfig(seed=seed, addons=addons, nodes=scene.nodes, zones=scene.zones)
        async with VirtualLab(config) as lab:
            return await _Story(lab, scene, seed).play(rate)

    return vtime.run(story(), seed=seed, shuffle=shuffle, limit_seconds=LIMIT_SECONDS)


class _Story:
    def __init__(self, lab: VirtualLab, scene: Scene, seed: int) -> None:
        self._lab = lab
        self._scene = scene
        self._seed = seed
        self._sky = Sky(random.Random(f"{seed}/sky"))
        exchange = self._sky.over(lab.lab.exchange)
        vtime.hosted()[lab.config.addressing.server] = exchange  # agents and coordinator too
        self._shell = Shell(exchange, random.Random(f"{seed}/shell"))
        rng = random.Random(f"{seed}/people")
        self._people = People(lab.api, self._shell, scene, rng, lab.config.node_names)
        self._rng = random.Random(f"{seed}/faults")
        self._faults = 0

    async def play(self, rate: float) -> Outcome:
        lab, rng = self._lab, random.Random(f"{self._seed}/story")
        loop = asyncio.get_running_loop()
        await scenes.build(lab.api, self._scene)
        await self._installed()
        began = loop.time()
        camera = Camera(lab.api)
        filming = loop.create_task(camera.run())
        loads = [await self._load(name, rate) for name in self._scene.services]
        breaking = loop.create_task(self._break())
        people, verbs = rng.randint(1, 3), rng.randint(6, 12)
        await asyncio.gather(*(self._people.person(verbs // people) for _ in range(people)))
        breaking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await breaking
        self._clear()
        left = await tidy(lab.api, self._shell, self._people, self._scene, random.Random(f"{self._seed}/tidy"))
        samples = [sample for load in loads for sample in await load.stop()]
        await asyncio.sleep(3.0)  # connections are journaled when they end
        await self._shell.close()
        filming.cancel()
        entries = VirtualStage(lab).journal()
        verdict = judge(Case(self._scene, camera, tuple(self._shell.deeds), samples, entries))
        findings = (*verdict.findings, *(f"left: {one}" for one in left))
        return Outcome(
            seed=self._seed,
            findings=findings,
            deeds=tuple(self._shell.deeds),
            faults=self._faults + self._sky.count,
            by_hand=len(self._people.by_hand),
            requests=len(samples),
            lost=verdict.lost,
            digest=_digest(samples, self._shell.deeds, findings),
            virtual_seconds=round(loop.time() - began, 3),
        )

    async def _installed(self) -> None:
        while not all(map(is_ready, (await self._lab.api.list(PODS, Selection(SYSTEM_NAMESPACE))).items)):
            await asyncio.sleep(0.5)

    async def _load(self, service: str, rate: float) -> RunningLoad:
        found = await self._lab.api.get(SERVICES, service, NS)
        stage = VirtualStage(self._lab)
        spec = LoadSpec(
            host=found["spec"]["clusterIP"],
            port=PORT,
            sources=stage.sources,
            output=f"{stage.scratch}/{service}.samples",
            new_per_second=rate / 2,
            pool_per_second=rate / 2,
            pool_size=2,
        )
        return await stage.start_load(spec)

    async def _break(self) -> None:
        rng = self._rng
        while True:
            await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
            node = rng.choice(self._lab.config.node_names)
            chance = rng.random()
            if chance < 0.2:
                agent = f"tidegate-agent-{node}"
                self._lab.kill(rng.choice((f"{agent}/agent", f"{agent}/holder", "tidegate-coordinator/coordinator")))
            elif chance < 0.5:
                self._sky.kind, self._sky.chance = rng.choice(KINDS), rng.choice((0.1, 0.3, 0.8))
                self._sky.until = asyncio.get_running_loop().time() + rng.choice(FAULT_SECONDS)
            else:
                fault = Fault(rng.choice(PROXY_FAULTS), node, rng.choice(FAULT_SECONDS))
                self._lab.lab.faults.apply(fault)
            self._faults += 1

    def _clear(self) -> None:
        self._sky.until = 0.0
        for node in self._lab.config.node_names:
            self._lab.lab.faults.apply(Fault("clear", node))
            self._lab.lab.faults.apply(Fault("proxy-restart", node))


def _digest(samples: Sequence[Sample], deeds: Sequence[Deed], findings: Sequence[str]) -> str:
    """SHA-256 over what was seen: the same seed gives the same."""
    seen = [[[*map(str, (one.number, one.ended_at, one.outcome, one.pod))] for one in samples], [*map(str, deeds)]]
    return hashlib.sha256(json.dumps([*seen, list(findings)]).encode()).hexdigest()
