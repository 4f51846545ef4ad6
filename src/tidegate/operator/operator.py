"""The operator: all Releases of a cluster, kept by whoever holds the Lease.

Every replica watches, so that the next leader begins with what it knows; only the leader's workers look and write.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from tidegate.client.release.ground import is_stale
from tidegate.client.release.run import HeldByOther
from tidegate.kube.api import DEPLOYMENTS, RELEASES
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Key
from tidegate.operator.events import Recorder
from tidegate.operator.leadership import Leadership, NotLeading
from tidegate.operator.logs import Log
from tidegate.operator.metrics import Metrics
from tidegate.operator.observers import ObserverStatus
from tidegate.operator.queue import WorkQueue
from tidegate.operator.reconcile import HELD_SECONDS, Reconciler
from tidegate.operator.records import Records
from tidegate.operator.retirements import Retirements
from tidegate.operator.territory import Territories
from tidegate.operator.watch import ReleaseSeen, TypedWatch, WorkloadSeen
from tidegate.release.record import Phase
from tidegate.vtime import Nursery

WORKERS = 32
"""A look waits for the API most of its time, a request after the other."""
WAKE_SECONDS = 0.1
"""Changes of one workload come in bursts: one look serves them."""
RESYNC_SECONDS = 10 * 3600.0
"""In which every Release at rest is looked at once, spread evenly: for a change that a bug of ours let pass."""
GAUGE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """``identity`` is the pod's name. ``workers``: Releases that are looked at at once."""

    identity: str
    seed: str = "0"
    workers: int = WORKERS
    resync_seconds: float = RESYNC_SECONDS


