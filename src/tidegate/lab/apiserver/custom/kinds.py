"""One version of a custom kind: its schema, its strategy, its columns, its scale, and the row the registry serves."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidegate.kube.api import JsonObject, Resource
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.custom import checks, jsonpath, rules, shaping, structural
from tidegate.lab.apiserver.custom.structural import Schema
from tidegate.lab.apiserver.objects import clone, dig
from tidegate.lab.apiserver.registry import Conversion, Row, Subresource
from tidegate.lab.apiserver.schema import openapi, tables
from tidegate.lab.apiserver.schema.causes import Cause
from tidegate.lab.apiserver.schema.human import instant, since
from tidegate.lab.apiserver.strategy import Strategy, World, keep

_CONVENTIONS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_TYPE_META = {
    "apiVersion": "APIVersion defines the versioned schema of this representation of an object. Servers should convert "
    "recognized schemas to the latest internal value, and may reject unrecognized values. "
    f"More info: {_CONVENTIONS}#resources",
    "kind": "Kind is a string value representing the REST resource this object represents. Servers may infer this from "
    "the endpoint the client submits requests to. Cannot be updated. In CamelCase. "
    f"More info: {_CONVENTIONS}#types-kinds",
}
_MORE = f"More info: {_CONVENTIONS}#metadata"

READ_WRITE = ("get", "patch", "update")
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_LISTED = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_LISTED_AT_THE_END = ("delete", "deletecollection", "get", "list", "watch")
_NAME = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
_DEFAULT_COLUMNS = [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]


def split_path(path: str) -> tuple[str, ...]:
    """``.spec.replicas`` as keys."""
    return tuple(path.removeprefix(".").split("."))


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a custom kind keeps what a Scale shows; ``selector`` is () where it keeps none."""

    replicas: tuple[str, ...]
    status_replicas: tuple[str, ...]
    selector: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class CustomKind:
    """One version of one definition, made ready for use."""

    resource: Resource
    list_kind: str
    singular: str
    schema: Schema
    rules: rules.Validator | None
    columns: tuple[JsonObject, ...]
    has_status: bool
    scale: Scale | None
    is_terminating: bool
    storage_hash: str = ""

    def prune(self, obj: JsonObject) -> list[str]:
        """Drop what the schema does not know, in place; the paths dropped."""
        return shaping.prune(obj, self.schema)

    def complete(self, obj: JsonObject) -> None:
        """Prune, drop stray nulls and default, in place: what decoding does."""
        shaping.prune(obj, self.schema)
        shaping.drop_nulls(obj, self.schema)
        shaping.default(obj, self.schema)

    def published(self) -> JsonObject:
        """The schema as OpenAPI documents show it (apiextensions controller/openapi/builder)."""
        resource = self.resource
        metadata = {"description": f"Standard object's metadata. {_MORE}", "allOf": [openapi.METADATA]}
        schema = {key: value for key, value in self.schema.raw.items() if key != "properties"}
        gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        meta = {key: {"type": "string", "description": text} for key, text in _TYPE_META.items()}
        properties = {**(self.schema.raw.get("properties") or {}), **meta, "metadata": metadata}
        return {"type": "object", **schema, "properties": properties, "x-kubernetes-group-version-kind": [gvk]}

    @property
    def verbs(self) -> tuple[str, ...]:
        """As discovery lists them, in the order of its controller; all are answered until the end."""
        return _LISTED_AT_THE_END if self.is_terminating else _LISTED

    # -- scale

    def scale_of(self, obj: JsonObject) -> JsonObject:
        """The autoscaling/v1 Scale (registry/customresource/etcd.go scaleFromCustomResource)."""
        assert self.scale is not None
        metadata = obj["metadata"]
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        replicas, selector = dig(obj, self.scale.replicas), dig(obj, self.scale.selector) if self.scale.selector else ""
        status: JsonObject = {"replicas": dig(obj, self.scale.status_replicas) or 0}
        if selector:
            status["selector"] = selector
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {key: metadata[key] for key in kept if key in metadata},
            "spec": {"replicas": replicas} if replicas else {},
            "status": status,
        }

    def check_scale(self, obj: JsonObject) -> None:
        """A Scale can only be read where there is a number to show."""
        assert self.scale is not None
        if dig(obj, self.scale.replicas) is None:
            path = "." + ".".join(self.scale.replicas)
            raise failures.internal(f'the spec replicas field "{path}" does not exist')

    def rescale(self, obj: JsonObject, count: int) -> None:
        """Set the wanted replicas, in place."""
        assert self.scale is not None
        node = obj
        for key in self.scale.replicas[:-1]:
            node = node.setdefault(key, {})
        node[self.scale.replicas[-1]] = count

    # -- tables

    def table(self, objects: Sequence[JsonObject], now: datetime, options: tables.Options) -> JsonObject:
        """A Table by additionalPrinterColumns (registry/customresource/tableconvertor)."""
        definitions = [_NAME]
        for column in self.columns:
            text = column.get("description") or (
                f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
            )
            definitions.append(
                {
                    "name": column["name"],
                    "type": column["type"],
                    "format": column.get("format", ""),
                    "description": text,
                    "priority": column.get("priority", 0),
                }
            )
        rows = [tables.row(self._cells(obj, now), obj, options) for obj in objects]
        return tables.framed(definitions, rows, options)

    def _cells(self, obj: JsonObject, now: datetime) -> list[Any]:
        found: list[Any] = [obj["metadata"]["name"]]
        for column in self.columns:
            values = jsonpath.walk(jsonpath.parse(column["jsonPath"]), obj)
            found.append(_cell(column["type"], values[0], now) if values else None)
        return found


