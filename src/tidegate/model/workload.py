"""A workload (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job): selector, revision, how it replaces pods."""

from __future__ import annotations

from typing import Any

import msgspec

from tidegate.model.decode import Malformed, WireMeta, decode_wire, describe
from tidegate.model.pod import Owner, controlling_owner
from tidegate.model.selector import Selector, of_json

REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
HASH_LABEL = "pod-template-hash"


class _Rolling(msgspec.Struct, rename="camel"):
    max_surge: int | str | None = None


class _Strategy(msgspec.Struct, rename="camel"):
    type: str = ""
    rolling_update: _Rolling | None = None


class _Spec(msgspec.Struct, rename="camel"):
    replicas: int | None = None
    selector: dict[str, Any] | None = None
    strategy: _Strategy | None = None
    update_strategy: _Strategy | None = None


class _Status(msgspec.Struct, rename="camel"):
    ready_replicas: int | None = None
    number_ready: int | None = None
    desired_number_scheduled: int | None = None
    ready: int | None = None


class _Workload(msgspec.Struct):
    kind: str
    metadata: WireMeta
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)


class Workload(msgspec.Struct, frozen=True):
    """A workload as the API has it.

    ``replicas`` is what is asked for, None where the kind has no such field. ``revision`` is a Deployment's number
    (0 without one). ``can_surge`` is whether a replacement can be there before the pod it replaces has ended.
    ``is_ending``: deleted, or being deleted: it makes no replacement any more. ``ready`` and ``desired`` are the pods
    that its controller counts (a DaemonSet's desired number is one per node it suits).
    """

    kind: str
    name: str
    namespace: str
    uid: str
    owner: Owner | None
    selector: Selector | None
    replicas: int | None
    revision: int
    can_surge: bool
    strategy: str
    is_ending: bool = False
    ready: int = 0
    desired: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def decode(obj: Any) -> Workload:
    """A workload from decoded JSON. Raises ``Malformed``, which names the JSON path."""
    kind = obj.get("kind") if isinstance(obj, dict) else None
    what = describe(kind if isinstance(kind, str) else "workload", obj)
    wire = decode_wire(obj, _Workload, what)
    strategy = wire.spec.strategy or wire.spec.update_strategy or _Strategy()
    return Workload(
        kind=wire.kind,
        name=wire.metadata.name,
        namespace=wire.metadata.namespace,
        uid=wire.metadata.uid,
        owner=controlling_owner(wire.metadata.owner_references),
        selector=None if wire.spec.selector is None else of_json(wire.spec.selector, what),
        replicas=wire.spec.replicas,
        revision=_revision(wire.metadata, what),
        can_surge=_can_surge(wire.kind, strategy),
        strategy=strategy.type,
        is_ending=wire.metadata.deletion_timestamp is not None,
        ready=wire.status.ready_replicas or wire.status.number_ready or wire.status.ready or 0,
        desired=wire.status.desired_number_scheduled or wire.spec.replicas or 0,
    )


def gone(owner: Owner, namespace: str) -> Workload:
    """An owner that a pod still names and that is no more."""
    return Workload(owner.kind, owner.name, namespace, owner.uid, None, None, None, 0, False, "", is_ending=True)


def _revision(meta: WireMeta, what: str) -> int:
    text = (meta.annotations or {}).get(REVISION_ANNOTATION, "0")
    if not text.isascii() or not text.isdigit():
        raise Malformed(what, f"$.metadata.annotations['{REVISION_ANNOTATION}']", f"{text!r} is not a revision")
    return int(text)


def _can_surge(kind: str, strategy: _Strategy) -> bool:
    """A Deployment's maxSurge 0 still lets its ReplicaSet replace a deleted pod at once; a Recreate waits."""
    match kind:
        case "Deployment":
            return strategy.type != "Recreate"
        case "ReplicaSet" | "ReplicationController" | "Job":
            return True
        case "DaemonSet":
            surge = strategy.rolling_update.max_surge if strategy.rolling_update else None
            return surge not in (None, 0, "0", "0%")
        case _:
            return False  # a StatefulSet's pod is its identity: the next one waits for it to be gone
