"""Create, read, update and patch: the pipeline every write goes through, transport-free and without awaiting.

decode (the caller) -> defaults -> strategy -> admission -> validation -> allocation -> commit. A write either
happens in one step or raises ``ApiError`` and changes nothing; nothing can come between its read and its commit,
so the real server's compare-and-swap loops are not needed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate import vtime
from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.objects import generated_name, new_uid, ordered, stamp
from tidegate.lab.apiserver.registry import Registry, Row
from tidegate.lab.apiserver.schema import ownership, validation
from tidegate.lab.apiserver.store import Store
from tidegate.lab.apiserver.strategy import World, keep
from tidegate.lab.apiserver.versions import Version
from tidegate.lab.apiserver.webhooks.matching import CREATE, UPDATE, Asked
from tidegate.lab.config import Addressing

if TYPE_CHECKING:
    from tidegate.lab.apiserver.webhooks.admission import Admission

NAME_ATTEMPTS = 8
"""Tries of a generated name before 409 (generic/registry/store.go maxNameGenerationCreateAttempts)."""


@dataclass(slots=True)
class Options:
    """How one request wants its write done. ``warnings`` collects what the answer's Warning headers will say.

    A write with a ``manager`` leaves managedFields behind; ``managed`` are those an apply has worked out already.
    The lab's own controllers name no manager: their writes are not tracked, and cost nothing. Where there are webhooks,
    ``admission`` is the request's way past them.
    """

    dry_run: bool = False
    validation: str = "Ignore"
    manager: str = ""
    warnings: list[str] = field(default_factory=list)
    managed: list[JsonObject] | None = None
    admission: Admission | None = None

    def shown(self, kind: str = "UpdateOptions") -> JsonObject:
        """As an AdmissionReview has them; those of a patch are shown as an update's."""
        found: JsonObject = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
        found |= {"dryRun": ["All"]} if self.dry_run else {}
        found |= {"fieldManager": self.manager} if self.manager else {}
        return found | ({"fieldValidation": "Strict"} if self.validation == "Strict" else {})


Change = Callable[[JsonObject], JsonObject]
"""From the stored object (read-only) to the wanted one (a private copy)."""


