"""Request bodies and query options: bytes and pairs in, objects and options out."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from tidegate.kube.api import JsonObject
from tidegate.kube.errors import ApiError
from tidegate.kube.exchange import Request
from tidegate.lab.apiserver import failures
from tidegate.lab.apiserver.deletions import DeleteOptions
from tidegate.lab.apiserver.listing import ListOptions
from tidegate.lab.apiserver.registry import Row
from tidegate.lab.apiserver.schema import causes, protobuf, strict, types, validation
from tidegate.lab.apiserver.verbs import Options

if TYPE_CHECKING:
    from tidegate.lab.apiserver.webhooks.admission import Admission

ACCEPTED = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
]

decode_json = msgspec.json.Decoder().decode


def decode(request: Request, *, keeps_nulls: bool = False) -> JsonObject:
    """The body as an object. Absent content types are JSON (``kubectl scale --current-replicas`` sends none).

    A null member is an absent one, unless ``keeps_nulls``: of custom kinds the schema decides.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    body = request.body
    if kind == "application/vnd.kubernetes.protobuf":
        obj: Any = _protobuf(body)
    elif kind in ("", "application/json", "*/*"):
        obj = _json(body, keeps_nulls=keeps_nulls)
    elif kind in ("application/yaml", "text/yaml", "application/x-yaml"):
        obj = _yaml(body, keeps_nulls=keeps_nulls)
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


def _json(body: bytes, *, keeps_nulls: bool = False) -> Any:
    try:
        obj = decode_json(body)
    except msgspec.DecodeError as error:
        raise failures.bad_request(f"error decoding the body of the request: {error}") from None
    return without_nulls(obj) if b"null" in body and not keeps_nulls else obj


def _yaml(body: bytes, *, keeps_nulls: bool = False) -> Any:
    try:
        obj = yaml.safe_load(body)
        return obj if keeps_nulls else without_nulls(obj)
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


def check_kind(row: Row, subresource: str, obj: JsonObject, body: bytes = b"") -> None:
    """The body's apiVersion and kind, where sent, must be the URL's; of a custom kind they must be sent."""
    if row.custom is not None and subresource != "scale":
        _check_custom(row, obj, body)
        return
    found = row.subresource(subresource) if subresource else None
    version, kind = row.resource.api_version, row.kind
    if found is not None and found.kind != kind:
        version = f"{found.group}/{found.version}" if found.group else row.resource.api_version
        kind = found.kind
    if not isinstance(obj.get("apiVersion", ""), str) or not isinstance(obj.get("kind", ""), str):
        raise failures.bad_request("couldn't get version/kind; json parse error: apiVersion and kind must be strings")
    sent, named = obj.get("apiVersion") or version, obj.get("kind") or kind
    if (sent, named) != (version, kind) and sent not in _ALIASES.get(kind, ()):
        raise _foreign(sent, named, kind, version)
    obj["apiVersion"], obj["kind"] = version, kind
    if subresource and kind != row.kind and (wrong := strict.mismatch(kind, obj)):
        raise failures.bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {wrong}')


def _check_custom(row: Row, obj: JsonObject, body: bytes) -> None:
    sent, wanted = obj.get("apiVersion") or "", row.resource.api_version
    for key, value in (("Kind", obj.get("kind")), ("apiVersion", sent)):
        if not value:
            text = body.decode("utf-8", "replace")
            short = text if len(body) <= _SUMMARY_BYTES else text[:_SUMMARY_BYTES] + " ..."
            shown = short if text.startswith("{") else body[:_SUMMARY_BYTES].hex()
            why = f"Object '{key}' is missing in '{text.rstrip()}' ({shown})"
            raise failures.bad_request(f"the object provided is unrecognized (must be of type {row.kind}): {why}")
    if sent != wanted:
        text = f"the API version in the data ({sent}) does not match the expected API version ({wanted})"
        raise failures.bad_request(text)
    if obj.get("kind") != row.kind:
        wrong = causes.invalid("kind", obj["kind"], f"must be {row.kind}")
        named = dataclasses.replace(row.resource, kind=str(obj["kind"]))
        raise validation.invalid(named, str((obj.get("metadata") or {}).get("name") or ""), [wrong])


_SUMMARY_BYTES = 30

_ALIASES = {"Eviction": ("policy/v1beta1",)}


