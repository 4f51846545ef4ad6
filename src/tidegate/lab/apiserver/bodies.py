"""Request bodies and query options: bytes and pairs in, objects and options out."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.deletions import DeleteOptions
from tidegate.lab.apiserver.listing import ListOptions
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.schema import protobuf, strict
from tidegate.lab.apiserver.verbs import Options

ACCEPTED = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
]

decode_json = msgspec.json.Decoder().decode


def decode(request: Request) -> JsonObject:
    """The body as an object. Absent content types are JSON (``kubectl scale --current-replicas`` sends none)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    body = request.body
    if kind == "application/vnd.kubernetes.protobuf":
        obj: Any = _protobuf(body)
    elif kind in ("", "application/json", "*/*"):
        obj = _json(body)
    elif kind in ("application/yaml", "text/yaml", "application/x-yaml"):
        obj = _yaml(body)
    else:
        raise failures.unsupported_media_type(ACCEPTED)
    if not isinstance(obj, dict):
        raise failures.bad_request("the object provided is unrecognized (must be of type Object)")
    return obj


def _protobuf(body: bytes) -> Any:
    try:
        return protobuf.decode(body)
    except protobuf.Undecodable as error:
        raise failures.bad_request(f"error decoding the body of the request: {error}") from None


def _json(body: bytes) -> Any:
    if not body:
        return {}
    try:
        obj = decode_json(body)
    except msgspec.DecodeError as error:
        raise failures.bad_request(f"error decoding the body of the request: {error}") from None
    return without_nulls(obj) if b"null" in body else obj


def _yaml(body: bytes) -> Any:
    try:
        return without_nulls(yaml.safe_load(body))
    except yaml.YAMLError as error:
        raise failures.bad_request(f"error converting YAML to JSON: {error}") from None


