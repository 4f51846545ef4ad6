"""The demo's story: the same rolling update, row after row, on whatever stage it is given.

One coroutine for the real lab and the virtual one. It asks the API like any user, sends load like any client,
and waits for what it can see: no fixed sleeps but the stretches of load before and after the update.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tidegate import vtime
from tidegate.kube.api import (
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICASETS,
    SERVICES,
    Api,
    Deletion,
    Selection,
)
from tidegate.kube.errors import ApiError
from tidegate.lab.faults import Fault
from tidegate.rehearse import manifests, timeline, verdict
from tidegate.rehearse.contradiction import contradictions
from tidegate.rehearse.footage import Film, Focus, Footage
from tidegate.rehearse.loadspec import LoadSpec
from tidegate.rehearse.samples import tally
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.spectator import Spectator
from tidegate.rehearse.stage import RunningLoad, Stage
from tidegate.rehearse.timeline import Update
from tidegate.rehearse.verdict import Rehearsal, Run

POLL_SECONDS = 0.05
"""How often a condition that no watch shows (a node's table, a process) is looked at."""

CLEANUP_SECONDS = 5.0
"""A row's leftovers may take this long to go before the next row starts anyway."""

Phase = Literal["starting", "steady", "updating", "settling", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a row is. Sent about four times a second while it plays, and at every change of phase."""

    row: Row
    phase: Phase
    elapsed_seconds: float
    """Since the row began."""
    requests: int = 0
    dropped: int = 0
    old_pods: int = 0
    """Old pods that are not gone."""
    new_ready: int = 0
    run: Run | None = None
    """The result, with phase "done"."""


Tell = Callable[[Progress], None]


def _silent(progress: Progress) -> None:
    del progress


async def rehearse(stage: Stage, settings: Settings, tell: Tell = _silent) -> Rehearsal:
    """Play every row in order.

    Raises what the API raises when the lab is not there. A row that does not come to its end is invalid.
    """
    runs = []
    for row in settings.rows:
        scene = _Scene(stage, settings, row, tell)
        runs.append(await scene.play())
    return Rehearsal(settings, tuple(source.node for source in stage.sources), tuple(runs))


class _Scene:
    """One row being played."""

    def __init__(self, stage: Stage, settings: Settings, row: Row, tell: Tell) -> None:
        self.stage = stage
        self.settings = settings
        self.row = row
        self.api: Api = stage.api
        self.tell = tell
        self.film = Film(Focus(row.namespace, f"{row.namespace}/{manifests.NAME}:"))
        self.spectator = Spectator(stage.api, row.namespace)
        self.nodes = tuple(source.node for source in stage.sources)
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.journal_taken = len(stage.journal())
        self.phase: Phase = "starting"
        self.load: RunningLoad | None = None
        self.samples_counted = self.dropped = 0
        self.started_at = self.patched_at = 0.0

    async def play(self) -> Run:
        """From creating the namespace to its result; leaves nothing behind."""
        try:
            async with vtime.Nursery() as nursery:
                nursery.start(self.spectator.run(), name=f"spectator {self.row.name}")
                nursery.start(self._report(), name=f"progress {self.row.name}")
                run = await self._act()
                await self._clear()
                nursery.cancel()
        except BaseException:
            if self.load is not None:
                self.load.abandon()
            raise
        self._enter("done", run)
        return run

    async def _act(self) -> Run:
        """The row itself. Out of time, it is judged by what was seen until then."""
        try:
            async with asyncio.timeout(self.settings.row_seconds_max):
                await self._open()
                await self._update()
                await self._settle()
        except TimeoutError:
            pass  # why_invalid says so: the rollout has no end
        ended_at = vtime.now().timestamp()
        samples = await self.load.stop() if self.load is not None else ()
        update = Update(
            started_at=self.started_at or ended_at,
            patched_at=self.patched_at or ended_at,
            ended_at=ended_at,
            replicas=self.settings.replicas,
            nodes=self.nodes,
        )
        ordered = tuple(sorted(samples, key=lambda sample: sample.number))
        footage = self._footage()
        drawn = timeline.draw(update, self.spectator.pods(), footage, ordered)
        invalid = verdict.why_invalid(self.settings, drawn, tally(ordered))
        against = contradictions(drawn.tracks, footage, is_exact=vtime.is_virtual())
        return Run(self.row, drawn, ordered, invalid, against)

    async def _open(self) -> None:
        """Version 1 up, ready and routed on every node; then load on it alone."""
        self._enter("starting")
        await self.api.create(NAMESPACES, manifests.namespace(self.row))
        service = await self.api.create(SERVICES, manifests.service(self.row), self.row.namespace)
        await self.api.create(DEPLOYMENTS, manifests.deployment(self.row, self.settings), self.row.namespace)
        await self._until(lambda: self._is_routed_only(manifests.OLD))
        if self.row.lag_seconds:
            await self.stage.fault(Fault("proxy-lag", self._faulty_node, self.row.lag_seconds))
        self.load = await self.stage.start_load(self._load_spec(service["spec"]["clusterIP"]))
        await self._until(lambda: self._request_count() > 0)
        self.started_at = self.load.samples()[0].scheduled_at
        self._enter("steady")
        await asyncio.sleep(self.settings.before_seconds)

    async def _update(self) -> None:
        """Patch the template; wait until the update is complete and the last old process is gone."""
        self._enter("updating")
        if self.row.freeze_seconds:
            await self.stage.fault(Fault("proxy-freeze", self._faulty_node, self.row.freeze_seconds))
        self.patched_at = vtime.now().timestamp()
        await self.api.patch(DEPLOYMENTS, manifests.NAME, manifests.update(), self.row.namespace)
        await self._until(self._is_updated)

    async def _settle(self) -> None:
        """Load on version 2 alone, until every node routes to nothing else and enough was sent."""
        self._enter("settling")
        await self._until(lambda: self._is_routed_only(manifests.NEW))
        await asyncio.sleep(self.settings.after_seconds)
        await self._until(lambda: self._request_count() >= self.settings.requests_min)

    async def _clear(self) -> None:
        """Take the row away at once: what it had to show is over, and its pods' grace is nobody's concern."""
        if self.row.is_faulty:
            await self.stage.fault(Fault("clear", self._faulty_node))
        namespace = Selection(namespace=self.row.namespace)
        try:
            async with asyncio.timeout(CLEANUP_SECONDS):
                options = Deletion(propagation="Background")
                await self.api.delete(DEPLOYMENTS, manifests.NAME, self.row.namespace, options)
                # The ReplicaSets first: one that still wants pods would replace every pod that goes.
                while (await self.api.list(REPLICASETS, namespace)).items:
                    await asyncio.sleep(POLL_SECONDS)
                for pod in (await self.api.list(PODS, namespace)).items:
                    await self._delete_now(pod["metadata"]["name"])
                await self.api.delete(SERVICES, manifests.NAME, self.row.namespace)
                await self.api.delete(NAMESPACES, self.row.namespace)
        except TimeoutError:
            pass
        except ApiError as error:
            if not error.is_not_found:
                raise

    async def _delete_now(self, pod: str) -> None:
        try:
            await self.api.delete(PODS, pod, self.row.namespace, Deletion(grace_seconds=0))
        except ApiError as error:
            if not error.is_not_found:
                raise

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something; the row's own time limit ends it otherwise."""
        while not condition():
            await asyncio.sleep(POLL_SECONDS)

    def _footage(self) -> Footage:
        """The row's footage up to now."""
        journal = self.stage.journal()
        new = journal[self.journal_taken :]
        self.journal_taken = len(journal)
        return self.film.take(new)

    def _is_routed_only(self, version: str) -> bool:
        """Does every node forward to all the pods of one version, and to no other?"""
        pods = [pod for pod in self.spectator.pods(version) if pod.ready_at and not pod.deleted_at]
        if len(pods) != self.settings.replicas:
            return False
        wanted = frozenset(timeline.endpoint(pod) for pod in pods)
        footage = self._footage()
        return all(node in footage.commits and footage.commits[node][-1].endpoints == wanted for node in self.nodes)

    def _is_updated(self) -> bool:
        """All new pods ready, no old one left in the API, no old process left."""
        new = [pod for pod in self.spectator.pods(manifests.NEW) if pod.ready_at and not pod.gone_at]
        old = self.spectator.pods(manifests.OLD)
        if len(new) < self.settings.replicas or any(pod.gone_at is None for pod in old):
            return False
        lives = self._footage().lives
        return all(pod.uid not in lives or lives[pod.uid].exited_at is not None for pod in old)

    @property
    def _faulty_node(self) -> str:
        return self.nodes[-1]

    def _request_count(self) -> int:
        self._count()
        return self.samples_counted

    def _load_spec(self, cluster_ip: str) -> LoadSpec:
        return LoadSpec(
            host=cluster_ip,
            port=manifests.PORT,
            sources=self.stage.sources,
            output=f"{self.stage.scratch}/load-{self.row.namespace}.jsonl",
            new_per_second=self.settings.new_per_second,
            pool_per_second=self.settings.pool_per_second,
            pool_size=self.settings.replicas,
        )

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            self._enter(self.phase)

    def _enter(self, phase: Phase, run: Run | None = None) -> None:
        """Tell where the row is."""
        self.phase = phase
        new = [pod for pod in self.spectator.pods(manifests.NEW) if pod.ready_at and not pod.deleted_at]
        self._count()
        self.tell(
            Progress(
                row=self.row,
                phase=phase,
                elapsed_seconds=self.loop.time() - self.began,
                requests=self.samples_counted,
                dropped=self.dropped,
                old_pods=sum(1 for pod in self.spectator.pods(manifests.OLD) if pod.gone_at is None),
                new_ready=len(new),
                run=run,
            )
        )

    def _count(self) -> None:
        """Take in the requests that ended since the last look."""
        if self.load is not None:
            samples = self.load.samples()
            self.dropped += sum(1 for sample in samples[self.samples_counted :] if sample.is_lost)
            self.samples_counted = len(samples)