def _foreign(sent: str, named: str, kind: str, version: str) -> ApiError:
    """A body of another kind than the URL's: one the server knows cannot be converted, another is not registered."""
    group, _, short = sent.rpartition("/")
    head = f'{named} in version "{short}" cannot be handled as a {kind}'
    if (group, short, named) in types.kinds():
        internal = version.rpartition("/")[0].partition(".")[0] or "core"
        why = f"converting ({short}.{named}) to ({internal}.{kind}): unknown conversion"
    else:
        scheme = '"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'
        why = f'no kind "{named}" is registered for version "{sent}" in scheme {scheme}'
    return failures.bad_request(f"{head}: {why}")


def check_fields(row: Row, obj: JsonObject, options: Options, old: JsonObject | None = None) -> None:
    """Hold an object against its type, in place: 400 for values of the wrong type; unknown fields are dropped.

    ``fieldValidation`` says whether a dropped field is an error (Strict), a warning (Warn) or nobody's business.
    What equals ``old`` was held against the type before: a label patch costs no walk through the pod's spec.
    """
    if row.custom is not None:
        wrong = strict.mismatch("meta.v1.ObjectMeta", obj.get("metadata") or {})
        found = strict.Survey(wrong, [f'unknown field "{path}"' for path in row.custom.prune(obj)])
    else:
        found = strict.survey(row.kind, obj if old is None else _news(obj, old))
    if found.mismatch:
        raise _undecodable(row, found.mismatch)
    texts = found.unknown
    if not texts:
        return
    if options.validation == "Strict":
        raise _undecodable(row, "strict decoding error: " + ", ".join(texts))
    if options.validation == "Warn":
        options.warnings.extend(texts)
    if row.custom is None:
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


_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}


def write_options(request: Request, admission: Admission | None = None) -> Options:
    """``dryRun``, ``fieldValidation`` and ``fieldManager`` of a write."""
    query = dict(request.query)
    dry = query.get("dryRun", "")
    if request.method == "DELETE" and request.body:
        return Options(admission=admission)  # beside DeleteOptions in the body the query is not read
    wrong = []
    if dry not in ("", "All"):
        wrong.append(("dryRun", f'Unsupported value: ["{dry}"]: supported values: "All"'))
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        text = f'Unsupported value: "{validation}": supported values: "", "Ignore", "Strict", "Warn"'
        wrong.append(("fieldValidation", text))
    if wrong:
        raise failures.invalid_option(_OPTIONS[request.method], wrong)
    return Options(dry == "All", validation, query.get("fieldManager", ""), admission=admission)


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
        raise failures.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def delete_options(request: Request, options: Options) -> DeleteOptions:
    """Options of a delete, from its body and its query; ``dryRun`` in the body is taken over into ``options``."""
    body = decode(request) if request.body else {}
    query = {} if request.body else dict(request.query)
    if body.get("kind", "DeleteOptions") != "DeleteOptions":
        scheme = '"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"'
        text = f'no kind "{body["kind"]}" is registered for version "meta.k8s.io/v1" in scheme {scheme}'
        raise failures.bad_request(text)
    if wrong := strict.mismatch("DeleteOptions", body):
        raise failures.bad_request(wrong)
    preconditions = body.get("preconditions") or {}
    grace: Any = body.get("gracePeriodSeconds")
    if grace is None and query.get("gracePeriodSeconds"):
        grace = _number(query, "gracePeriodSeconds")
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    if orphan is None and query.get("orphanDependents"):
        orphan = is_true(query["orphanDependents"])
    if propagation and orphan is not None:
        why = f'Invalid value: "{propagation}": orphanDependents and deletionPropagation cannot be both set'
        raise failures.invalid_option("DeleteOptions", [("propagationPolicy", why)])
    if not propagation and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in ("", "Orphan", "Background", "Foreground"):
        why = f'Unsupported value: "{propagation}": supported values: "Foreground", "Background", "Orphan", "nil"'
        raise failures.invalid_option("DeleteOptions", [("propagationPolicy", why)])
    if dry := body.get("dryRun"):
        if dry != ["All"]:
            why = f'Unsupported value: {json.dumps(dry)}: supported values: "All"'
            raise failures.invalid_option("DeleteOptions", [("dryRun", why)])
        options.dry_run = True
    return DeleteOptions(grace, preconditions.get("uid") or "", preconditions.get("resourceVersion") or "", propagation)
