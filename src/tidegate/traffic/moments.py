"""The moments of a pod's birth and death that its own object tells: each with its source, or marked as a gap.

The API writes most times to the second; what a watch saw has the instant of its arrival here, which is finer. SIGTERM
has no field of its own: Event ``Killing`` comes before the preStop hook (kuberuntime_container.go, killContainer, in
1.36.2), so it is SIGTERM's instant only for a container without one. A gate's answer is the record of its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tidegate.model.decode import Malformed
from tidegate.model.names import DRAIN, DRAIN_RESULT, GATE_PATH, GATE_PORT, decode_drain, decode_result

STEPS: tuple[str, ...] = (
    "created", "scheduled", "address", "started", "ready", "listed", "routed", "first-connection", "cut", "deleted",
    "terminating", "unlisted", "stopping", "fenced", "unrouted", "last-connection", "drained", "sigterm", "not-ready",
    "ended", "gone",
)  # fmt: skip
"""In the order of a life that goes well; what comes in another order is shown as it came."""

_NEVER = datetime.min.replace(tzinfo=UTC)
LATE = "not seen: the trace began later"
API_SECONDS = 1.0
"""metav1.Time is RFC 3339 without fractions."""
FRESH_SECONDS = 3.0
"""An Event written this long ago is not what the watch shows just now: its own time counts, to the second."""

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """``at`` is None for a gap, and ``gap`` says why; ``subject`` is a container, a Service or a node.

    ``resolution_seconds`` is how coarse ``at`` is; 0 for the instant at which we saw it.
    """

    step: str
    at: datetime | None
    source: str
    subject: str = ""
    detail: str = ""
    resolution_seconds: float = 0.0
    gap: str = ""


def standing(pod: JsonObject, events: Iterable[JsonObject] = ()) -> list[Moment]:
    """What the objects tell of a pod that is there already. Steps they do not tell are left out: see ``gaps``."""
    meta, status = pod["metadata"], pod.get("status") or {}
    known = [event for event in events if (event.get("involvedObject") or {}).get("uid") in (meta.get("uid"), None)]
    found = [_api("created", meta.get("creationTimestamp"), "metadata.creationTimestamp")]
    found += [_scheduled(pod, known)]
    ip = str(status.get("podIP") or "")
    found += [_condition(pod, "PodReadyToStartContainers", "address", detail=ip)] if ip else []
    found += list(_containers(status))
    found += [_condition(pod, "Ready", "ready")]
    found += list(_dying(pod, known))
    return ordered(moment for moment in found if moment is not None)


def changes(old: JsonObject | None, new: JsonObject, at: datetime) -> list[Moment]:
    """What a watch showed to have happened between two versions of a pod (``old`` None: it appeared), at ``at``."""
    seen = "Pod watch"
    before, status = _facts(old or {}), new.get("status") or {}
    after = _facts(new)
    found = []
    if old is None:
        found.append(Moment("created", at, seen))
    for step, key in (("scheduled", "node"), ("address", "ip")):
        if after[key] and after[key] != before[key]:
            found.append(Moment(step, at, seen, detail=str(after[key])))
    for name, container in _by_name(status).items():
        earlier = _by_name((old or {}).get("status") or {}).get(name) or {}
        found += [replace(one, at=at, source=seen, resolution_seconds=0.0) for one in _lives(name, earlier, container)]
    if after["ready"] != before["ready"]:
        found.append(Moment("ready" if after["ready"] else "not-ready", at, seen))
    if after["deleted"] and not before["deleted"]:
        grace = new["metadata"].get("deletionGracePeriodSeconds")
        found.append(Moment("deleted", at, seen, detail=f"grace period {grace} s"))
    return found + _recorded(old or {}, new, at)


def ordered(moments: Iterable[Moment]) -> list[Moment]:
    """By instant; within a second of which only the API's coarse time is known, by the order of ``STEPS``. A gap
    stands after the last step that comes before its own."""
    rows = list(moments)
    coarse = {one.at.replace(microsecond=0) for one in rows if one.at is not None and one.resolution_seconds}

    def place(one: Moment, at: datetime) -> tuple[datetime, int, datetime, int]:
        second = at.replace(microsecond=0)
        return second, _rank(one) if second in coarse else -1, at, _rank(one)

    timed = sorted((one for one in rows if one.at is not None), key=lambda one: place(one, one.at or _NEVER))
    for gap in sorted((one for one in rows if one.at is None), key=lambda one: (_rank(one), one.subject)):
        before = [index for index, one in enumerate(timed) if one.step in STEPS and _rank(one) <= _rank(gap)]
        timed.insert(before[-1] + 1 if before else 0, gap)
    return timed


def gaps(moments: Iterable[Moment], why: Mapping[str, str]) -> list[Moment]:
    """A gap for each step of ``why`` that is not among ``moments``."""
    seen = {one.step for one in moments}
    return [Moment(step, None, "", gap=reason) for step, reason in why.items() if step not in seen]


def stopping(pod: JsonObject, killing: datetime | None, resolution_seconds: float = API_SECONDS) -> Iterator[Moment]:
    """Event ``Killing``: where a container has a hook it is the hook's beginning, else SIGTERM itself."""
    if killing is None:
        return
    hooks = hooked(pod)
    if hooks:
        called = f"preStop of {', '.join(hooks)} is called"
        yield Moment("stopping", killing, "Event Killing", detail=called, resolution_seconds=resolution_seconds)
    if not hooks:
        detail = "sent as the Event is written: there is no preStop hook"
        yield Moment("sigterm", killing, "Event Killing", detail=detail, resolution_seconds=resolution_seconds)


