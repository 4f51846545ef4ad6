"""A ledger's entry as a ``Drain`` object, and back: one object for each retirement. Pure.

Spec and evidence are one write: a record has no controller that would report on it later, so there is no status
subresource. Its amendments (a regression that was seen after the release) are written over it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tidegate.drain.ledger import Answer, Entry, InFlight
from tidegate.kube.api import DRAINS, JsonObject
from tidegate.model.names import MANAGED_BY, TIDEGATE

NAME_LENGTH_MAX = 253
_ID_LENGTH = 16


class _Shape(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """All of a Drain."""


class DrainSpec(_Shape, frozen=True):
    """Which pod was retired, by which verb, for whom."""

    pod: str
    uid: str = ""
    node: str = ""
    verb: str = ""
    mode: str = ""
    by: str = ""
    why: str = ""
    token: str = ""
    services: tuple[str, ...] = ()
    began: str = ""
    deadline: str = ""
    on_deadline: str = ""
    probe: str = ""


class DrainStatus(_Shape, frozen=True):
    """How it ended, and what was seen."""

    result: str = ""
    reason: str = ""
    cut: str = ""
    concluded: str = ""
    seconds: float = 0.0
    epoch: str = ""
    policy: str = ""
    stragglers: tuple[str, ...] = ()
    suspected: tuple[str, ...] = ()
    regressions: tuple[str, ...] = ()
    observers: tuple[Answer, ...] = ()
    observers_left_off: int = 0
    connections_at_cut: InFlight | None = None
    connections_at_end: InFlight | None = None
    activity: str = ""
    stamp: str = ""


def name_of(entry: Entry) -> str:
    """The pod's name and the entry's id: what amends an entry finds it."""
    pod = re.sub(r"[^a-z0-9.-]", "-", entry.pod.lower())[: NAME_LENGTH_MAX - _ID_LENGTH - 1].strip("-.") or "pod"
    return f"{pod}-{entry.id[:_ID_LENGTH]}"


def object_of(entry: Entry) -> JsonObject:
    """The whole object."""
    spec = DrainSpec(**{name: getattr(entry, name) for name in DrainSpec.__struct_fields__})
    status = DrainStatus(
        concluded=entry.at,
        observers=entry.answers,
        observers_left_off=entry.answers_left_off,
        **{name: getattr(entry, name) for name in DrainStatus.__struct_fields__ if name in Entry.__struct_fields__},
    )
    return {
        "apiVersion": DRAINS.api_version,
        "kind": DRAINS.kind,
        "metadata": {
            "name": name_of(entry),
            "namespace": entry.namespace,
            "labels": {MANAGED_BY: TIDEGATE, "tidegate.dev/pod-uid": entry.uid},
            "annotations": {"tidegate.dev/ledger-id": entry.id},
        },
        "spec": msgspec.to_builtins(spec),
        "status": msgspec.to_builtins(status),
    }


def entry_of(obj: JsonObject) -> Entry:
    """The entry that an object was made of. Raises ``ValueError`` for what is none."""
    metadata: dict[str, Any] = obj.get("metadata") or {}
    spec = msgspec.convert(obj.get("spec") or {}, DrainSpec)
    status = msgspec.convert(obj.get("status") or {}, DrainStatus)
    shared = {
        name: getattr(status, name) for name in DrainStatus.__struct_fields__ if name in Entry.__struct_fields__
    } | {
        "connections_at_cut": status.connections_at_cut or InFlight(),
        "connections_at_end": status.connections_at_end or InFlight(),
    }
    return Entry(
        id=str((metadata.get("annotations") or {}).get("tidegate.dev/ledger-id") or metadata.get("name") or ""),
        namespace=str(metadata.get("namespace") or ""),
        at=status.concluded,
        answers=status.observers,
        answers_left_off=status.observers_left_off,
        **{name: getattr(spec, name) for name in DrainSpec.__struct_fields__},
        **shared,
    )