class Verbs:
    """The store with the API's rules around it."""

    def __init__(self, registry: Registry, rng: random.Random, addressing: Addressing) -> None:
        self.registry = registry
        self.store = Store()
        self._rng = rng
        self._addressing = addressing
        self._namespaces = registry.named("", "namespaces")

    def world(self) -> World:
        return World(self.store, self.registry, self._rng, self._addressing, vtime.now())

    # -- read

    def get(self, row: Row, namespace: str, name: str) -> Version:
        """The live version of an object, or 404."""
        version = self.store.collection(row).get(namespace, name)
        if version is None:
            raise failures.not_found(row, name)
        return version

    # -- create

    def create(self, row: Row, namespace: str, obj: JsonObject, options: Options) -> Version:
        """Store a new object. ``obj`` is taken over by the call."""
        is_named = bool((obj.get("metadata") or {}).get("name"))
        metadata = self._identify(row, namespace, obj, options)
        if row.resource.namespaced:
            self._admit_namespace(row, namespace, metadata["name"])
        world = self.world()
        obj = ordered(obj, row.stored.resource.api_version, row.kind)
        row.strategy.complete(row.kind, obj)
        sent = obj.get("status")
        row.strategy.prepare_create(obj, world)
        if options.admission is not None:
            obj = self._mutated(_new(row, obj, options, is_named=is_named), options.admission, sent, world)
            metadata = obj["metadata"]
        metadata["uid"] = self._uid(options)
        metadata["creationTimestamp"] = stamp(world.now)
        if row.strategy.has_generation:
            metadata["generation"] = 1
        row.strategy.prepare_named(obj)
        options.warnings.extend(row.strategy.warnings(obj, None))
        causes = row.strategy.faults(row.kind, obj, None)
        if causes:
            raise validation.invalid(row.resource, metadata["name"], causes)
        if options.admission is not None:
            options.admission.check(_new(row, obj, options, is_named=True))
        if self.store.collection(row).get(namespace, metadata["name"]) is not None:
            raise failures.already_exists(row, metadata["name"])
        row.strategy.allocate(obj, None, world)
        _claim(row, None, obj, options)
        if options.dry_run:
            row.strategy.released(obj, world)
            return Version(obj, 0)
        return self.store.insert(row, obj)

    def _mutated(self, asked: Asked, admission: Admission, sent: JsonObject | None, world: World) -> JsonObject:
        """A new object as the mutating webhooks leave it. They see it with what the server's own admission gave it, and
        without what comes after: a generated name, a status."""
        row, obj = asked.row, asked.object
        assert obj is not None
        drawn = obj["metadata"]["name"]

        def settle(found: JsonObject) -> None:
            row.strategy.prepare_create(found, world)
            if "status" in found:
                found["status"] = sent or {}

        seen = {**obj, "metadata": dict(obj["metadata"])}
        if not asked.name:
            del seen["metadata"]["name"]
        if "status" in seen:
            seen["status"] = sent or {}
        found = admission.mutated(asked.holding(seen), settle)
        assert found is not None
        found = ordered(found, row.stored.resource.api_version, row.kind)
        for key in SERVER_OWNED:
            found["metadata"].pop(key, None)
        found["metadata"].setdefault("name", drawn)
        row.strategy.complete(row.kind, found)
        row.strategy.prepare_create(found, world)
        return found

    def _uid(self, options: Options) -> str:
        """A new object's; the same one when a create is tried again."""
        if options.admission is None:
            return new_uid(self._rng)
        return options.admission.drawn.setdefault("uid", new_uid(self._rng))

    def _identify(self, row: Row, namespace: str, obj: JsonObject, options: Options) -> JsonObject:
        """Name and place of a new object; what only the server may set is dropped."""
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            metadata = obj["metadata"] = {}
        if row.resource.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                if metadata["namespace"]:
                    raise failures.bad_request(WRONG_NAMESPACE)
                metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        if metadata.get("resourceVersion"):
            raise failures.failure(500, "", "resourceVersion should not be set on objects to be created")
        for key in SERVER_OWNED:
            metadata.pop(key, None)
        _drop_empty(metadata)
        prefix = metadata.get("generateName")
        if not metadata.get("name") and prefix:
            collection = self.store.collection(row)
            drawn = options.admission.drawn if options.admission is not None else {}
            for _ in range(NAME_ATTEMPTS):
                metadata["name"] = drawn.pop("name", "") or generated_name(prefix, self._rng)
                if collection.get(namespace, metadata["name"]) is None:
                    break
            else:
                raise failures.no_unique_name(row, metadata["name"])
            drawn["name"] = metadata["name"]
        if not metadata.get("name"):
            cause = validation.Cause(
                "metadata.name", "FieldValueRequired", "Required value: name or generateName is required"
            )
            raise validation.invalid(row.resource, "", [cause])
        return metadata

    def _admit_namespace(self, row: Row, namespace: str, name: str) -> None:
        """Namespace lifecycle admission: 404 without the namespace, 403 while it is terminating."""
        version = self.store.collection(self._namespaces).get("", namespace)
        if version is None:
            raise failures.not_found(self._namespaces, namespace)
        if version.object.get("status", {}).get("phase") == "Terminating" and row.kind != "Event":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise failures.forbidden(row, name, why, [cause])

    # -- update

    def update(
        self, row: Row, place: tuple[str, str], change: Change, options: Options, subresource: str = ""
    ) -> Version:
        """Change the object at ``place`` = (namespace, name). A change that changes nothing keeps the version."""
        namespace, name = place
        old = self.get(row, namespace, name)
        obj = change(old.object)
        if not isinstance(obj.get("metadata"), dict):
            obj["metadata"] = {}
        _check_identity(row, old.object["metadata"], obj["metadata"])
        world = self.world()
        obj = ordered(obj, row.stored.resource.api_version, row.kind)
        if options.admission is not None:
            obj = self._remade(row, old, obj, options, subresource)
        _keep_system_metadata(obj["metadata"], old.object["metadata"])
        if options.managed is not None:
            obj["metadata"]["managedFields"] = options.managed
        row.strategy.complete(row.kind, obj)
        strategy = row.strategy
        if subresource == "status":
            strategy.prepare_status(obj, old.object, world)
        else:
            strategy.prepare_update(obj, old.object, world)
        if obj == old.object:
            if options.admission is not None:
                options.admission.check(_change_of(row, old, obj, options, subresource))
            return old
        if (
            strategy.has_generation
            and subresource != "status"
            and strategy.content(obj) != strategy.content(old.object)
        ):
            obj["metadata"]["generation"] = old.object["metadata"].get("generation", 0) + 1
        causes = strategy.faults(row.kind, obj, old.object, subresource)
        options.warnings.extend(strategy.warnings(obj, old.object))
        if causes:  # metadata is checked by BeforeUpdate and again by the kind's strategy
            twice = [cause for cause in causes if cause.field.startswith("metadata.")]
            raise validation.invalid(row.resource, name, [*twice, *causes])
        if options.admission is not None:
            options.admission.check(_change_of(row, old, obj, options, subresource))
        if not options.dry_run:
            strategy.allocate(obj, old.object, world)
        _claim(row, old.object, obj, options, subresource)
        return self.settle(row, old, obj, options)

    def _remade(self, row: Row, old: Version, obj: JsonObject, options: Options, subresource: str) -> JsonObject:
        """A changed object as the mutating webhooks leave it. They see it as it was sent."""
        assert options.admission is not None
        row.strategy.complete(row.kind, obj)
        found = options.admission.mutated(_change_of(row, old, obj, options, subresource))
        assert found is not None
        found = ordered(found, row.stored.resource.api_version, row.kind)
        _check_identity(row, old.object["metadata"], found["metadata"])
        return found

    def settle(self, row: Row, old: Version, obj: JsonObject, options: Options) -> Version:
        """Commit a prepared version; or remove the object when this write took away the last thing that held it."""
        gone = (
            old.object["metadata"].get("deletionTimestamp")
            and not old.object["metadata"].get("deletionGracePeriodSeconds")
            and not obj["metadata"].get("finalizers")
            and not row.strategy.holds_deletion(obj)
        )
        if options.dry_run:
            return Version(obj, old.rv)
        if gone:
            self.remove(row, old)
            return Version(obj, old.rv)  # the answer shows what was asked for, though nothing was written
        return self.store.replace(row, old, obj)

    def remove(self, row: Row, old: Version) -> Version:
        """Take an object out of the store and give back what it had drawn."""
        departed = self.store.remove(row, old)
        row.strategy.released(old.object, self.world())
        return departed


