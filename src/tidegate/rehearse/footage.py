"""What the lab's own journal shows of one row: processes, tables, connections. Pure: entries in, facts out.

The journal is the camera above the stage (it sees processes and kernels), the spectator in front of it
sees the API. The timeline needs both.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch
from tidegate.model.names import FENCE_PREFIX, SYSTEM_NAMESPACE, fence_install
from tidegate.rehearse.stage import Entry

Interval = tuple[float, float]
"""From, until; ``math.inf`` while it lasts. Wall seconds."""

_FENCES = f"{SYSTEM_NAMESPACE}/{FENCE_PREFIX}"

_NEAR_SECONDS = 1.0
"""A client port is not used twice within this time: a node's address has 28,000 of them and 270 are used a second."""

SIGTERM_NAMES = frozenset({"SIGTERM", "TERM", "15"})


@dataclass(slots=True)
class Life:
    """The processes of one pod (by uid)."""

    alive: list[Interval] = field(default_factory=list)
    """Process started until exited, one per container start, in order of starts."""
    sigterm_at: float | None = None
    """The first SIGTERM to any of its containers."""

    @property
    def started_at(self) -> float | None:
        return self.alive[0][0] if self.alive else None

    @property
    def exited_at(self) -> float | None:
        """When its last process was gone; None while one lives or none ever did."""
        end = max((until for _, until in self.alive), default=math.inf)
        return None if end == math.inf else end


@dataclass(frozen=True, slots=True)
class Commit:
    """One table committed into a node's kernel: the row's endpoints in it, and the fence epoch, if any."""

    at: float
    endpoints: frozenset[str]
    epoch: Epoch | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """One connection that a node's kernel carried to an endpoint. Wall seconds."""

    node: str
    source: str
    opened_at: float
    """When the endpoint was chosen for it."""
    pod_closed_at: float
    """When the endpoint closed its end; ``opened_at`` where it never took the connection."""


@dataclass(slots=True)
class Footage:
    """The facts of one row."""

    lives: dict[str, Life] = field(default_factory=dict)
    """By pod uid, in order of first start."""
    commits: dict[str, list[Commit]] = field(default_factory=dict)
    """By node, in order. Nodes that never committed a table are missing."""
    closed: dict[str, list[float]] = field(default_factory=dict)
    """By endpoint "ip:port": when connections to it closed, in order."""
    carried: dict[tuple[str, int], list[tuple[float, str]]] = field(default_factory=dict)
    """By node and client port: when connections ended there, and which endpoint each had been given."""
    connections: dict[str, list[Carried]] = field(default_factory=dict)
    """By endpoint: every connection that has ended, in the order they did."""

    def table(self, node: str, at: float) -> frozenset[str]:
        """The endpoints that a node's kernel forwarded the row's Service to at an instant."""
        commits = self.commits.get(node, ())
        index = bisect_right(commits, at, key=lambda commit: commit.at)
        return commits[index - 1].endpoints if index else frozenset()

    def endpoint_of(self, node: str, port: int, at: float) -> str:
        """The endpoint that a node's kernel gave a client's connection which ended about then; "" = not known."""
        ended = self.carried.get((node, port), ())
        near = [(abs(when - at), endpoint) for when, endpoint in ended if abs(when - at) < _NEAR_SECONDS]
        return min(near)[1] if near else ""

    def routed(self, node: str, endpoint: str) -> tuple[Interval, ...]:
        """When a node's kernel forwarded to an endpoint."""
        intervals: list[Interval] = []
        since: float | None = None
        for commit in self.commits.get(node, ()):
            if endpoint in commit.endpoints:
                since = commit.at if since is None else since
            elif since is not None:
                intervals.append((since, commit.at))
                since = None
        if since is not None:
            intervals.append((since, math.inf))
        return tuple(intervals)


@dataclass(frozen=True, slots=True)
class Focus:
    """Which part of the journal belongs to a row."""

    namespace: str
    service: str
    """Key prefix in a table: "namespace/name:"."""