def without_nulls(value: Any) -> Any:
    """The same JSON without nulls: Go's decoder cannot tell a null member from an absent one."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


def patch_body(request: Request) -> Any:
    """A patch: any JSON, nulls kept (they mean removal)."""
    try:
        return decode_json(request.body) if request.body else {}
    except msgspec.DecodeError as error:
        raise failures.bad_request(f"error decoding patch: {error}") from None


def apply_body(request: Request, options: Options) -> JsonObject:
    """The configuration of a server-side apply: YAML or JSON, of a named manager, without managedFields."""
    if not options.manager:
        raise failures.invalid_option("PatchOptions", [("fieldManager", "Required value: is required for apply patch")])
    try:
        config = yaml.safe_load(request.body)
    except yaml.YAMLError as error:
        raise failures.bad_request(f"error decoding YAML: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("metadata") or {}, dict):
        raise failures.bad_request("the object provided is unrecognized (must be of type Object)")
    config = dict(without_nulls(config))
    if (config.get("metadata") or {}).get("managedFields"):
        raise failures.bad_request("metadata.managedFields must be nil")
    return config


def check_kind(row: Row, subresource: str, obj: JsonObject) -> None:
    """The body's apiVersion and kind, where sent, must be the URL's."""
    found = row.subresource(subresource) if subresource else None
    version, kind = row.resource.api_version, row.kind
    if found is not None and found.kind != kind:
        version = f"{found.group}/{found.version}" if found.group else row.resource.api_version
        kind = found.kind
    if not isinstance(obj.get("apiVersion", ""), str) or not isinstance(obj.get("kind", ""), str):
        raise failures.bad_request("couldn't get version/kind; json parse error: apiVersion and kind must be strings")
    sent = obj.get("apiVersion") or version
    if sent != version:
        message = f"the API version in the data ({sent}) does not match the expected API version ({version})"
        raise failures.bad_request(message)
    named = obj.get("kind") or kind
    if named != kind:
        message = (
            f"{named} in version {_quoted(sent)} cannot be handled as a {kind}: no kind {_quoted(named)} is registered"
        )
        raise failures.bad_request(message)
    obj["apiVersion"], obj["kind"] = version, kind
    if subresource and kind != row.kind and (wrong := strict.mismatch(kind, obj)):
        raise failures.bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {wrong}')


def _quoted(text: str) -> str:
    return f'"{text.rpartition("/")[2]}"'


def check_fields(row: Row, obj: JsonObject, options: Options, old: JsonObject | None = None) -> None:
    """Hold an object against its type, in place: 400 for values of the wrong type; unknown fields are dropped.

    ``fieldValidation`` says whether a dropped field is an error (Strict), a warning (Warn) or nobody's business.
    What equals ``old`` was held against the type before: a label patch costs no walk through the pod's spec.
    """
    news = obj if old is None else _news(obj, old)
    found = strict.survey(row.kind, news)
    if found.mismatch:
        raise _undecodable(row, found.mismatch)
    texts = found.unknown
    if not texts:
        return
    if options.validation == "Strict":
        raise _undecodable(row, "strict decoding error: " + ", ".join(texts))
    if options.validation == "Warn":
        options.warnings.extend(texts)
    strict.prune(row.kind, obj)


def _news(obj: JsonObject, old: JsonObject) -> JsonObject:
    """The members of ``obj``, two levels deep, that differ from ``old``."""
    news: JsonObject = {"apiVersion": obj.get("apiVersion")}
    for key, value in obj.items():
        before = old.get(key)
        if value == before:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            value = {name: item for name, item in value.items() if name not in before or item != before[name]}
        news[key] = value
    return news


def check_repeated(row: Row, request: Request, options: Options) -> None:
    """Keys given twice in a JSON body, reported as ``fieldValidation`` asks (the last one counts)."""
    if options.validation == "Ignore" or not request.body.startswith(b"{"):
        return
    texts = strict.duplicate_fields(request.body)
    if texts and options.validation == "Strict":
        raise _undecodable(row, "strict decoding error: " + ", ".join(texts))
    options.warnings.extend(texts)


def _undecodable(row: Row, why: str) -> ApiError:
    kind, version = row.kind, row.resource.version
    return failures.bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def write_options(request: Request) -> Options:
    """``dryRun``, ``fieldValidation`` and ``fieldManager`` of a write."""
    query = dict(request.query)
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise failures.bad_request(f'dryRun: Unsupported value: "{dry}": supported values: "All"')
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        raise failures.bad_request(f"invalid fieldValidation directive: {validation}")
    return Options(dry == "All", validation, query.get("fieldManager", ""))


def list_options(query: dict[str, str], namespace_name: str = "") -> ListOptions:
    """Options of list, watch and deletecollection. ``namespace_name`` narrows to one object by name."""
    fields = query.get("fieldSelector", "")
    if namespace_name:
        fields = f"metadata.name={namespace_name}"
    seconds = query.get("timeoutSeconds", "")
    initial = query.get("sendInitialEvents", "")
    return ListOptions(
        labels=query.get("labelSelector", ""),
        fields=fields,
        resource_version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        limit=_number(query, "limit"),
        token=query.get("continue", ""),
        timeout_seconds=int(seconds) if seconds.isdigit() else None,
        allows_bookmarks=is_true(query.get("allowWatchBookmarks", "")),
        sends_initial=is_true(initial) if initial else None,
    )


def is_true(text: str) -> bool:
    return text in ("true", "1", "True", "TRUE", "t", "T")


def _number(query: dict[str, str], name: str) -> int:
    text = query.get(name) or "0"
    try:
        return int(text)
    except ValueError:
        raise failures.bad_request(f'{name}: Invalid value: "{text}": must be an integer') from None


def delete_options(request: Request, options: Options) -> DeleteOptions:
    """Options of a delete, from its body and its query; ``dryRun`` in the body is taken over into ``options``."""
    body = decode(request) if request.body else {}
    query = dict(request.query)
    if wrong := strict.mismatch("DeleteOptions", body):
        raise failures.bad_request(f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: {wrong}')
    preconditions = body.get("preconditions") or {}
    grace: Any = body.get("gracePeriodSeconds")
    if grace is None and query.get("gracePeriodSeconds"):
        grace = _number(query, "gracePeriodSeconds")
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    if orphan is None and query.get("orphanDependents"):
        orphan = is_true(query["orphanDependents"])
    if not propagation and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in ("", "Orphan", "Background", "Foreground"):
        why = f'Unsupported value: "{propagation}": supported values: "Foreground", "Background", "Orphan", "nil"'
        raise failures.invalid_option("DeleteOptions", [("propagationPolicy", why)])
    if body.get("dryRun") == ["All"]:
        options.dry_run = True
    return DeleteOptions(grace, preconditions.get("uid") or "", preconditions.get("resourceVersion") or "", propagation)
