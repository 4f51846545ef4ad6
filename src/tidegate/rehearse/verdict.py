"""What a rehearsal came to: results per row, the stable JSON of them, the exit code. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate.model.names import NO_RECORD, Ending
from tidegate.rehearse.samples import Sample, Tally, tally
from tidegate.rehearse.settings import Row, Settings
from tidegate.rehearse.timeline import PodTrack, Timeline

UNGATED = "ungated"
"""The result of a pod that had no drain gate: nothing was promised, nothing is claimed."""

EXIT_DONE, EXIT_FAILED, EXIT_UNVERIFIED = 0, 1, 4


@dataclass(frozen=True, slots=True)
class Drain:
    """How one old pod's end is recorded."""

    pod: str
    result: str
    reason: str = ""
    stragglers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One row, played."""

    row: Row
    timeline: Timeline
    samples: tuple[Sample, ...]
    """By number."""
    invalid: str = ""
    """Why the run proves nothing either way; "" = it is valid."""
    contradictions: tuple[str, ...] = ()
    """What the lab's own journal says against a ``verified`` drain: a sentence each, whoever lost a request or not."""

    @property
    def tally(self) -> Tally:
        return tally(self.samples)

    @property
    def drains(self) -> tuple[Drain, ...]:
        return tuple(_drain(self.row, track) for track in self.timeline.old)


def _drain(row: Row, track: PodTrack) -> Drain:
    if not row.is_gated:
        return Drain(track.seen.name, UNGATED)
    found = track.seen.result or NO_RECORD
    return Drain(track.seen.name, found.result.value, found.reason, found.stragglers)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """All rows, in order."""

    settings: Settings
    nodes: tuple[str, ...]
    runs: tuple[Run, ...]


def why_invalid(settings: Settings, timeline: Timeline, counts: Tally) -> str:
    """Why a run proves nothing: it ended early, sent too little, or the load itself was late."""
    if timeline.rollout_seconds is None:
        return f"the rolling update did not end within {settings.row_seconds_max:g} s"
    if counts.requests < settings.requests_min:
        return f"{counts.requests} requests were sent, {settings.requests_min} are needed"
    if counts.late_fraction > settings.late_fraction_max:
        return f"{counts.late_fraction:.1%} of the requests started over 100 ms late: the machine is too busy"
    errors = dict(counts.dropped_by_cause).get("client-error", 0)
    return f"the load could not send {errors} requests (ports or descriptors ran out)" if errors else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exit code and a sentence per reason for it."""

    exit_code: int
    reasons: tuple[str, ...]


def judge(rehearsal: Rehearsal) -> Verdict:
    """0 only if every run is valid and Tidegate's rows lost nothing and every one of their drains is ``verified``, and
    nothing in the lab's journal contradicts that.

    4 if a drain is not verified, else 1 (design §8). The other rows may lose what they lose: that is the point.
    """
    unverified: list[str] = []
    failed: list[str] = []
    for run in rehearsal.runs:
        if run.invalid:
            failed.append(f"{run.row.name}: the run is invalid: {run.invalid}")
        if not run.row.is_gated:
            continue
        unverified += [_sentence(run.row, drain) for drain in run.drains if drain.result != Ending.VERIFIED.value]
        if len(run.drains) < rehearsal.settings.replicas:
            failed.append(f"{run.row.name}: {len(run.drains)} of {rehearsal.settings.replicas} pods were seen to drain")
        failed += [f"{run.row.name}: falsely verified: {found}" for found in run.contradictions]
        if run.tally.dropped:
            failed.append(f"{run.row.name}: {run.tally.dropped} requests were lost")
    reasons = (*unverified, *failed)
    if unverified:
        return Verdict(EXIT_UNVERIFIED, reasons)
    return Verdict(EXIT_FAILED if failed else EXIT_DONE, reasons)


def _sentence(row: Row, drain: Drain) -> str:
    because = f": {drain.reason}" if drain.reason else ""
    names = f" (waiting for {', '.join(drain.stragglers)})" if drain.stragglers else ""
    return f"{row.name}: pod/{drain.pod} is {drain.result}{because}{names}"


def as_json(rehearsal: Rehearsal) -> dict[str, Any]:
    """The result by its stable keys (docs/json.md, which marks those that appear only where there is something)."""
    return {
        "runs": [_run_json(run) for run in rehearsal.runs],
        "seed": rehearsal.settings.seed,
        "nodes": len(rehearsal.nodes),
        "replicas": rehearsal.settings.replicas,
        "rate_per_second": rehearsal.settings.rate_per_second,
    }


def _run_json(run: Run) -> dict[str, Any]:
    counts, timeline = run.tally, run.timeline
    rollout = timeline.rollout_seconds
    keys: dict[str, Any] = {
        "name": run.row.name,
        "requests": counts.requests,
        "dropped": counts.dropped,
        "dropped_by_cause": dict(counts.dropped_by_cause),
        "rollout_seconds": None if rollout is None else round(rollout, 3),
        "excess_pod_seconds": round(timeline.excess_pod_seconds, 3),
        "drain_seconds": {"p50": round(timeline.drain_p50, 3), "max": round(timeline.drain_max, 3)},
        "drains": [_drain_json(drain) for drain in run.drains],
    }
    if run.invalid:
        keys["invalid"] = run.invalid
    if run.contradictions:
        keys["contradictions"] = list(run.contradictions)
    return keys


def _drain_json(drain: Drain) -> dict[str, Any]:
    keys: dict[str, Any] = {"pod": drain.pod, "result": drain.result}
    if drain.reason:
        keys["reason"] = drain.reason
    if drain.stragglers:
        keys["stragglers"] = list(drain.stragglers)
    return keys


def digest(rehearsal: Rehearsal) -> str:
    """SHA-256 over everything that was seen, in order: two runs of one seed under virtual time have one digest."""
    sha = hashlib.sha256(msgspec.json.encode(as_json(rehearsal)))
    for run in rehearsal.runs:
        sha.update(run.row.name.encode())
        for sample in run.samples:
            sha.update(msgspec.json.encode(sample))
        sha.update(msgspec.json.encode([run.timeline.update, run.timeline.tracks, run.timeline.losses]))
    return sha.hexdigest()
