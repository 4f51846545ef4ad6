"""One rolling update as it happened, pod by pod, and its figures. Pure: footage, spectator and samples in.

A pod's states: *starting* until Ready; *ready* until its DELETE; *cut* until no node forwards to it any more;
*draining* until its process has exited; then *gone*. A pod that exits while some node still forwards to it has
*stale routes*: the gap in which requests die, drawn over its gone state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate.model.epoch import Epoch
from tidegate.rehearse import manifests
from tidegate.rehearse.footage import Footage, Interval, Life, live_area, merged
from tidegate.rehearse.samples import Sample, quantile
from tidegate.rehearse.spectator import PodSeen

State = Literal["starting", "ready", "cut", "draining", "gone"]


@dataclass(frozen=True, slots=True)
class Span:
    """A state of a pod and how long it lasted. Wall seconds."""

    state: State
    start_at: float
    end_at: float


@dataclass(frozen=True, slots=True)
class Unrouted:
    """The instant at which a node stopped forwarding to a pod for good; ``math.inf`` = not within the run."""

    node: str
    at: float


@dataclass(frozen=True, slots=True)
class Floor:
    """The earliest instant at which this drain could have been proven finished (design §9), and what came after."""

    at: float
    overhead_seconds: float
    """From the floor to the SIGTERM."""


@dataclass(frozen=True, slots=True)
class PodTrack:
    """One pod's row on the timeline."""

    seen: PodSeen
    is_old: bool
    spans: tuple[Span, ...]
    alive: tuple[Interval, ...] = ()
    """Process started until exited; ``math.inf`` while it lasts."""
    unrouted: tuple[Unrouted, ...] = ()
    sigterm_at: float | None = None
    exited_at: float | None = None
    floor: Floor | None = None
    lost: int = 0
    """Requests lost at this pod."""

    @property
    def stale(self) -> Interval | None:
        """From its exit until the last node forgot it, when that came later."""
        last = max((gone.at for gone in self.unrouted), default=-math.inf)
        if self.exited_at is None or last <= self.exited_at:
            return None
        return (self.exited_at, last)

    @property
    def drain_seconds(self) -> float | None:
        """DELETE to SIGTERM; None when either did not happen."""
        if self.seen.deleted_at is None or self.sigterm_at is None:
            return None
        return max(0.0, self.sigterm_at - self.seen.deleted_at)


@dataclass(frozen=True, slots=True)
class Loss:
    """One lost request: when it was lost, how, and at which pod ("" = not known)."""

    at: float
    cause: str
    lane: str
    source: str
    pod: str
    number: int


@dataclass(frozen=True, slots=True)
class Update:
    """The frame of the timeline. Instants are wall seconds."""

    started_at: float
    """The load began."""
    patched_at: float
    """The template was patched."""
    ended_at: float
    """The load was told to stop."""
    replicas: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One rolling update."""

    update: Update
    tracks: tuple[PodTrack, ...]
    losses: tuple[Loss, ...]
    rollout_seconds: float | None
    """From the patch until the last old process was gone and every new pod ready. None: not within the run."""
    excess_pod_seconds: float
    drain_seconds: tuple[float, ...]
    """DELETE to SIGTERM of every old pod that had both, ascending."""

    @property
    def old(self) -> tuple[PodTrack, ...]:
        return tuple(track for track in self.tracks if track.is_old)

    @property
    def drain_p50(self) -> float:
        return quantile(self.drain_seconds, 0.5)

    @property
    def overheads(self) -> tuple[float, ...]:
        """Seconds each drain took beyond its floor, ascending; drains without a known floor are left out."""
        return tuple(sorted(track.floor.overhead_seconds for track in self.old if track.floor is not None))

    @property
    def drain_max(self) -> float:
        return max(self.drain_seconds, default=0.0)


def draw(update: Update, pods: Sequence[PodSeen], footage: Footage, samples: Sequence[Sample]) -> Timeline:
    """The timeline of one row. Pods of version ``manifests.OLD`` are the old ones."""
    losses = tuple(_losses(pods, footage, samples))
    tracks = tuple(_track(pod, footage, update, losses) for pod in pods)
    until = _old_gone_at(tracks)
    lives = [interval for track in tracks for interval in track.alive]
    window_end = until if until is not None else update.ended_at
    return Timeline(
        update=update,
        tracks=tracks,
        losses=losses,
        rollout_seconds=_rollout(update, tracks, until),
        excess_pod_seconds=live_area(lives, update.replicas, update.patched_at, window_end),
        drain_seconds=tuple(
            sorted(track.drain_seconds for track in tracks if track.is_old and track.drain_seconds is not None)
        ),
    )


def _old_gone_at(tracks: Sequence[PodTrack]) -> float | None:
    """When the last old process was gone; None while one is left."""
    exits = [track.exited_at for track in tracks if track.is_old]
    if not exits or any(at is None for at in exits):
        return None
    return max(at for at in exits if at is not None)


def _rollout(update: Update, tracks: Sequence[PodTrack], old_gone_at: float | None) -> float | None:
    ready = sorted(t.seen.ready_at for t in tracks if not t.is_old and t.seen.ready_at is not None)
    if old_gone_at is None or len(ready) < update.replicas:
        return None
    return max(old_gone_at, ready[update.replicas - 1]) - update.patched_at


def endpoint(pod: PodSeen) -> str:
    """The pod's endpoint as tables write it; "" before it has an address."""
    return f"{pod.ip}:{manifests.TARGET_PORT}" if pod.ip else ""


