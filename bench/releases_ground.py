"""What releases are judged with: a namespace with a workload, the command line, and requests that count for themselves.

The requests are ``rehearse``'s open-loop load in processes of its own: from every node through the ClusterIP, on a
connection each and on kept ones, and through a NodePort. Each sample tells which version answered it, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.figures import Figure, at_most, counted
from bench.ground import BenchLab
from bench.verbs_ground import SETTLE_SECONDS, Done, Scene, ended
from bench.verbs_objects import Object, autoscaler, deployment, service
from bench.witness_load import Traffic, Way, traffic
from tidegate import vtime
from tidegate.lab.faults import Fault
from tidegate.rehearse.loadspec import LoadSpec
from tidegate.rehearse.real import RealStage
from tidegate.rehearse.samples import NEW, Sample

PODS = 4
NEW_PER_SECOND, KEPT_PER_SECOND, PORT_PER_SECOND = 60.0, 30.0, 30.0
AFTER_SECONDS = 1.0
"""Requests go on this long after the command has ended: who answers then is who has the traffic."""
COMMAND_SECONDS = 240.0
STARTUP_SECONDS = 0.3
IMAGE, BAD = "tidegate/echo:{}", "nowhere/echo:{}"


def now() -> float:
    """As samples have it: seconds since 1970."""
    return vtime.now().timestamp()


@dataclass(slots=True)
class Told:
    """What one story came to. ``wrong``: commands that ended otherwise than they should, answers of the wrong one."""

    name: str
    sent: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def figure(self) -> Figure:
        notes = [f"of {self.sent:,}, {self.seconds:.0f} s"]
        if self.lost:
            notes.append(counted(self.lost[:20]))
        return at_most(f"{self.name}: lost", len(self.lost), "requests", 0, "; ".join(notes))


class Play(Scene):
    """One namespace of a lab with ``web`` in it, version v1, and the release that moves it."""

    def __init__(self, lab: BenchLab, stage: RealStage, namespace: str, strategy: str = "rolling") -> None:
        super().__init__(lab, namespace)
        self.stage = stage
        self.strategy = strategy
        self.wrong: list[str] = []
        self.traffic = Traffic()
        self.load_share = 1.0
        """Of the usual rate of requests: less where several are played at once."""
        self.labels: dict[str, str] = {}
        """Of the namespace."""

    # --- objects ---

    async def put(self, made: Object, seconds: float = 90.0, **spec: Any) -> None:
        """The namespace, the workload, its Service; until all pods serve."""
        await self.kubectl("create", "namespace", self.namespace)
        for key, value in self.labels.items():
            await self.kubectl("label", "namespace", self.namespace, f"{key}={value}")
        await self.apply(made, service("web", {"app": "web"}, **spec))
        await self.ready("app=web", made["spec"]["replicas"], seconds)

    async def remove(self) -> None:
        await self.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")

    # --- commands ---

    def words(self, version: str, image: str = IMAGE, progress: int = 120) -> tuple[str, ...]:
        """``release start`` by this strategy. Rainbow by a file: nobody waits a minute for its empty revisions."""
        named = image.format(version)
        if self.strategy == "rainbow":
            asked = {"service": "web", "cap": 6, "idleSeconds": 2.0, "retireSeconds": 2.0}
            return ("release", "start", "-f", self.file({"images": {"echo": named}}, asked, progress), "--yes")
        words = ("release", "start", "deploy/web", "--image", f"echo={named}", "--progress", f"{progress}s", "--yes")
        if self.strategy == "rolling":
            return words
        steps = ("--steps", "50:2s,100") if self.strategy == "canary" else ()
        return (*words, "--strategy", self.strategy, "--service", "web", *steps)

    def file(self, what: dict[str, Any], section: dict[str, Any], progress: int = 120) -> str:
        """A Release, written down for ``-f``."""
        spec = {"workload": "web", "strategy": self.strategy, **what, "progressSeconds": progress}
        document = {"apiVersion": "tidegate.dev/v1alpha1", "kind": "Release", "metadata": {"name": "web"}}
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=self.stage.scratch, delete=False) as file:
            json.dump({**document, "spec": {**spec, self.strategy: section}}, file)
        return file.name

    async def start_release(self, version: str) -> asyncio.subprocess.Process:
        return await self.start(*self.words(version))

    async def ask(self, version: str) -> Callable[[], Awaitable[Any]]:
        """Ask for it, however that is done here; what is given back waits for its end."""
        process = await self.start_release(version)
        return lambda: self.expect(process, f"start {version}")

    async def expect(self, process: asyncio.subprocess.Process, what: str, code: int = 0) -> Done:
        """The command to its end; another exit code is wrong, and what it said stands beside it."""
        done = await ended(process, seconds=COMMAND_SECONDS)
        if done.code != code:
            said = " / ".join(done.said.strip().splitlines()[-3:])[-300:]
            self.wrong.append(f"{what}: exit code {done.code} instead of {code}: {said}")
        return done

    async def release(self, verb: str, *words: str, code: int = 0) -> Done:
        return await self.expect(await self.start("release", verb, "deploy/web", "--yes", *words), verb, code)

    async def released(self, version: str, image: str = IMAGE, progress: int = 120, code: int = 0) -> Done:
        process = await self.start(*self.words(version, image, progress))
        return await self.expect(process, f"start {version}", code)

    async def document(self) -> dict[str, Any]:
        """``release status -o json``; before there is a release, what one has that nobody has written yet."""
        done = await self.tidegate("release", "status", "deploy/web", "-o", "json")
        return done.document if done.out else {"phase": "", "reason": done.err, "revisions": [], "questions": []}

    # --- what happens beside it ---

    async def bad_api(self, seconds: float, share: float) -> None:
        """Whoever asks the API server by HTTP is answered with errors, so often and so long."""
        await self.stage.fault(Fault("api-errors", "", seconds, share))

    async def autoscaled(self, most: int) -> None:
        """An autoscaler of the workload that wants ``most`` pods, also where two revisions share the load (it counts
        the pods of both: the selector is the Deployment's); it looks first 15 s from now."""
        await self.apply(autoscaler("web", 100 * 3 * most, most))

    async def scaled_at(self) -> tuple[float, int]:
        """When the autoscaler has changed something, as clients have it (0 for never), and how many pods it wants."""
        status = (await self.get("hpa", "web")).get("status") or {}
        at = status.get("lastScaleTime")
        return (datetime.fromisoformat(at).timestamp() if at else 0.0), int(status.get("desiredReplicas") or 0)

    # --- requests ---

    async def ways(self) -> tuple[Way, ...]:
        ip, port, node_port = await self.address("web")
        sources = self.stage.sources
        share, where = self.load_share, self.namespace
        new, kept = share * NEW_PER_SECOND, share * KEPT_PER_SECOND
        ways = [Way(f"{where}-cluster-ip", ip, port, sources, new, kept)]
        if node_port:
            ways.append(Way(f"{where}-node-port", sources[0].address, node_port, sources, share * PORT_PER_SECOND))
        return tuple(ways)

    @contextlib.asynccontextmanager
    async def requests(self) -> AsyncIterator[None]:
        """Clients at work for as long as this is open, and until all they asked is answered."""
        await asyncio.sleep(SETTLE_SECONDS)
        async with traffic(self.stage, await self.ways(), None) as self.traffic:
            await asyncio.sleep(0.5)
            yield

    async def answered_by(self, version: str) -> None:
        """A moment of requests; whatever else than this version answers what begins in it is wrong."""
        self.spans.append((now(), version))
        await asyncio.sleep(AFTER_SECONDS)

    def judged(self, name: str, seconds: float) -> Told:
        """Once the clients have ended."""
        samples = [one for some in self.traffic.samples.values() for one in some]
        for began, version in self.spans:
            others = [one for one in span(samples, began, began + AFTER_SECONDS) if one.version not in (version, "")]
            if others:
                found = counted([one.version for one in others])
                self.wrong.append(f"{found} answered after {version} was said to have all traffic")
        return Told(name, self.traffic.sent, self.traffic.lost, self.wrong, seconds)

    @property
    def spans(self) -> list[tuple[float, str]]:
        """Instants from which on one version alone is to answer new connections."""
        if not hasattr(self, "_spans"):
            self._spans: list[tuple[float, str]] = []
        return self._spans

    async def connections(self, count: int, per_second: float) -> Sequence[Sample]:
        """So many new connections through the ClusterIP, from every node, a request on each."""
        ip, port, _ = await self.address("web")
        output = Path(self.stage.scratch) / f"connections-{self.namespace}.jsonl"
        output.unlink(missing_ok=True)
        spec = LoadSpec(
            host=ip,
            port=port,
            sources=self.stage.sources,
            output=str(output),
            new_per_second=per_second,
            pool_per_second=0.0,
            requests_max=count,
            deadline_seconds=10.0,
        )
        load = await self.stage.start_load(spec)
        async with asyncio.timeout(count / per_second * 3 + 60):
            while len(load.samples()) < count:
                await asyncio.sleep(0.5)
        return load.samples()  # it ends by itself: all were sent


def span(samples: Sequence[Sample], since: float, until: float) -> Iterator[Sample]:
    """Requests on connections of their own that were begun within these instants."""
    return (one for one in samples if one.lane == NEW and since <= one.started_at < until)


def web(replicas: int = PODS, *, gated: bool = True, startup_seconds: float = STARTUP_SECONDS) -> Object:
    """The workload: without a gate its pods end at once when told to."""
    made = deployment("web", {"app": "web"}, replicas, version="v1", gated=gated)
    made["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "STARTUP_SECONDS", "value": str(startup_seconds)}
    ]
    return made
