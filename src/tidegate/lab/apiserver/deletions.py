"""Delete: preconditions, grace, finalizers and propagation.

Follows apiserver pkg/registry/rest/delete.go (BeforeDelete) and generic/registry/store.go:955-1075. The garbage
collector is a controller; this file only writes the finalizers that tell it what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.objects import stamp
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.verbs import Options, Verbs, place_of
from tidegate.lab.apiserver.versions import Version
from tidegate.lab.apiserver.webhooks.matching import DELETE, Asked

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """What the caller asked. ``None`` and "" leave the choice to the kind."""

    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""

    def shown(self) -> JsonObject:
        """As an AdmissionReview has them."""
        found: JsonObject = {} if self.grace_seconds is None else {"gracePeriodSeconds": self.grace_seconds}
        conditions = {"uid": self.uid, "resourceVersion": self.resource_version}
        if wanted := {key: value for key, value in conditions.items() if value}:
            found["preconditions"] = wanted
        return found | ({"propagationPolicy": self.propagation} if self.propagation else {})


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object after the delete; ``is_gone`` False means it stays until grace or finalizers end."""

    version: Version
    is_gone: bool


def delete(verbs: Verbs, row: Row, place: tuple[str, str], asked: DeleteOptions, options: Options) -> Deleted:
    """Delete the object at ``place`` = (namespace, name), or begin to."""
    namespace, name = place
    old = verbs.get(row, namespace, name)
    row.strategy.check_deletion(row, old.object)
    check_preconditions(row, old.object["metadata"], asked)
    metadata = dict(old.object["metadata"])
    grace = row.strategy.grace_seconds(old.object, asked.grace_seconds)
    if grace is not None and not _begin_grace(metadata, grace, asked, verbs):
        return Deleted(old, False)
    is_graceful = grace is not None
    if options.admission is not None:
        pass_webhooks(row, old, asked, options)
    held = metadata.get("finalizers") or []
    if not asked.propagation and row.strategy.unsaid_warning:
        options.warnings.append(row.strategy.unsaid_warning)
    is_said = asked.propagation or any(name in held for name in (ORPHAN, FOREGROUND))
    finalizers = _wanted_finalizers(held, asked.propagation if is_said else row.strategy.propagation)
    if finalizers != (metadata.get("finalizers") or []):
        metadata["finalizers"] = finalizers
        if not finalizers:
            del metadata["finalizers"]
    is_held = bool(finalizers) or row.strategy.holds_deletion(old.object)
    if is_held and not is_graceful:
        _mark_deleting(metadata, verbs)
    current = old
    if metadata != old.object["metadata"]:
        obj = {**old.object, "metadata": metadata}
        row.strategy.mark_deleting(obj)
        current = Version(obj, old.rv) if options.dry_run else verbs.store.replace(row, old, obj)
    if is_held or (is_graceful and metadata["deletionGracePeriodSeconds"] > 0):
        return Deleted(current, False)
    if options.dry_run:
        return Deleted(current, True)
    return Deleted(verbs.remove(row, current), True)


def pass_webhooks(row: Row, old: Version, asked: DeleteOptions, options: Options) -> None:
    """Return if the webhooks let this object be deleted. They see the object as it was."""
    assert options.admission is not None
    metadata = old.object["metadata"]
    shown: JsonObject = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", **asked.shown()}
    if options.dry_run:
        shown["dryRun"] = ["All"]
    wanted = Asked(
        row, DELETE, place_of(row, metadata), metadata["name"], None, old.object, "", shown, options.dry_run, old.rv
    )
    options.admission.mutated(wanted)
    options.admission.check(wanted)


def check_preconditions(row: Row, metadata: JsonObject, asked: DeleteOptions) -> None:
    """Raise ``ApiError`` 409 unless the object is the one that is meant."""
    if asked.uid and asked.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({asked.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise failures.unmet(row, metadata["name"], why)
    if asked.resource_version and asked.resource_version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({asked.resource_version}) does not match the ResourceVersion "
            f"in record ({metadata['resourceVersion']}). The object might have been modified"
        )
        raise failures.unmet(row, metadata["name"], why)


def _begin_grace(metadata: JsonObject, grace: int, asked: DeleteOptions, verbs: Verbs) -> bool:
    """Start or shorten the grace period; False when one is running that this delete must not change."""
    if metadata.get("deletionTimestamp"):
        running = metadata.get("deletionGracePeriodSeconds") or 0
        if asked.grace_seconds is None or max(asked.grace_seconds, 0) >= running:
            return False
    elif metadata.get("generation"):
        metadata["generation"] += 1
    metadata["deletionTimestamp"] = stamp(verbs.world().now + timedelta(seconds=grace))
    metadata["deletionGracePeriodSeconds"] = grace
    return True


def _wanted_finalizers(held: list[str], propagation: str) -> list[str]:
    """The finalizers after a delete with this propagation: the option rules, then the ones already there."""
    orphan = propagation == "Orphan" or (not propagation and ORPHAN in held)
    foreground = propagation == "Foreground" or (not propagation and FOREGROUND in held)
    wanted = [name for name in held if name not in (ORPHAN, FOREGROUND)]
    if orphan:
        wanted.append(ORPHAN)
    elif foreground:
        wanted.append(FOREGROUND)
    return held if sorted(wanted) == sorted(held) else wanted


def _mark_deleting(metadata: JsonObject, verbs: Verbs) -> None:
    if metadata.get("deletionTimestamp"):
        return
    metadata["deletionTimestamp"] = stamp(verbs.world().now)
    metadata["deletionGracePeriodSeconds"] = 0
    if metadata.get("generation"):
        metadata["generation"] += 1