class Film:
    """Develops the footage of one row, a stretch of the journal at a time."""

    def __init__(self, focus: Focus) -> None:
        self.footage = Footage()
        self._focus = focus
        self._running: dict[tuple[str, str], float] = {}
        """Start of the process of each (uid, container) that lives."""

    def take(self, entries: Iterable[Entry]) -> Footage:
        """The facts up to and with these entries; entries of other namespaces are passed over."""
        for entry in entries:
            at = float(entry["at"])
            match entry["event"]:
                case "connection-closed" | "connection-failed":
                    self._connection(entry, at)
                case "table-committed":
                    _commit(self.footage, entry, at, self._focus)
                case "process-started" if entry.get("namespace") == self._focus.namespace:
                    self.footage.lives.setdefault(entry["uid"], Life()).alive.append((at, math.inf))
                    self._running[(entry["uid"], entry["container"])] = at
                case "process-exited" | "signal-sent" if entry["uid"] in self.footage.lives:
                    self._step(self.footage.lives[entry["uid"]], entry, at)
        return self.footage

    def _connection(self, entry: Entry, at: float) -> None:
        endpoint = entry["endpoint"]
        if entry["event"] == "connection-closed":
            self.footage.closed.setdefault(endpoint, []).append(at)
        source, opened_at = str(entry.get("source", "")), float(entry.get("opened") or at)
        closed_at = float(entry.get("pod_closed") or (opened_at if entry["event"] == "connection-failed" else at))
        carried = Carried(entry["node"], source, opened_at, closed_at)
        self.footage.connections.setdefault(endpoint, []).append(carried)
        port = int(source.rpartition(":")[2] or 0)
        self.footage.carried.setdefault((entry["node"], port), []).append((at, endpoint))

    def _step(self, life: Life, entry: Entry, at: float) -> None:
        """One thing that happened to a pod whose process is known."""
        match entry["event"]:
            case "process-exited":
                since = self._running.pop((entry["uid"], entry["container"]), None)
                if since is not None:
                    life.alive[life.alive.index((since, math.inf))] = (since, at)
            case "signal-sent":
                if str(entry["signal"]) in SIGTERM_NAMES and life.sigterm_at is None:
                    life.sigterm_at = at


def develop(entries: Iterable[Entry], focus: Focus) -> Footage:
    """The facts of one row from a whole journal."""
    return Film(focus).take(entries)


def _commit(footage: Footage, entry: Entry, at: float, focus: Focus) -> None:
    """Keep a commit only where it changed something of the row: most commits are about others."""
    endpoints: frozenset[str] = frozenset()
    epoch: Epoch | None = None
    for key, addresses in entry["services"].items():
        if key.startswith(focus.service):
            endpoints = endpoints.union(addresses)
        elif key.startswith(_FENCES) and addresses:
            epoch = _epoch(key, addresses[0])
    commits = footage.commits.setdefault(entry["node"], [])
    if not commits or (commits[-1].endpoints, commits[-1].epoch) != (endpoints, epoch):
        commits.append(Commit(at, endpoints, epoch))


def _epoch(key: str, address: str) -> Epoch | None:
    """The epoch a table shows under a fence's key "namespace/name:port"; None when it is no epoch."""
    install = fence_install(key.partition("/")[2].rpartition(":")[0])
    try:
        return None if install is None else Epoch.of_endpoint(install, Endpoint.parse(address))
    except ValueError:
        return None


def live_area(lives: Sequence[Interval], replicas: int, since: float, until: float) -> float:
    """Excess pod-seconds: the integral of max(0, live - replicas) from ``since`` until ``until``."""
    steps: list[tuple[float, int]] = []
    for start, end in lives:
        start, end = max(start, since), min(end, until)
        if start < end:
            steps += [(start, 1), (end, -1)]
    steps.sort()
    area, live, before = 0.0, 0, since
    for at, change in steps:
        area += max(0, live - replicas) * (at - before)
        live, before = live + change, at
    return area


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Overlapping intervals as one: a pod of two containers is one live pod."""
    result: list[Interval] = []
    for start, end in sorted(intervals):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
