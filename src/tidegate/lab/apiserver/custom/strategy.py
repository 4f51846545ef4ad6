"""CustomResourceDefinitions as objects: what the server fills in, and how deletion begins.

registry/customresourcedefinition: strategy.go and etcd.go (Delete).
"""

from __future__ import annotations

from datetime import datetime

from tidegate import vtime
from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom import definition_checks
from tidegate.lab.apiserver.objects import stamp
from tidegate.lab.apiserver.schema import validation
from tidegate.lab.apiserver.schema.causes import Cause
from tidegate.lab.apiserver.strategy import Strategy, World

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that keeps a definition until its instances are gone."""


def condition(definition: JsonObject, kind: str) -> JsonObject:
    """A condition of a definition; {} where it has none."""
    held = (definition.get("status") or {}).get("conditions") or ()
    return next((one for one in held if one["type"] == kind), {})


def is_true(definition: JsonObject, kind: str) -> bool:
    """The definition has that condition with status True."""
    return bool(condition(definition, kind).get("status") == "True")


def with_condition(definition: JsonObject, wanted: tuple[str, str, str, str], now: datetime) -> JsonObject:
    """The definition with a condition (type, status, reason, message); its time stays while its status does."""
    kind, status, reason, message = wanted
    held = list((definition.get("status") or {}).get("conditions") or ())
    before = condition(definition, kind)
    since = before["lastTransitionTime"] if before.get("status") == status else stamp(now)
    made = {"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
    found = [made if one["type"] == kind else one for one in held]
    conditions = found if before else [*held, made]
    return {**definition, "status": {**(definition.get("status") or {}), "conditions": conditions}}


class DefinitionStrategy(Strategy):
    """Status is the server's; the first delete adds the finalizer that has the instances deleted."""

    needs_version = True

    def __init__(self) -> None:
        super().__init__(has_generation=True)

    def warnings(self, obj: JsonObject, old: JsonObject | None) -> list[str]:
        before = definition_checks.unrecognized_formats(old) if old is not None else []
        new = definition_checks.unrecognized_formats(obj)
        return [f'unrecognized format "{name}"' for name in new if name not in before]

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        obj["status"] = {
            "conditions": None,
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": _stored(obj),
        }

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        super().prepare_update(obj, old, world)
        status = obj.get("status") or {}
        held = list(status.get("storedVersions") or ())
        new = [name for name in _stored(obj) if name not in held]
        if new:
            obj["status"] = {**status, "storedVersions": [*held, *new]}

    def faults(self, kind: str, obj: JsonObject, old: JsonObject | None, subresource: str = "") -> list[Cause]:
        found = validation.validate(kind, obj, old)
        return found if subresource == "status" else [*found, *definition_checks.faults(obj, old)]

    def holds_deletion(self, obj: JsonObject) -> bool:
        return not obj["metadata"].get("deletionTimestamp")

    def mark_deleting(self, obj: JsonObject) -> None:
        """Not as other objects: the server writes this deletion itself, without grace and without a new generation."""
        metadata = obj["metadata"]
        metadata.pop("deletionGracePeriodSeconds", None)
        if CLEANUP in (metadata.get("finalizers") or ()):
            return
        if metadata.get("generation"):
            metadata["generation"] -= 1
        metadata["finalizers"] = [*(metadata.get("finalizers") or ()), CLEANUP]
        text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        obj |= with_condition(obj, ("Terminating", "True", "InstanceDeletionPending", text), vtime.now())


def _stored(definition: JsonObject) -> list[str]:
    versions = (definition.get("spec") or {}).get("versions") or ()
    return [version["name"] for version in versions if version.get("storage")][:1]
