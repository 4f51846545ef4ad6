"""Rehearsals made up from a seed, in the shape the lab's have: for tables, reports and their goldens."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tidegate.model.names import DrainResult, Ending
from tidegate.rehearse import timeline, verdict
from tidegate.rehearse.footage import Focus, develop
from tidegate.rehearse.samples import Sample, tally
from tidegate.rehearse.settings import ROWS, Row, Settings
from tidegate.rehearse.spectator import PodSeen
from tidegate.rehearse.timeline import Update
from tidegate.rehearse.verdict import Rehearsal, Run

BASE = 1_767_225_600.0  # 2026-01-01T00:00:00Z
NODES = ("node-1", "node-2", "node-3")


@dataclass
class Pod:
    """One made-up pod; instants in seconds after the load began."""

    index: int
    version: str
    created: float
    deleted: float | None = None
    hold: float = 0.0

    @property
    def name(self) -> str:
        return f"echo-{'5d8f6c7b9d' if self.version == 'v1' else '7c4b9f8d6c'}-{'abcdwxyz'[self.index]}x{self.index}k"

    @property
    def ip(self) -> str:
        return f"127.17.{self.index % 3 + 1}.{self.index + 2}"


def pods_of(row: Row, rng: random.Random) -> list[Pod]:
    """Four old and four new pods, two waves, as 25 %/25 % makes them."""
    old = [Pod(index, "v1", -3.0) for index in range(4)]
    new = [Pod(index + 4, "v2", 1.0 + (index // 2) * 1.3 + 0.02) for index in range(4)]
    for index, pod in enumerate(old):
        pod.deleted = (1.02, 2.4, 2.4, 3.7)[index] + rng.uniform(0, 0.05)
        if row.hook == "sleep":
            pod.hold = row.sleep_seconds + rng.uniform(0, 0.02)
        elif row.hook == "gate":
            pod.hold = max(1.0, row.lag_seconds + 0.7) + rng.uniform(0.02, 0.2)
    return old + new


def run_of(row: Row, settings: Settings, rng: random.Random) -> Run:
    """One row: journal entries, sightings and samples, through the real timeline."""
    pods = pods_of(row, rng)
    entries: list[dict[str, Any]] = []
    seen: list[PodSeen] = []
    tables: list[tuple[float, str]] = []
    for pod in pods:
        common = {"pod": pod.name, "uid": f"uid-{pod.index}-{row.name}", "container": "echo"}
        start = BASE + pod.created + 0.05
        entries.append({"at": start, "event": "process-started", "namespace": row.namespace, **common})
        result = None
        if pod.deleted is not None:
            term = BASE + pod.deleted + pod.hold + 0.01
            entries.append({"at": term, "event": "signal-sent", "signal": "SIGTERM", **common})
            entries.append({"at": term + 0.004, "event": "process-exited", "code": -15, **common})
            if row.is_gated:
                result = DrainResult(Ending.VERIFIED, epoch=pod.index + 1, seconds=pod.hold)
        seen.append(
            PodSeen(
                pod.name, common["uid"], pod.version, BASE + pod.created, f"node-{pod.index % 3 + 1}", pod.ip,
                ready_at=start + 1.1,
                deleted_at=None if pod.deleted is None else BASE + pod.deleted,
                gone_at=None if pod.deleted is None else BASE + pod.deleted + pod.hold + 0.05,
                result=result,
            )
        )  # fmt: skip
    for node_index, node in enumerate(NODES):
        lag = row.lag_seconds if node_index == 2 else 0.0
        tables += [(pod.deleted + 0.1 + 0.3 * node_index + lag, node) for pod in pods if pod.deleted is not None]
        tables += [(pod.created + 1.3 + 0.1 * node_index + (lag if pod.version == "v2" else 0), node) for pod in pods]
    for at, node in sorted(tables):
        lag = row.lag_seconds if node == "node-3" else 0.0
        view = at - lag
        delay = 0.3 * NODES.index(node)
        endpoints = sorted(
            f"{pod.ip}:8080"
            for pod in pods
            if pod.created + 1.1 <= view and (pod.deleted is None or view < pod.deleted + 0.1 + delay)
        )
        services = {f"{row.namespace}/echo:http": endpoints}
        entries.append({"at": BASE + at, "event": "table-committed", "node": node, "services": services})
    entries.sort(key=lambda entry: entry["at"])
    footage = develop(entries, Focus(row.namespace, f"{row.namespace}/echo:"))
    samples = samples_of(pods, footage, settings, rng)
    last = max(pod.deleted + pod.hold for pod in pods if pod.deleted is not None)
    ended = max(12.6, last + 1.0, 4.5 + row.lag_seconds)
    update = Update(BASE, BASE + 1.0, BASE + ended, settings.replicas, NODES)
    drawn = timeline.draw(update, seen, footage, samples)
    return Run(row, drawn, samples, verdict.why_invalid(settings, drawn, tally(samples)))


def samples_of(pods: list[Pod], footage: Any, settings: Settings, rng: random.Random) -> tuple[Sample, ...]:
    """Requests that die where a table still names a pod that is gone."""
    by_endpoint = {f"{pod.ip}:8080": pod for pod in pods}
    samples = []
    for number in range(settings.requests_min + 40):
        at = BASE + number / settings.rate_per_second
        node = NODES[number % 3]
        table = sorted(footage.table(node, at)) or [f"{pods[0].ip}:8080"]
        pod = by_endpoint[rng.choice(table)]
        dead = pod.deleted is not None and at > BASE + pod.deleted + pod.hold + 0.01
        outcome = rng.choice(["reset", "reset", "refused"]) if dead else "ok"
        name = "" if dead else pod.name
        samples.append(
            Sample(number, "new" if number % 2 else "pool", node, at, at, at + 0.002, outcome, 0 if dead else 200, name)
        )
    return tuple(samples)


def make_rehearsal(rows: tuple[Row, ...] = ROWS, seed: int = 7, **given: Any) -> Rehearsal:
    """A whole rehearsal."""
    settings = Settings(rows=rows, seed=seed, **given)
    rng = random.Random(seed)
    return Rehearsal(settings, NODES, tuple(run_of(row, settings, rng) for row in rows))


@pytest.fixture(scope="session")
def rehearsal() -> Callable[..., Rehearsal]:
    """``rehearsal(rows, seed, **settings)`` makes one up."""
    return make_rehearsal
