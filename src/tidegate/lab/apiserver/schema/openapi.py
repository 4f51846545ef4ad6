"""OpenAPI v3 documents, made from the registry's rows and the type table.

``kubectl apply`` reads paths (``x-kubernetes-group-version-kind`` and the parameter ``fieldValidation``: measured,
empty schemas are enough for it); ``kubectl explain`` reads schemas with their prose. A document is made once per
group version and then cached by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from zlib import crc32

from tidegate.kube.api import Resource
from tidegate.lab.apiserver.schema import types
from tidegate.lab.apiserver.schema.types import Field

Json = dict[str, Any]


class Sub(Protocol):
    """A subresource: its name, verbs and the kind of its body."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def verbs(self) -> tuple[str, ...]: ...
    @property
    def group(self) -> str: ...
    @property
    def version(self) -> str: ...


class Published(Protocol):
    """A custom kind: it brings its own schema."""

    def published(self) -> Json: ...


class Row(Protocol):
    """What a document needs to know of a served resource (``registry.Row`` is one)."""

    @property
    def resource(self) -> Resource: ...
    @property
    def verbs(self) -> tuple[str, ...]: ...
    @property
    def subresources(self) -> Sequence[Sub]: ...
    @property
    def custom(self) -> Published | None: ...


_PACKAGES = {
    "meta.v1": "io.k8s.apimachinery.pkg.apis.meta.v1",
    "apiextensions.v1": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    "apiregistration.v1": "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
}
_QUANTITY, _INT_OR_STRING = (
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
)
_SCALARS: dict[str, Json] = {
    "string": {"type": "string"},
    "bytes": {"type": "string", "format": "byte"},
    "boolean": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "number": {"type": "number", "format": "double"},
    "any": {"type": "object"},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
}
_STRATEGIC = "application/strategic-merge-patch+json"
_BODIES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    _STRATEGIC,
)


def index(places: Mapping[str, str]) -> Json:
    """The root: one URL per place ("api/v1", "apis/apps/v1"); the hash lets clients cache for ever.

    Each place's text says which custom kinds it holds, "" for none: a document lasts as long as they do.
    """
    stamp = types.release().replace(".", "")
    hashes = {place: f"{stamp}{crc32(text.encode()):08x}" if text else stamp for place, text in places.items()}
    paths = {place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={hashes[place]}"} for place in sorted(places)}
    return {"paths": paths}


def document(place: str, rows: Iterable[Row]) -> Json:
    """The document of one group version: its paths, and the schemas they lead to."""
    listed = list(rows)
    paths: Json = {}
    roots: list[str] = []
    schemas: Json = {}
    for row in listed:
        resource = row.resource
        if row.custom is not None:
            name = custom_name(resource.group, resource.version, resource.kind)
            schemas[name] = row.custom.published()
            roots.append("meta.v1.ObjectMeta")
        else:
            root = types.resolve(resource.kind, resource.api_version)
            name = _full(root) if root else ""
            roots += [root] if root else []
        _paths(paths, row, name)
        if row.custom is not None:
            _without_strategic(paths)
    return {
        "openapi": "3.0.0",
        "info": {"title": f"Kubernetes {place}", "version": types.release()},
        "paths": paths,
        "components": {"schemas": dict(sorted((_schemas(roots) | schemas).items()))},
    }


def _paths(paths: Json, row: Row, root: str) -> None:
    resource = row.resource
    scope = "{namespace}" if resource.namespaced else ""
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    collection: Json = {}
    for verb, method, action in (("list", "get", "list"), ("create", "post", "post"),
                                 ("deletecollection", "delete", "deletecollection")):  # fmt: skip
        if verb in row.verbs:
            collection[method] = _operation(action, gvk, root)
    paths[resource.path(scope)] = collection
    if resource.namespaced and "list" in row.verbs:
        paths[resource.path()] = {"get": _operation("list", gvk, root)}
    one = _methods(row.verbs, gvk, root)
    if one:
        paths[resource.path(scope, "{name}")] = one
    for sub in row.subresources:
        group = sub.group or resource.group
        version = sub.version or resource.version
        below = {"group": group, "version": version, "kind": sub.kind}
        known = types.resolve(sub.kind, f"{group}/{version}" if group else version) if row.custom is None else ""
        name = _full(known) if known else root
        paths[resource.path(scope, "{name}", sub.name)] = _methods(sub.verbs, below, name)


def _without_strategic(paths: Json) -> None:
    """Custom kinds know no strategic merge patch; their scales are a built-in kind."""
    for path, methods in paths.items():
        if path.endswith("/scale"):
            continue
        methods.get("patch", {}).get("requestBody", {}).get("content", {}).pop(_STRATEGIC, None)


def _methods(verbs: tuple[str, ...], gvk: Json, root: str) -> Json:
    known = (("get", "get", "get"), ("update", "put", "put"), ("patch", "patch", "patch"),
             ("delete", "delete", "delete"), ("create", "post", "post"))  # fmt: skip
    return {
        method: _operation(action, gvk, root)
        for verb, method, action in known
        if verb in verbs and not (verb == "create" and "delete" in verbs and "list" in verbs)
    }


def _query(name: str, kind: str = "string") -> Json:
    return {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}


def _operation(action: str, gvk: Json, root: str) -> Json:
    made: Json = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": _link(root)}}}},
    }
    if action in ("post", "put", "patch"):
        made["parameters"] = [_query(name) for name in ("dryRun", "fieldManager", "fieldValidation")]
        media = _PATCHES if action == "patch" else _BODIES
        if action == "patch":
            made["parameters"].append(_query("force", "boolean"))
        made["requestBody"] = {"content": {kind: {"schema": _link(root)} for kind in media}, "required": True}
    return made


