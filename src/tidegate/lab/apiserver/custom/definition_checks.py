"""What is wrong with a CustomResourceDefinition (apiextensions/validation/validation.go).

What all versions have alike is checked once, as the server's own form of a definition has it once: with one version
causes name ``spec.validation`` and not ``spec.versions[0].schema``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.lab.apiserver.custom import formats, jsonpath, schema_checks
from tidegate.lab.apiserver.schema import causes, names
from tidegate.lab.apiserver.schema.causes import Cause

COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
SELECTABLE_MAX = 8
_HOISTED = {"schema": "validation", "subresources": "subresources",
            "additionalPrinterColumns": "additionalPrinterColumns", "selectableFields": "selectableFields"}  # fmt: skip


def faults(definition: JsonObject, old: JsonObject | None) -> list[Cause]:
    """Causes of a 422 but for metadata's, in the real server's order."""
    spec = definition.get("spec") or {}
    found = [*_spec(spec)]
    if old is not None:
        found += _frozen(spec, old["spec"], is_established=_is_established(old))
        found += _stored(definition)
    return found


def _is_established(definition: JsonObject) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _spec(spec: JsonObject) -> Iterator[Cause]:
    group, versions = str(spec.get("group") or ""), spec.get("versions") or []
    if not group:
        yield causes.required("spec.group")
    elif texts := names.dns_subdomain(group):
        yield causes.invalid("spec.group", group, ",".join(texts))
    elif "." not in group:
        yield causes.invalid("spec.group", group, "should be a domain with at least one dot")
    if not spec.get("scope"):
        yield causes.required("spec.scope")
    yield from causes.one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    for index, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield causes.required(f"spec.versions[{index}].schema.openAPIV3Schema")
    for index, version in enumerate(versions):
        if texts := names.dns_1035_label(str(version.get("name") or "")):
            yield causes.invalid(f"spec.versions[{index}].name", version.get("name") or "", ",".join(texts))
        yield from _deprecation(version, f"spec.versions[{index}]")
        own = {key: version.get(key) for key in _HOISTED if not _is_common(versions, key)}
        yield from _version(own, f"spec.versions[{index}]", version, is_top=False)
    called = [version.get("name") for version in versions]
    if len(set(called)) != len(called):
        yield causes.invalid("spec.versions", _printed(versions), "must contain unique version names")
    stored = sum(bool(version.get("storage")) for version in versions)
    if stored != 1:
        text = "must have exactly one version marked as storage version"
        yield causes.invalid("spec.versions", _printed(versions), text)
    if versions and (texts := names.dns_1035_label(str(versions[0].get("name") or ""))):
        yield causes.invalid("spec.version", versions[0].get("name") or "", ",".join(texts))
    yield from _names(spec.get("names") or {})
    if versions:
        common = {key: versions[0].get(key) for key in _HOISTED if _is_common(versions, key)}
        yield from _version(common, "spec", versions[0], is_top=True)
    yield from _conversion(spec.get("conversion") or {})
    if not stored:
        yield causes.invalid("status.storedVersions", None, "must have at least one stored version")


def _printed(versions: list[JsonObject]) -> list[JsonObject]:
    """Versions as the server prints its own form of them: what all have alike is not among it."""
    own = {"Schema": "schema", "Subresources": "subresources", "AdditionalPrinterColumns": "additionalPrinterColumns",
           "SelectableFields": "selectableFields"}  # fmt: skip
    return [
        {
            "Name": version.get("name", ""),
            "Served": bool(version.get("served")),
            "Storage": bool(version.get("storage")),
            "Deprecated": bool(version.get("deprecated")),
            "DeprecationWarning": version.get("deprecationWarning"),
            **{name: None if _is_common(versions, key) else version.get(key) for name, key in own.items()},
        }
        for version in versions
    ]


def _is_common(versions: list[JsonObject], key: str) -> bool:
    first = versions[0].get(key)
    return first is not None and all(version.get(key) == first for version in versions)


def _deprecation(version: JsonObject, path: str) -> Iterator[Cause]:
    text = version.get("deprecationWarning")
    if text is None:
        return
    if not version.get("deprecated"):
        why = "can only be set for deprecated versions"
    elif not text:
        why = "must not be an empty string"
    elif len(text) > 256:
        why = "must be <= 256 characters long"
    else:
        return
    yield causes.invalid(f"{path}.deprecationWarning", text, why)


def _version(found: JsonObject, path: str, version: JsonObject, *, is_top: bool) -> Iterator[Cause]:
    has_status = "status" in (version.get("subresources") or {})
    schema = (found.get("schema") or {}).get("openAPIV3Schema")
    if schema:
        place = f"{path}.{'validation' if is_top else 'schema'}"
        yield from schema_checks.faults(schema, place, has_status=has_status)
    yield from _scale((found.get("subresources") or {}).get("scale"), f"{path}.subresources")
    for index, column in enumerate(found.get("additionalPrinterColumns") or ()):
        yield from _column(column, f"{path}.additionalPrinterColumns[{index}]")
    whole = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    yield from _selectable(found.get("selectableFields") or [], whole, f"{path}.selectableFields")


def _path(value: str, field: str) -> Iterator[Cause]:
    """A JSONPath; one that the lab cannot read is refused here, for a column would stay empty."""
    if not value.startswith("."):
        yield causes.invalid(field, value, "must be a simple json path starting with .")
        return
    try:
        jsonpath.parse(value)
    except jsonpath.BadPath as error:
        yield causes.invalid(field, value, str(error))


def _scale(scale: JsonObject | None, path: str) -> Iterator[Cause]:
    for key, below in (("specReplicasPath", (".spec.",)), ("statusReplicasPath", (".status.",)),
                       ("labelSelectorPath", (".spec.", ".status."))):  # fmt: skip
        value, field = str((scale or {}).get(key) or ""), f"{path}.scale.{key}"
        if scale is None or (not value and key == "labelSelectorPath"):
            continue
        if not value:
            yield causes.required(field)
        elif not value.startswith("."):
            yield from _path(value, field)
        elif not value.startswith(below):
            where = "under either .spec or .status" if len(below) > 1 else f"under {below[0].rstrip('.')}"
            yield causes.invalid(field, value, f"should be a json path {where}")


def _column(column: JsonObject, path: str) -> Iterator[Cause]:
    kind, form, where = column.get("type") or "", column.get("format") or "", column.get("jsonPath") or ""
    if not column.get("name"):
        yield causes.required(f"{path}.name")
    if not kind:
        yield causes.required(f"{path}.type", f"must be one of {','.join(COLUMN_TYPES)}")
    elif kind not in COLUMN_TYPES:
        yield causes.invalid(f"{path}.type", kind, f"must be one of {','.join(COLUMN_TYPES)}")
    if form and form not in COLUMN_FORMATS:
        yield causes.invalid(f"{path}.format", form, f"must be one of {','.join(COLUMN_FORMATS)}")
    if not where:
        yield causes.required(f"{path}.JSONPath")
    else:
        yield from _path(where, f"{path}.JSONPath")


def _selectable(fields: list[JsonObject], schema: JsonObject, path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, one in enumerate(fields):
        where, field = str(one.get("jsonPath") or ""), f"{path}[{index}].jsonPath"
        if not where:
            yield causes.required(field)
            continue
        node: JsonObject | None = schema
        for key in where.removeprefix(".").split("."):
            node = ((node or {}).get("properties") or {}).get(key)
        if not where.startswith(".") or node is None:
            yield causes.invalid(field, where, "is an invalid path: does not refer to a valid field")
            continue
        if where.startswith(".metadata"):
            yield causes.invalid(field, where, "must not point to fields in metadata")
        if node.get("type") not in ("string", "boolean", "integer"):
            text = "must point to a field of type string, boolean or integer."
            yield causes.invalid(field, where, f"{text} Enum string fields and strings with formats are allowed.")
        if where in seen:
            yield causes.duplicate(field, where)
        seen.add(where)
    if len(seen) > SELECTABLE_MAX:
        text = f"Too many: {len(seen)}: must have at most {SELECTABLE_MAX} items"
        yield Cause(path, "FieldValueTooMany", text)


def _names(called: JsonObject) -> Iterator[Cause]:
    path = "spec.names"
    for key in ("plural", "singular", "kind", "listKind"):
        if not called.get(key):
            yield causes.required(f"{path}.{key}")
    for key in ("plural", "singular"):
        value = str(called.get(key) or "")
        if value and (texts := names.dns_1035_label(value)):
            yield causes.invalid(f"{path}.{key}", value, ",".join(texts))
    for key in ("kind", "listKind"):
        value = str(called.get(key) or "")
        if value and (texts := names.dns_1035_label(value.lower())):
            text = "may have mixed case, but should otherwise match: " + ",".join(texts)
            yield causes.invalid(f"{path}.{key}", value, text)
    yield from _labels(called.get("shortNames") or (), f"{path}.shortNames")
    if called.get("kind") and called.get("kind") == called.get("listKind"):
        yield causes.invalid(f"{path}.listKind", called["listKind"], "kind and listKind may not be the same")
    yield from _labels(called.get("categories") or (), f"{path}.categories")


def _labels(values: Any, path: str) -> Iterator[Cause]:
    for index, value in enumerate(values):
        if texts := names.dns_1035_label(str(value)):
            yield causes.invalid(f"{path}[{index}]", value, ",".join(texts))


def _conversion(conversion: JsonObject) -> Iterator[Cause]:
    path, strategy = "spec.conversion", conversion.get("strategy")
    yield from causes.one_of(f"{path}.strategy", strategy, ("None", "Webhook"))
    if strategy == "Webhook":
        yield causes.forbidden(f"{path}.strategy", "this server asks no conversion webhooks")
    elif conversion.get("webhook"):
        text = "should not be set when strategy is not set to Webhook"
        if (conversion["webhook"] or {}).get("clientConfig"):
            yield causes.forbidden(f"{path}.webhookClientConfig", text)
        if (conversion["webhook"] or {}).get("conversionReviewVersions"):
            yield causes.forbidden(f"{path}.conversionReviewVersions", text)


def _frozen(spec: JsonObject, old: JsonObject, *, is_established: bool) -> Iterator[Cause]:
    """Once established, scope and kind stay; group and plural always do."""
    called, before = spec.get("names") or {}, old["names"]
    if is_established:
        yield from causes.unchanged("spec.scope", spec.get("scope"), old.get("scope"))
        yield from causes.unchanged("spec.names.kind", called.get("kind"), before.get("kind"))
    yield from causes.unchanged("spec.group", spec.get("group"), old.get("group"))
    yield from causes.unchanged("spec.names.plural", called.get("plural"), before.get("plural"))


def _stored(definition: JsonObject) -> Iterator[Cause]:
    here = [version.get("name") for version in definition["spec"].get("versions") or ()]
    for index, name in enumerate((definition.get("status") or {}).get("storedVersions") or ()):
        if name not in here:
            text = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
                "spec.versions until a storage migration ensures no data remains persisted in "
                f"{name} and removes {name} from status.storedVersions"
            )
            yield causes.invalid(f"status.storedVersions[{index}]", name, text)


def unrecognized_formats(definition: JsonObject) -> list[str]:
    """Formats that the server will ignore, one per field that has one: each is warned of."""
    found: list[str] = []
    for version in (definition.get("spec") or {}).get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        found += [node["format"] for node in schema_checks.nodes(schema or {}) if not formats.is_recognized(node)]
    return found