def _cell(kind: str, value: Any, now: datetime) -> Any:
    """cellForJSONValue: what does not fit its column is left out."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "string":
        return jsonpath.shown(value)
    if kind == "integer" and is_number:
        return int(value)
    if kind == "number" and is_number:
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "date" and isinstance(value, str):
        return since(value, now) if instant(value) is not None else "<invalid>"
    return None


class CustomStrategy(Strategy):
    """Create, update and status of custom objects (registry/customresource/strategy.go, status_strategy.go)."""

    needs_version = True

    def __init__(self, kind: CustomKind, stored: CustomKind | None = None) -> None:
        super().__init__(has_generation=True, keeps_status=not kind.has_status)
        self._kind = kind
        self._stored = stored

    def complete(self, kind: str, obj: JsonObject) -> None:
        self._kind.complete(obj)
        if self._stored is not None:
            self._stored.complete(obj)

    def warnings(self, obj: JsonObject, old: JsonObject | None) -> list[str]:
        return checks.warnings(obj, old) if obj["metadata"].get("finalizers") else []

    def faults(self, kind: str, obj: JsonObject, old: JsonObject | None, subresource: str = "") -> list[Cause]:
        return checks.faults(self._kind, obj, old, subresource)

    def prepare_create(self, obj: JsonObject, world: World) -> None:
        if self._kind.is_terminating:
            resource, name = self._kind.resource, obj["metadata"]["name"]
            why = "create not allowed while custom resource definition is terminating"
            details = {"name": name, "group": resource.group, "kind": resource.plural}
            message = f'{resource.plural}.{resource.group} "{name}" is forbidden: {why}'
            raise failures.failure(403, "Forbidden", message, details)
        if self._kind.has_status:
            obj.pop("status", None)

    def prepare_update(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        if self._kind.has_status:
            keep(obj, old, "status")

    def prepare_status(self, obj: JsonObject, old: JsonObject, world: World) -> None:
        """Only status may change: not even labels (metadata is the old object's)."""
        managed = obj["metadata"].get("managedFields")
        super().prepare_status(obj, old, world)
        obj["metadata"] = dict(old["metadata"])
        if managed is not None:
            obj["metadata"]["managedFields"] = managed

    def content(self, obj: JsonObject) -> JsonObject:
        return {key: value for key, value in obj.items() if key != "metadata"}


def custom_kind(definition: JsonObject, version: JsonObject) -> CustomKind:
    """A version of a definition that has been accepted: its schema is known to be sound."""
    spec, names = definition["spec"], definition["status"]["acceptedNames"]
    schema = structural.parse((version.get("schema") or {}).get("openAPIV3Schema"))
    below = version.get("subresources") or {}
    scale = below.get("scale")
    return CustomKind(
        Resource(spec["group"], version["name"], names["plural"], names["kind"], spec["scope"] == "Namespaced"),
        names["listKind"],
        names["singular"],
        schema,
        rules.compiled(schema),
        tuple(version.get("additionalPrinterColumns") or _DEFAULT_COLUMNS),
        "status" in below,
        Scale(
            split_path(scale["specReplicasPath"]),
            split_path(scale["statusReplicasPath"]),
            split_path(scale["labelSelectorPath"]) if scale.get("labelSelectorPath") else (),
        )
        if scale
        else None,
        is_terminating(definition),
        _storage_hash(definition),
    )


def _storage_hash(definition: JsonObject) -> str:
    """apiserver pkg/endpoints/discovery/storageversionhash.go."""
    spec = definition["spec"]
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    found = hashlib.sha256(f"{spec['group']}/{stored}/{spec['names']['kind']}".encode()).digest()
    return base64.b64encode(found[:8]).decode()


def is_terminating(definition: JsonObject) -> bool:
    """The definition is on its way out, and its instances before it."""
    return bool(definition["metadata"].get("deletionTimestamp"))


def rows(definition: JsonObject) -> list[Row]:
    """A row per served version; the storage version's comes first even when it is not served, for it has the store."""
    spec, names = definition["spec"], definition["status"]["acceptedNames"]
    versions = sorted(spec["versions"], key=lambda version: not version["storage"])
    made: list[Row] = []
    for version in versions:
        kind = custom_kind(definition, version)
        fields = [str(one["jsonPath"]) for one in version.get("selectableFields") or ()]
        made.append(
            Row(
                kind.resource,
                CustomStrategy(kind, made[0].custom if made else None),
                tuple(names.get("shortNames") or ()),
                tuple(names.get("categories") or ()),
                subresources=_subresources(kind),
                field_labels=_ALWAYS | {path.removeprefix("."): split_path(path) for path in fields},
                storage=made[0] if made else None,
                conversion=_conversion(kind, made[0]) if made else None,
                type_name=structural.type_name(kind.schema, is_root=True),
                deprecation=_deprecation(kind, version, versions),
                custom=kind,
            )
        )
    return made


_ALWAYS = {f"metadata.{name}": ("metadata", name) for name in ("name", "namespace")}


def _subresources(kind: CustomKind) -> tuple[Subresource, ...]:
    found: list[Subresource] = []
    if kind.has_status:
        found.append(Subresource("status", kind.resource.kind, READ_WRITE))
    if kind.scale is not None:
        found.append(Subresource("scale", "Scale", READ_WRITE, "autoscaling", "v1"))
    return tuple(found)


def _deprecation(kind: CustomKind, version: JsonObject, versions: list[JsonObject]) -> str:
    if not version.get("deprecated"):
        return ""
    resource = kind.resource
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    kept = [one["name"] for one in versions if one.get("served") and not one.get("deprecated")]
    better = sorted((name for name in kept if priority(name) < priority(resource.version)), key=priority)
    use = f"; use {resource.group}/{better[0]} {resource.kind}" if better else ""
    return f"{resource.group}/{resource.version} {resource.kind} is deprecated{use}"


def _conversion(kind: CustomKind, stored: Row) -> Conversion:
    """The strategy None: apiVersion changes, and what the other version's schema does not know is pruned."""

    def to_storage(obj: JsonObject) -> JsonObject:
        found: JsonObject = {**clone(obj), "apiVersion": stored.resource.api_version}
        kind.complete(found)
        return reread(stored, found)

    def from_storage(obj: JsonObject) -> JsonObject:
        found: JsonObject = {**clone(obj), "apiVersion": kind.resource.api_version}
        kind.prune(found)  # defaults are the stored version's: they came with what was read
        return found

    return Conversion(to_storage, from_storage)


def reread(stored: Row, obj: JsonObject) -> JsonObject:
    """An object as its definition now has it: of the storage version, pruned and defaulted as every read does."""
    assert stored.custom is not None
    found: JsonObject = {**clone(obj), "apiVersion": stored.resource.api_version}
    stored.custom.complete(found)
    return found


def served(said: JsonObject) -> list[str]:
    """The names of the versions that a definition serves."""
    return [version["name"] for version in said["spec"]["versions"] if version.get("served")]


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def priority(version: str) -> tuple[int, int, int, str]:
    """Sorts versions as the server prefers them: v2, v1, v1beta2, v1beta1, v1alpha1, others by name (apimachinery
    util/version CompareKubeAwareVersionStrings)."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return (stage, -int(found[1]), -int(found[3] or 0), version)