def hooked(pod: JsonObject) -> tuple[str, ...]:
    """The containers with a preStop hook."""
    return tuple(one["name"] for one in _specs(pod) if (one.get("lifecycle") or {}).get("preStop"))


def is_gated(pod: JsonObject) -> bool:
    """Whether every container's preStop hook is the gate: then the record of the result is its answer."""
    calls = [((one.get("lifecycle") or {}).get("preStop") or {}).get("httpGet") or {} for one in _specs(pod)]
    names = [one["name"] for one in _specs(pod)]
    return bool(calls) and all(
        str(call.get("port")) == str(GATE_PORT) and call.get("path") == GATE_PATH + name
        for call, name in zip(calls, names, strict=True)
    )


def killed_at(events: Iterable[JsonObject]) -> datetime | None:
    """When the first Event ``Killing`` was written."""
    found = [at for event in events if event.get("reason") == "Killing" and (at := _event_at(event)) is not None]
    return min(found) if found else None


def killing_seen(event: JsonObject, now: datetime) -> tuple[datetime, float] | None:
    """(instant, how coarse) of an Event ``Killing`` that a watch has just shown; None for any other.

    One that is written now has the instant of its arrival, one that was written a while ago its own time.
    """
    written = killed_at([event])
    if written is None:
        return None
    return (now, 0.0) if (now - written).total_seconds() < FRESH_SECONDS else (written, API_SECONDS)


# --- what the object tells ---


def _dying(pod: JsonObject, events: list[JsonObject]) -> Iterator[Moment | None]:
    meta, status = pod["metadata"], pod.get("status") or {}
    if meta.get("deletionTimestamp"):
        grace = int(meta.get("deletionGracePeriodSeconds") or 0)
        yield _at(
            "deleted", _deleted(meta), "metadata.deletionTimestamp less its grace period", f"grace period {grace} s"
        )
        yield from stopping(pod, killed_at(events))
    yield from _told(pod)
    for name, container in _by_name(status).items():
        ended = (container.get("state") or {}).get("terminated") or {}
        yield _api("ended", ended.get("finishedAt"), "status.containerStatuses", name, f"exit {ended.get('exitCode')}")


def _told(pod: JsonObject) -> Iterator[Moment | None]:
    """What the drain's record and result say: cut, drained, and with a gate SIGTERM."""
    annotations = pod["metadata"].get("annotations") or {}
    try:
        record, result = decode_drain(annotations), decode_result(annotations)
    except Malformed as error:
        yield Moment("drained", None, "", gap=f"the record cannot be read: {error}")
        return
    if record is None:
        return
    at = _instant(record.at)
    if record.mode == "label":
        yield _at("cut", at, f"annotation {DRAIN}", f"{record.verb} by {record.by or 'somebody'}")
    is_by_gate = is_gated(pod) and (record.mode == "gate" or bool(pod["metadata"].get("deletionTimestamp")))
    if is_by_gate and record.mode == "label":
        at = _deleted(pod["metadata"])  # the gate was asked last: the result is its own, counted from the deletion
    if result is None or at is None:
        return
    ended = at + timedelta(seconds=result.seconds)
    yield _at("drained", ended, f"annotation {DRAIN_RESULT}", str(result))
    if is_by_gate:
        yield _at(
            "sigterm", ended, f"annotation {DRAIN_RESULT}", "not before: the gate is answered once this is written"
        )