def _link(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"} if name else {}


def custom_name(group: str, version: str, kind: str) -> str:
    """``dev.tidegate.v1alpha1.Release``: a custom kind's schema (kube-openapi util ToRESTFriendlyName)."""
    return ".".join([*reversed(group.split(".")), version, kind])


METADATA: Json = _link("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")


def _full(name: str) -> str:
    """``core.v1.Pod`` -> ``io.k8s.api.core.v1.Pod``."""
    package, _, last = name.rpartition(".")
    return f"{_PACKAGES.get(package, 'io.k8s.api.' + package)}.{last}"


def _schemas(roots: list[str]) -> Json:
    prose = types.descriptions()
    gvks: dict[str, list[Json]] = {}
    for (group, version, kind), name in types.kinds().items():
        gvks.setdefault(name, []).append({"group": group, "version": version, "kind": kind})
    made: Json = {
        _QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
        _INT_OR_STRING: {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    }
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        known = types.find(name)
        if known is None or _full(name) in made:
            continue
        own, of_fields = prose.get(name, ("", {}))
        schema: Json = {"type": "object", "description": own, "properties": {}}
        if known.required:
            schema["required"] = list(known.required)
        if name in gvks:
            schema["x-kubernetes-group-version-kind"] = gvks[name]
        for key, field in known.fields.items():
            rows = types.enums().get(name, {}).get(key, [])
            schema["properties"][key] = _property(field, of_fields.get(key, ""), rows)
            waiting.append(field.item or field.type)
        made[_full(name)] = schema
    return dict(sorted(made.items()))


def _property(field: Field, prose: str, values: list[tuple[str, str]]) -> Json:
    schema = _shape(field.type)
    if values and field.is_list:
        schema["items"]["enum"] = [value for value, _ in values]
    elif values:  # kube-openapi generators/enum.go: the values and their comments join the prose
        schema["enum"] = [value for value, _ in values]
        listed = "\n".join(f' - `"{value}"` {text}' for value, text in values)
        prose = f"{prose}\n\nPossible enum values:\n{listed}"
    if "$ref" in schema:  # a reference may have no siblings in OpenAPI 3.0
        schema = {"allOf": [schema], "default": {}}
    schema["description"] = prose
    if field.list_type:
        schema["x-kubernetes-list-type"] = field.list_type
    if field.list_keys:
        schema["x-kubernetes-list-map-keys"] = list(field.list_keys)
    if field.is_atomic:
        schema["x-kubernetes-map-type"] = "atomic"
    if field.merge_key:
        schema["x-kubernetes-patch-merge-key"] = field.merge_key
    if field.strategies:
        schema["x-kubernetes-patch-strategy"] = ",".join(field.strategies)
    return schema


def _shape(word: str) -> Json:
    if word.startswith("[]"):
        return {"type": "array", "items": _wrapped(word[2:])}
    if word.startswith("{}"):
        return {"type": "object", "additionalProperties": _wrapped(word[2:])}
    if word == "Quantity":
        return {"$ref": f"#/components/schemas/{_QUANTITY}"}
    if word == "IntOrString":
        return {"$ref": f"#/components/schemas/{_INT_OR_STRING}"}
    scalar = _SCALARS.get(word)
    return dict(scalar) if scalar is not None else _link(_full(word) if word else "")


def _wrapped(word: str) -> Json:
    schema = _shape(word)
    return {"allOf": [schema], "default": {}} if "$ref" in schema else schema