class Operator:
    """``api`` is an API client of this process; what is written goes through ``leadership``'s fence."""

    def __init__(
        self, api: KubeClient, leadership: Leadership, settings: Settings, log: Log, records: Records | None = None
    ) -> None:
        self.settings, self.metrics, self.leadership = settings, Metrics(), leadership
        self._log = log
        rng = random.Random(f"{settings.seed}/operator/{settings.identity}")
        self.client = KubeClient(leadership.fenced(api.exchange), api.server)
        self.releases = TypedWatch(api, RELEASES, ReleaseSeen, rng)
        self._workloads = TypedWatch(api, DEPLOYMENTS, WorkloadSeen, rng)
        self._by_workload: dict[Key, dict[Key, None]] = {}
        """(namespace, workload) -> Releases of it."""
        self.queue: WorkQueue[Key] = WorkQueue(rng)
        records = records or Records(self.client, lambda: False)
        self._retirements = Retirements(self.client, records, lambda: leadership.is_leading)
        self.territories = Territories(api, self._wake, self._retirements.saw_gone)
        self.recorder = Recorder(self.client, settings.identity, lambda: leadership.is_leading)
        self.reconciler = Reconciler(
            self.client, settings.identity, self.territories, self.recorder, self._family,
            lambda: leadership.is_leading, rng, records,
        )  # fmt: skip
        self._observers = ObserverStatus(api, self.client, lambda: leadership.is_leading)
        self._term: asyncio.Task[None] | None = None
        self._last_term: asyncio.Task[None] | None = None
        self._looking: dict[Key, float] = {}
        self.releases.told = self._release_changed
        self._workloads.told = self._workload_changed
        leadership.began, leadership.lost = self._began, self._lost

    async def run(self) -> None:
        """For ever; cancelled, it gives back what it holds."""
        try:
            async with Nursery() as nursery:
                nursery.start(self.releases.run(), name="releases")
                nursery.start(self._workloads.run(), name="deployments")
                nursery.start(self.leadership.run(), name="lease")
                nursery.start(self.recorder.run(), name="events")
                nursery.start(self._retirements.run(), name="retirements")
                nursery.start(self._observers.run(), name="observers")
                nursery.start(self._resync(), name="resync")
                nursery.start(self._gauge(), name="gauges")
        finally:
            await self._end_term()
            self.territories.close()

    async def settled(self) -> None:
        """Until what this leader saw is written down: the next one did not see it. A few seconds at most."""
        if self.leadership.is_leading:
            await self._retirements.settled()

    @property
    def is_ready(self) -> bool:
        """Whether it knows the Releases, or that the cluster has no such kind: the webhook is served all the same."""
        error = self.releases.error
        return self.releases.is_synced or (isinstance(error, ApiError) and error.is_not_found)

    def stalled(self, seconds: float) -> list[str]:
        """Releases (namespace/name) that a worker has been at for longer than that."""
        now = asyncio.get_running_loop().time()
        return [f"{key[0]}/{key[1]}" for key, began in self._looking.items() if now - began > seconds]

    # --- leading ---

    def _began(self) -> None:
        self._log("leading", identity=self.settings.identity)
        self._term = asyncio.get_running_loop().create_task(self._lead(self._last_term), name="term")

    def _lost(self) -> None:
        self._log("not leading any more", "warning", identity=self.settings.identity)
        term, self._term = self._term, None
        if term is not None:
            term.cancel()
            self._last_term = term

    async def _lead(self, before: asyncio.Task[None] | None) -> None:
        """One term: look at all that does not rest, then at what changes. ``before``: the term before has to be over,
        with all that it had begun."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            await self.releases.synced()
            await self._workloads.synced()
            for key, seen in sorted(self.releases.known.items()):
                if _needs_look(seen):
                    self.queue.add(key)
            async with Nursery() as nursery:
                for number in range(self.settings.workers):
                    nursery.start(self._work(), name=f"worker {number}")
        finally:
            self.queue.clear()
            await self.reconciler.drop_all()

    async def _end_term(self) -> None:
        term, self._term = self._term, None
        if term is not None:
            term.cancel()
            await asyncio.gather(term, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._look(key)
            finally:
                self.queue.done(key)

    async def _look(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        began, word = loop.time(), "failed"
        self._looking[key] = began
        try:
            outcome = await self.reconciler.look(key)
            word = outcome.word
            self.queue.forget(key)
            if outcome.seconds is not None:
                self.queue.add_after(key, self.queue.jittered(outcome.seconds))
        except HeldByOther as error:
            word = "held"
            if self.leadership.is_leading:
                self._say(key, "held by another engine", error)
            self.queue.add_after(key, self.queue.jittered(HELD_SECONDS))
        except NotLeading:  # for a moment, where the Lease was renewed late; for good, where this term ends
            word = "not-leading"
            self.queue.add_after(key, self.queue.jittered(HELD_SECONDS))
        except KubeError as error:
            is_behind = isinstance(error, ApiError) and not error.is_not_found and is_stale(error)
            word = "stale" if is_behind else "failed"
            seconds = self.queue.add_failed(key)
            if not is_behind:
                self._say(key, f"again in {seconds:.1f} s", error)
                self.reconciler.tell(key, error)
        except Exception as error:  # a mistake of ours costs one Release its pace, not all of them the operator
            seconds = self.queue.add_failed(key)
            self._say(key, f"a bug: again in {seconds:.1f} s", error)
        finally:
            self._looking.pop(key, None)
            self.metrics.reconcile_seconds.labels(word).observe(loop.time() - began)

    def _say(self, key: Key, message: str, error: Exception) -> None:
        self._log(message, "warning", namespace=key[0], release=key[1], error=f"{type(error).__name__}: {error}")

    # --- what changes ---

    def _release_changed(self, key: Key, old: ReleaseSeen | None, new: ReleaseSeen | None) -> None:
        if old is not None and (new is None or new.spec.workload != old.spec.workload):
            place = (key[0], old.spec.workload)
            self._by_workload.get(place, {}).pop(key, None)
            for other in self._by_workload.get(place, {}):  # which may have waited for this one to go
                self._add(other)
        if new is not None:
            self._by_workload.setdefault((key[0], new.spec.workload), {})[key] = None
        if new is None or (_needs_look(new) if old is None else _is_asked_anew(old, new)):
            self._add(key)

    def _family(self, namespace: str, workload: str) -> list[ReleaseSeen]:
        """The Releases of one workload; one, where nobody made a mistake."""
        return [self.releases.known[key] for key in self._by_workload.get((namespace, workload), ())]

    def _workload_changed(self, key: Key, old: WorkloadSeen | None, new: WorkloadSeen | None) -> None:
        """A Deployment came, went, or is asked for something else."""
        is_asked_anew = old is None or new is None or old.metadata.generation != new.metadata.generation
        if is_asked_anew and self._workloads.is_synced:
            for release in self._by_workload.get(key, ()):
                self._add(release)

    def _wake(self, namespace: str, workload: str) -> None:
        """An object of a workload under way changed."""
        if workload:
            for key in self._by_workload.get((namespace, workload), ()):
                if self.reconciler.is_under_way(key):
                    self.queue.add_after(key, WAKE_SECONDS)
            return
        for key in self.reconciler.under_way(namespace):
            self.queue.add_after(key, WAKE_SECONDS)

    def _add(self, key: Key) -> None:
        if self._term is not None:
            self.queue.add(key)

    async def _resync(self) -> None:
        while True:
            keys = sorted(self.releases.known)
            share = self.settings.resync_seconds / max(len(keys), 1)
            for key in keys:
                await asyncio.sleep(self.queue.jittered(share))
                self._add(key)
            if not keys:
                await asyncio.sleep(self.settings.resync_seconds)

    async def _gauge(self) -> None:
        told = ""
        while True:
            self.gauge()
            if (trouble := self.trouble) != told:
                self._log(trouble or "Releases are read again", "warning" if trouble else "info")
                told = trouble
            await asyncio.sleep(GAUGE_SECONDS)

    @property
    def trouble(self) -> str:
        """Why nothing is learnt of Releases right now; "" where it is."""
        for watch in (self.releases, self._workloads):
            error = watch.error
            if isinstance(error, ApiError) and error.is_not_found:
                return f"this cluster has no kind {watch.resource.kind}: `tidegate install` brings it (part crds)"
            if error is not None:
                return f"{watch.resource.plural} cannot be read: {error}"
        return ""

    def gauge(self) -> None:
        """Bring the gauges up to date."""
        metrics = self.metrics
        metrics.is_leading.set(1 if self.leadership.is_leading else 0)
        metrics.queue_depth.set(len(self.queue))
        metrics.stragglers.set(self.reconciler.stragglers)
        metrics.events_dropped.set(self.recorder.dropped)

    def count(self) -> None:
        """Releases by phase: counted when somebody asks, not all the time."""
        counts = {phase.value: 0 for phase in Phase}
        for one in self.releases.known.values():
            counts[one.status.phase] = counts.get(one.status.phase, 0) + 1
        for phase, number in counts.items():
            self.metrics.releases.labels(phase).set(number)


def _needs_look(seen: ReleaseSeen) -> bool:
    """Whether a Release that is seen for the first time is not at rest. One that an engine did not give back was in the
    middle of something, whatever its phase says."""
    is_final = seen.status.phase in (Phase.DONE.value, Phase.ABORTED.value)
    is_about_this = seen.status.generation == seen.metadata.generation
    return not is_final or not is_about_this or bool(seen.status.holder or seen.metadata.deletion_timestamp)


def _is_asked_anew(old: ReleaseSeen, new: ReleaseSeen) -> bool:
    before, after = old.metadata, new.metadata
    return (before.generation, before.uid, before.deletion_timestamp) != (
        after.generation, after.uid, after.deletion_timestamp,
    )  # fmt: skip
