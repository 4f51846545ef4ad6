"""Held pods: what a verb took out of traffic and keeps, for whom, until when, and what to do about it now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tidegate.model.decode import Malformed
from tidegate.model.names import HELD, TOMBSTONE, DrainRecord, DrainResult, decode_drain, decode_result
from tidegate.model.pod import Pod
from tidegate.traffic.finding import Finding

_OVER = frozenset({"RESTORED", "GONE", "REFUSED"})
"""States of a record that holds nothing any more (drain.state)."""
_LABEL_MODE = "label"


@dataclass(frozen=True, slots=True)
class Held:
    """A pod that some verb holds. ``record`` is None where only the label is left; ``problem`` says why it cannot be
    read."""

    pod: Pod
    record: DrainRecord | None
    result: DrainResult | None = None
    problem: str = ""

    @property
    def verb(self) -> str:
        """cut, isolate or drain."""
        if self.record is not None:
            return self.record.verb
        return {"cut": "cut", "isolated": "isolate"}.get(self.pod.labels.get(HELD, ""), "drain")

    @property
    def is_sealed(self) -> bool:
        """Whether it bears a tombstone: nothing can give its labels back, it was about to be deleted."""
        return TOMBSTONE in self.pod.labels

    def is_at_work(self, now: datetime) -> bool:
        """Whether a process is believed to be at work on it."""
        if self.record is None or self.record.is_at_rest:
            return False
        until = instant(self.record.lease_until)
        return until is not None and now < until

    def is_expired(self, now: datetime) -> bool:
        """Whether it is held past the instant it was asked for."""
        until = instant(self.record.until) if self.record is not None else None
        return until is not None and until <= now

    def is_orphan(self, now: datetime) -> bool:
        """Whether nobody is at work on it: held at rest, or by a process that has not renewed its lease."""
        return not self.pod.is_terminating and not self.is_at_work(now)

    @property
    def next_steps(self) -> tuple[str, ...]:
        """Command lines, the one to try first before the others."""
        where = f"pod/{self.pod.name} -n {self.pod.namespace}"
        if self.is_sealed:
            return (f"tidegate drain {where}",)
        if self.record is None:
            return (f"kubectl get {where} --show-labels", f"tidegate drain {where}")
        return (f"tidegate restore {where}", f"tidegate drain {where}")


def held(pod: Pod) -> Held | None:
    """Whether ``pod`` is held: by its label or by its record, a pod may lack one. None when it is not.

    The record of a gate is no hold: there the kubelet waits, and the pod is on its way out.
    """
    try:
        record, result = decode_drain(pod.annotations), decode_result(pod.annotations)
    except Malformed as error:
        return Held(pod, None, None, str(error))
    if record is not None and (record.mode != _LABEL_MODE or record.state in _OVER):
        record = None
    if record is None and HELD not in pod.labels and TOMBSTONE not in pod.labels:
        return None
    problem = "" if record is not None else "no record: who holds it, and its labels before, are not known"
    return Held(pod, record, result, problem)


def all_held(pods: Iterable[Pod]) -> tuple[Held, ...]:
    """Every held pod among ``pods``, by namespace and name."""
    found = (one for pod in pods if (one := held(pod)) is not None)
    return tuple(sorted(found, key=lambda one: (one.pod.namespace, one.pod.name)))


def labels_changed(one: Held) -> Finding | None:
    """Somebody has set another value since: a restore will not overwrite it."""
    if one.record is None or one.is_sealed:
        return None
    now = one.pod.labels
    other = [
        f"{key}={now[key]}" if key in now else f"{key} is gone"
        for key, value in sorted(one.record.changed.items())
        if now.get(key) != value
    ]
    if not other:
        return None
    sentence = f"its labels were changed by hand since it was {_PAST.get(one.verb, one.verb)}: {', '.join(other)}"
    step = "a restore leaves them as they are; put them right by hand, or drain the pod"
    return Finding("labels-changed", f"pod/{one.pod}", sentence, step)


def past_until(one: Held, now: datetime) -> Finding | None:
    """Nobody's any more."""
    if one.record is None or not one.is_expired(now):
        return None
    by = f" by {one.record.by}" if one.record.by else ""
    sentence = f"it was {_PAST.get(one.verb, one.verb)}{by} until {one.record.until}, and that is over"
    return Finding("past-until", f"pod/{one.pod}", sentence, "give it back, or retire it")


def hold_warnings(one: Held, now: datetime) -> tuple[Finding, ...]:
    """Every warning about a held pod."""
    return tuple(found for found in (labels_changed(one), past_until(one, now)) if found is not None)


_PAST = {"cut": "cut", "isolate": "isolated", "drain": "drained"}


def instant(text: str) -> datetime | None:
    """An RFC 3339 instant; None for none, or for what is none."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