def _track(pod: PodSeen, footage: Footage, update: Update, losses: Sequence[Loss]) -> PodTrack:
    life = footage.lives.get(pod.uid, Life())
    unrouted = _unrouted(pod, footage, update) if pod.deleted_at is not None else ()
    return PodTrack(
        seen=pod,
        is_old=pod.version == manifests.OLD,
        spans=_spans(pod, life, unrouted, update.ended_at),
        alive=tuple(merged(life.alive)),
        unrouted=unrouted,
        sigterm_at=life.sigterm_at,
        exited_at=life.exited_at,
        floor=_floor(pod, life, footage, unrouted),
        lost=sum(1 for loss in losses if loss.pod == pod.name),
    )


def _unrouted(pod: PodSeen, footage: Footage, update: Update) -> tuple[Unrouted, ...]:
    """Per node that ever forwarded to the pod: when that ended."""
    gone = []
    for node in update.nodes:
        routed = footage.routed(node, endpoint(pod))
        if routed:
            gone.append(Unrouted(node, routed[-1][1]))
    return tuple(gone)


def _spans(pod: PodSeen, life: Life, unrouted: Sequence[Unrouted], ended_at: float) -> tuple[Span, ...]:
    """The states in order; each begins where the one before ends, and empty ones are left out."""
    never = math.inf
    exited = life.exited_at if life.exited_at is not None else (pod.gone_at or never)
    deleted = pod.deleted_at if pod.deleted_at is not None else exited
    ready = pod.ready_at if pod.ready_at is not None else deleted
    # The API may show a DELETE after the process is gone already: states never run backwards.
    last_route = max((gone.at for gone in unrouted), default=deleted)
    first = life.started_at if life.started_at is not None else pod.created_at
    edges: tuple[tuple[State, float], ...] = (
        ("starting", min(ready, deleted, exited)),
        ("ready", min(deleted, exited)),
        ("cut", min(last_route, exited)),
        ("draining", exited),
        ("gone", never),
    )
    spans = []
    at = min(pod.created_at, first)
    for state, until in edges:
        until = min(max(until, at), max(ended_at, at))
        if until > at:
            spans.append(Span(state, at, until))
        at = until
    return tuple(spans)


def _floor(pod: PodSeen, life: Life, footage: Footage, unrouted: Sequence[Unrouted]) -> Floor | None:
    """The later of (slowest node's table holds the epoch and no route) and (last connection closed).

    None without a result that names an epoch, or when a node never showed it.
    """
    if pod.result is None or pod.result.epoch is None or pod.deleted_at is None or life.sigterm_at is None:
        return None
    wanted = pod.result.epoch
    instants = [gone.at for gone in unrouted]
    for commits in footage.commits.values():
        fenced = (c.at for c in commits if c.epoch is not None and c.epoch.reaches(Epoch(c.epoch.install, wanted)))
        instants.append(next(fenced, math.inf))
    closed = footage.closed.get(endpoint(pod), ())
    instants += [at for at in closed if pod.deleted_at <= at <= life.sigterm_at][-1:]
    floor_at = max(instants, default=math.inf)
    if floor_at == math.inf:
        return None
    return Floor(floor_at, life.sigterm_at - floor_at)


def _losses(pods: Sequence[PodSeen], footage: Footage, samples: Sequence[Sample]) -> list[Loss]:
    by_endpoint = {endpoint(pod): pod for pod in pods if pod.ip}
    losses = []
    for sample in samples:
        if sample.is_lost:
            carried = by_endpoint.get(footage.endpoint_of(sample.source, sample.port, sample.ended_at))
            pod = sample.pod or (carried.name if carried else "") or _suspect(sample, by_endpoint, footage)
            at = sample.ended_at if sample.outcome == "reset" else sample.started_at
            losses.append(Loss(at, sample.outcome, sample.lane, sample.source, pod, sample.number))
    losses.sort(key=lambda loss: (loss.at, loss.number))
    return losses


def _suspect(sample: Sample, by_endpoint: dict[str, PodSeen], footage: Footage) -> str:
    """The pod a request was sent to that no kernel's journal knows, as far as the source node's table tells.

    Of the endpoints in that table at that instant, those whose process had exited before the request ended; of
    several, the one that exited last (the others had stopped answering before and would be as likely: it is a
    guess then, and "" when nothing had exited).
    """
    exits = []
    for name in sorted(footage.table(sample.source, sample.started_at)):
        pod = by_endpoint.get(name)
        life = footage.lives.get(pod.uid) if pod is not None else None
        if pod is None or life is None or life.exited_at is None or life.exited_at > sample.ended_at + 0.05:
            continue
        exits.append((life.exited_at, pod.name))
    return max(exits)[1] if exits else ""