SERVER_OWNED = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
)

WRONG_NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"

_KEPT = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
    "managedFields",
)


def _new(row: Row, obj: JsonObject, options: Options, *, is_named: bool) -> Asked:
    """A create as admission sees it; a name that the server has drawn is not there yet."""
    metadata, kind = obj["metadata"], "CreateOptions"
    name = metadata["name"] if is_named else ""
    place = place_of(row, metadata)
    return Asked(row, CREATE, place, name, obj, options=options.shown(kind), is_dry_run=options.dry_run)


def place_of(row: Row, metadata: JsonObject) -> str:
    """The namespace a request about an object is in: about a namespace, itself (endpoints/handlers/create.go)."""
    is_namespace = row.resource.plural == "namespaces" and not row.resource.group
    return str(metadata["name"] if is_namespace else metadata.get("namespace", ""))


def _change_of(row: Row, old: Version, obj: JsonObject, options: Options, subresource: str) -> Asked:
    """An update as admission sees it."""
    assert options.admission is not None
    metadata = old.object["metadata"]
    return Asked(
        row, UPDATE, place_of(row, metadata), metadata["name"], obj, old.object,
        options.admission.subresource or subresource, options.shown(), options.dry_run, old.rv,
    )  # fmt: skip


def _claim(row: Row, old: JsonObject | None, obj: JsonObject, options: Options, subresource: str = "") -> None:
    """Write down who owns what, in place: as an apply said, or what this manager's write changed."""
    if options.managed is not None:
        obj["metadata"]["managedFields"] = options.managed
    elif options.manager and (row.conversion is None or row.custom is not None):
        writer = ownership.Writer(options.manager, row.resource.api_version, stamp(vtime.now()), subresource)
        obj["metadata"]["managedFields"] = ownership.track(old, obj, row.type_name or row.kind, writer)


def _check_identity(row: Row, old: JsonObject, new: JsonObject) -> None:
    """Name and namespace must fit the URL; uid and resourceVersion, where sent, must be the stored ones."""
    name, namespace = old["name"], old.get("namespace", "")
    if new.setdefault("name", name) != name:
        message = f"the name of the object ({new['name']}) does not match the name on the URL ({name})"
        raise failures.bad_request(message)
    if namespace and new.setdefault("namespace", namespace) != namespace:
        raise failures.bad_request(WRONG_NAMESPACE)
    if (uid := new.get("uid")) and uid != old["uid"]:
        place = f"/registry/{row.resource.plural}/{namespace}/{name}".replace("//", "/")
        why = (
            f"StorageError: invalid object, Code: 4, Key: {place}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['uid']}"
        )
        raise failures.conflict(row, name, why)
    version = str(new.get("resourceVersion") or "")
    if not version and row.strategy.needs_version:
        raise failures.unversioned(row, name)
    if version and not version.isdigit():
        raise failures.failure(500, "", f'strconv.ParseUint: parsing "{version}": invalid syntax')
    if version and version != old["resourceVersion"]:
        raise failures.conflict(row, name)


def _keep_system_metadata(new: JsonObject, old: JsonObject) -> None:
    """What BeforeUpdate restores (apiserver pkg/registry/rest/update.go)."""
    new.pop("selfLink", None)
    for key in _KEPT:
        keep(new, old, key)
    _drop_empty(new)


def _drop_empty(metadata: JsonObject) -> None:
    """Empty maps and lists are left out, as Go's omitempty does: ``{}`` and absent must compare equal."""
    for key in ("labels", "annotations", "finalizers", "ownerReferences"):
        if key in metadata and not metadata[key]:
            del metadata[key]