def _deleted(meta: JsonObject) -> datetime | None:
    """When the end was asked for: the deletionTimestamp is the end of the grace period."""
    until = _instant(meta["deletionTimestamp"])
    return None if until is None else until - timedelta(seconds=int(meta.get("deletionGracePeriodSeconds") or 0))


def _recorded(old: JsonObject, new: JsonObject, at: datetime) -> list[Moment]:
    """The same as a watch showed it."""
    before, after = _annotations(old), _annotations(new)
    is_cut = DRAIN in after and DRAIN not in before
    is_concluded = DRAIN_RESULT in after and after[DRAIN_RESULT] != before.get(DRAIN_RESULT)
    told = [one for one in _told(new) if one is not None and (is_cut if one.step == "cut" else is_concluded)]
    return [replace(one, at=at, resolution_seconds=0.0) for one in told]


def _annotations(pod: JsonObject) -> Mapping[str, str]:
    return (pod.get("metadata") or {}).get("annotations") or {}


def _scheduled(pod: JsonObject, events: list[JsonObject]) -> Moment | None:
    for event in events:
        if event.get("reason") == "Scheduled" and event.get("eventTime"):
            at = _instant(event["eventTime"])
            return Moment("scheduled", at, "Event Scheduled", detail=str((pod.get("spec") or {}).get("nodeName") or ""))
    return _condition(pod, "PodScheduled", "scheduled", detail=str((pod.get("spec") or {}).get("nodeName") or ""))


def _condition(pod: JsonObject, kind: str, step: str, detail: str = "") -> Moment | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind and condition["status"] == "True":
            return _api(step, condition.get("lastTransitionTime"), f"condition {kind}", "", detail)
    return None


def _containers(status: JsonObject) -> Iterator[Moment | None]:
    for name, container in _by_name(status).items():
        for moment in _lives(name, {}, container):
            if moment.step == "started":
                yield moment


def _lives(name: str, old: JsonObject, new: JsonObject) -> Iterator[Moment]:
    """A container's start and end, where the two differ."""
    before, after = old.get("state") or {}, new.get("state") or {}
    for key, field, step in (("running", "startedAt", "started"), ("terminated", "finishedAt", "ended")):
        at = (after.get(key) or {}).get(field)
        if at and at != (before.get(key) or {}).get(field):
            detail = f"exit {after[key].get('exitCode')}" if key == "terminated" else _restarts(new)
            moment = _api(step, at, "status.containerStatuses", name, detail)
            if moment is not None:
                yield moment
    if not after.get("running") and (since := (after.get("terminated") or {}).get("startedAt")) and not before:
        moment = _api("started", since, "status.containerStatuses", name, _restarts(new))
        if moment is not None:
            yield moment


def _restarts(container: JsonObject) -> str:
    count = int(container.get("restartCount") or 0)
    return f"restarted {count} times" if count else ""


def _facts(pod: JsonObject) -> dict[str, Any]:
    status = pod.get("status") or {}
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    meta = pod.get("metadata") or {}
    return {
        "node": (pod.get("spec") or {}).get("nodeName"),
        "ip": status.get("podIP"),
        "ready": ready,
        "deleted": meta.get("deletionTimestamp"),
    }


def _by_name(status: JsonObject) -> dict[str, JsonObject]:
    return {one["name"]: one for one in status.get("containerStatuses") or ()}


def _specs(pod: JsonObject) -> list[Any]:
    return list((pod.get("spec") or {}).get("containers") or ())


def _event_at(event: JsonObject) -> datetime | None:
    return _instant(event.get("eventTime") or event.get("firstTimestamp") or event.get("lastTimestamp") or "")


def _api(step: str, text: Any, source: str, subject: str = "", detail: str = "") -> Moment | None:
    return _at(step, _instant(text), source, detail, subject)


def _at(step: str, at: datetime | None, source: str, detail: str = "", subject: str = "") -> Moment | None:
    return None if at is None else Moment(step, at, source, subject, detail, API_SECONDS)


def _instant(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None


def _rank(one: Moment) -> int:
    return STEPS.index(one.step) if one.step in STEPS else len(STEPS)
