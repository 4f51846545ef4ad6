"""A release as JSON, for ``-o json`` and for the live view (docs/json.md, "release")."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from tidegate.client.release.book import Entry
from tidegate.client.release.command import ReleasePlan
from tidegate.client.release.keeping import Keeping
from tidegate.client.release.look import Sight
from tidegate.model.decode import Malformed
from tidegate.model.names import decode_drain
from tidegate.release.analysis import place_of
from tidegate.release.record import Phase, Status
from tidegate.release.scene import Edition


def instant(at: float) -> str:
    """RFC 3339, "" for never."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


def summary(entry: Entry) -> dict[str, Any]:
    """One line of ``release list``."""
    status = entry.status
    return {
        "namespace": entry.namespace,
        "workload": entry.spec.workload,
        "strategy": entry.spec.strategy,
        "phase": status.phase,
        "revision": status.revision,
        "stable": status.stable,
        "reason": status.reason,
        "since": instant(status.began),
        "by": status.by,
    }


def document(sight: Sight, keeping: Keeping = MappingProxyType({})) -> dict[str, Any]:
    """All of a release as it stands; ``keeping`` is what keeps its drains, where somebody was asked."""
    entry, scene = sight.entry, sight.scene
    status = entry.status
    return {
        **summary(entry),
        "cause": status.cause,
        "atWork": bool(status.holder),
        "takenUp": status.generation == entry.generation,
        "replicas": scene.replicas,
        "floor": scene.floor,
        "revisions": [
            _edition(one, sight) for one in scene.editions if one.members or one.desired or _is_named(one, sight)
        ],
        "drains": _drains(sight, keeping),
        "questions": [
            {"question": key, "verdict": one.verdict, "epoch": one.epoch, "stragglers": list(one.stragglers)}
            | {"assumed": list(one.assumed), "seconds": round(one.seconds, 3)}
            for key, one in sorted(status.asked.items())
        ],
        "analyses": _analyses(status),
        "problems": list(scene.problems),
        "unverified": list(status.unverified),
        "notes": [{"at": instant(one.at), "text": one.text} for one in status.notes],
    }


def _analyses(status: Status) -> list[dict[str, Any]]:
    """In the order in which they were asked last."""
    found = []
    for key, one in sorted(status.measured.items(), key=lambda item: item[1].at):
        name, moment = place_of(key)
        counts = {"passed": one.passed, "failed": one.failed, "problems": one.problems}
        found.append({"analysis": name, "moment": moment, **counts, "said": one.problem or one.last})
    return found


def history(entry: Entry) -> list[dict[str, Any]]:
    """What was released before, newest last."""
    return [
        {"revision": one.revision, "images": one.images, "at": instant(one.at), "outcome": one.outcome}
        for one in entry.status.history
    ]


def plan_document(plan: ReleasePlan) -> dict[str, Any]:
    """What ``--dry-run -o json`` prints."""
    seen = plan.foreseen
    return {
        "namespace": plan.namespace,
        "workload": plan.spec.workload,
        "strategy": plan.spec.strategy,
        "steps": [
            {"at": round(one.at, 1), "act": one.step.act.name.lower(), "subject": one.step.subject}
            | {"text": one.text, "pods": one.pods}
            for one in (seen.moments if seen is not None else ())
            if one.step is not None
        ],
        "seconds": round(seen.seconds, 1) if seen is not None else None,
        "mostPods": seen.most_pods if seen is not None else None,
        "refusals": list(plan.refusals),
        "notes": list(plan.notes),
    }


def _is_named(edition: Edition, sight: Sight) -> bool:
    return edition.revision in (sight.entry.status.revision, sight.entry.status.stable)


def _edition(edition: Edition, sight: Sight) -> dict[str, Any]:
    weight = sight.scene.weights.get(edition.revision)
    # Of those that serve nobody asks.
    asked = edition.members if _role(edition, sight) == "old" else ()
    unknown = [one.name for one in asked if one.connections is None]
    return {
        "revision": edition.revision,
        "deployment": edition.deployment,
        "images": dict(edition.images),
        "role": _role(edition, sight),
        "desired": edition.desired,
        "ready": edition.ready,
        "listed": edition.listed,
        "leaving": len(edition.leaving),
        "ungated": len(edition.ungated),
        "connections": sum(one.connections or 0 for one in edition.members),
        "unknown": unknown,
        "weight": weight,
        "problem": edition.problem,
    }


def _role(edition: Edition, sight: Sight) -> str:
    status = sight.entry.status
    if status.phase == Phase.ABORTED.value:
        return "current" if edition.listed or (edition.is_base and not _is_anybody_listed(sight)) else "old"
    if edition.revision == status.revision:
        return "current" if status.is_final else "incoming"
    return "stable" if edition.revision == status.stable and not status.is_final else "old"


def _is_anybody_listed(sight: Sight) -> bool:
    return any(one.listed for one in sight.scene.editions)


def _drains(sight: Sight, keeping: Keeping) -> list[dict[str, Any]]:
    """Pods of the release that are on their way out, and what keeps each."""
    found = []
    for revision, pods in sorted(sight.pods_of.items()):
        for one in pods:
            try:
                record = decode_drain(one.annotations)
            except Malformed:
                record = None
            if record is None and not one.is_terminating:
                continue
            stragglers, waiting = keeping.get(one.uid, ((), ()))
            found.append(
                {
                    "pod": one.name,
                    "revision": revision,
                    "node": one.node,
                    "state": record.state if record is not None else "ending",
                    "mode": record.mode if record is not None else "",
                    "stragglers": list(stragglers or (record.stragglers if record is not None else ())),
                    "waiting": list(waiting or (record.waiting if record is not None else ())),
                }
            )
    return found
